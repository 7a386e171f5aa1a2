"""A decoder of `decoder.py`, made into what onnxruntime runs best: the operators of its own that its exporters for generation
write (`GroupQueryAttention` with rotary positions, `SkipSimplifiedLayerNormalization`), queries, keys and values by one product,
a cache of the caller's that grows in place, and the head on the last token only. The weights are the same numbers."""

import numpy as np
import onnx
from decoder import scale, shape, turns, weights
from onnx import TensorProto, helper, numpy_helper

OWN = "com.microsoft"


class Builder:
    def __init__(self):
        self.nodes, self.constants = [], []

    def constant(self, name, array):
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def node(self, op, inputs, outputs, **attributes):
        outputs = [outputs] if isinstance(outputs, str) else outputs
        self.nodes.append(helper.make_node(op, inputs, outputs, name=next(filter(None, outputs)), **attributes))
        return outputs[0]

    def linear(self, x, weight, bias, output):
        """`x` by the transpose of a weight as folders hold it."""
        product = [x, self.constant(f"{output}.weight", weight.T)]
        if bias is None:
            return self.node("MatMul", product, output)
        y = self.node("MatMul", product, f"{output}.m")
        return self.node("Add", [y, self.constant(f"{output}.bias", bias)], output)


def decoder_with_past(folder):
    found, arrays, b = shape(folder), weights(folder), Builder()
    x, presents = b.node("Gather", [b.constant("tokens", arrays["embed_tokens.weight"]), "input_ids"], "embedded"), []
    tables = [b.constant(name, table) for name, table in zip(("cosines", "sines"), turns(found))]
    skip = None
    for i in range(found.layers):
        prefix = f"layers.{i}."
        part = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
        x, normed = norm(b, found, x, skip, part["input_layernorm.weight"], f"{i}.before")
        skip = attention(b, found, part, normed, tables, i)
        presents += [f"present.{i}.k", f"present.{i}.v"]
        x, normed = norm(b, found, x, skip, part["post_attention_layernorm.weight"], f"{i}.between")
        gate, up = (projected(b, part, normed, [f"mlp.{name}_proj"], f"{i}.{name}") for name in ("gate", "up"))
        gate = b.node("Mul", [gate, b.node("Sigmoid", [gate], f"{i}.sigmoid")], f"{i}.silu")
        skip = projected(b, part, b.node("Mul", [gate, up], f"{i}.gated"), ["mlp.down_proj"], f"{i}.down")
    # A norm works by rows, so that the last row is enough behind the last block.
    last = b.constant("last", np.array([-1], np.int64))
    x, skip = (b.node("Gather", [rows, last], f"{rows}.last", axis=1) for rows in (x, skip))
    _, normed = norm(b, found, x, skip, arrays["norm.weight"], "end")
    b.linear(normed, arrays.get("lm_head.weight", arrays["embed_tokens.weight"]), None, "logits")
    return model(b, found, presents)


def norm(b, found, x, skip, gain, name):
    """The residual stream with what is added to it, and its norm."""
    gain = b.constant(f"{name}.gain", gain)
    if skip is None:
        return x, b.node("SimplifiedLayerNormalization", [x, gain], f"{name}.norm", axis=-1, epsilon=found.eps)
    outputs, settings = [f"{name}.norm", "", "", f"{name}.x"], {"domain": OWN, "epsilon": found.eps}
    return outputs[3], b.node("SkipSimplifiedLayerNormalization", [x, skip, gain], outputs, **settings)


def projected(b, part, x, names, output):
    """Projections side by side."""
    biases = [part.get(f"{name}.bias") for name in names]
    rows = [part[f"{name}.weight"] for name in names]
    if all(bias is None for bias in biases):
        return b.linear(x, np.concatenate(rows), None, output)
    biases = [np.zeros(len(w), np.float32) if bias is None else bias for w, bias in zip(rows, biases)]
    return b.linear(x, np.concatenate(rows), np.concatenate(biases), output)


def attention(b, found, part, x, tables, i):
    qkv = projected(b, part, x, [f"self_attn.{p}_proj" for p in "qkv"], f"{i}.qkv")
    inputs = [qkv, "", ""]
    if "self_attn.q_norm.weight" in part:
        sizes = [found.head * n for n in (found.heads, found.kv_heads, found.kv_heads)]
        inputs = [f"{i}.{p}" for p in "qkv"]
        b.node("Split", [qkv, b.constant(f"{i}.sizes", np.array(sizes, np.int64))], inputs, axis=-1)
        inputs[:2] = [head_norm(b, found, part, f"{i}.{p}", p) for p in "qk"]
    inputs += [f"past.{i}.k", f"past.{i}.v", "seqlens_k", "total", *tables]
    settings = {"num_heads": found.heads, "kv_num_heads": found.kv_heads, "scale": scale(found), "do_rotary": 1}
    outputs = [f"{i}.mixed", f"present.{i}.k", f"present.{i}.v"]
    mixed = b.node("GroupQueryAttention", inputs, outputs, domain=OWN, **settings)
    return projected(b, part, mixed, ["self_attn.o_proj"], f"{i}.attended")


def head_norm(b, found, part, x, p):
    gain = b.constant(f"{x}.gain", part[f"self_attn.{p}_norm.weight"])
    split = b.node("Reshape", [x, b.constant(f"{x}.heads", np.array([0, 0, -1, found.head], np.int64))], f"{x}.split")
    normed = b.node("SimplifiedLayerNormalization", [split, gain], f"{x}.normed", axis=-1, epsilon=found.eps)
    return b.node("Reshape", [normed, b.constant(f"{x}.row", np.array([0, 0, -1], np.int64))], f"{x}.merged")


def model(b, found, presents):
    value, real, int32 = helper.make_tensor_value_info, TensorProto.FLOAT, TensorProto.INT32
    cache = [1, found.kv_heads, "room", found.head]
    inputs = [value("input_ids", TensorProto.INT64, [1, "n"]), value("seqlens_k", int32, [1]), value("total", int32, [1])]
    inputs += [value(name.replace("present", "past"), real, cache) for name in presents]
    outputs = [value("logits", real, [1, 1, found.vocabulary]), *(value(name, real, cache) for name in presents)]
    graph = helper.make_graph(b.nodes, "decoder", inputs, outputs, b.constants)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(OWN, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)
