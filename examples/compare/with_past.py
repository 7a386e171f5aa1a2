"""A GPT-2 as `make_gpt2` writes it, made into what onnxruntime and tract run best: keys and values of the past go in and come
out, and the head sees the last token only. The weights are the same numbers."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def weights_of(source):
    """Arrays by name, without the prefix that exporters put before all of them."""
    weights = {t.name: numpy_helper.to_array(t) for t in onnx.load(source).graph.initializer}
    prefix = next(name for name in weights if name.endswith("wte.weight")).removesuffix("wte.weight")
    return {name.removeprefix(prefix): array for name, array in weights.items()}


HEAD = 64  # channels per head of every size that `make_gpt2` knows


def with_past(source, power):
    """GELU's cube is a power, which onnxruntime knows as part of its fused GELU, or products, which tract is faster with."""
    weights = weights_of(source)
    layers = sum(name.endswith("ln_1.weight") for name in weights)
    vocabulary, width = weights["wte.weight"].shape
    head, heads = HEAD, width // HEAD
    nodes, constants = [], []

    def constant(name, array):
        constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def node(op, inputs, output, **attributes):
        nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def weight(name):
        return constant(name, weights[name])

    def norm(x, name):
        return node("LayerNormalization", [x, weight(f"{name}.weight"), weight(f"{name}.bias")], f"{name}.y", epsilon=1e-5)

    def linear(x, name):
        y = node("MatMul", [x, weight(f"{name}.weight")], f"{name}.m")
        return node("Add", [y, weight(f"{name}.bias")], f"{name}.y")

    shape = constant("split_shape", np.array([0, 0, heads, head], np.int64))
    merged = constant("merged_shape", np.array([0, 0, width], np.int64))
    scale = constant("scale", np.array(head**-0.5, np.float32))
    half, one, three, cubic, root = (
        constant(n, np.array(x, np.float32))
        for n, x in [("half", 0.5), ("one", 1), ("three", 3), ("cubic", 0.044715), ("root", (2 / np.pi) ** 0.5)]
    )
    x = node("Gather", [weight("wte.weight"), "input_ids"], "tokens")
    x = node("Add", [x, node("Gather", [weight("wpe.weight"), "position_ids"], "places")], "embedded")
    presents = []
    for i in range(layers):
        h = f"h.{i}"
        qkv = linear(norm(x, f"{h}.ln_1"), f"{h}.attn.c_attn")
        nodes.append(helper.make_node("Split", [qkv], [f"{h}.{p}" for p in "qkv"], axis=-1, num_outputs=3))
        part = {}
        for p in "qkv":
            turned = node("Reshape", [f"{h}.{p}", shape], f"{h}.{p}.split")
            part[p] = node("Transpose", [turned], f"{h}.{p}.heads", perm=[0, 2, 1, 3])
        for p in "kv":
            part[p] = node("Concat", [f"past.{i}.{p}", part[p]], f"present.{i}.{p}", axis=2)
            presents.append(part[p])
        keys = node("Transpose", [part["k"]], f"{h}.k.turned", perm=[0, 1, 3, 2])
        scores = node("Mul", [node("MatMul", [part["q"], keys], f"{h}.qk"), scale], f"{h}.scaled")
        probable = node("Softmax", [node("Add", [scores, "mask"], f"{h}.masked")], f"{h}.softmax", axis=-1)
        mixed = node("Transpose", [node("MatMul", [probable, part["v"]], f"{h}.mixed")], f"{h}.back", perm=[0, 2, 1, 3])
        y = linear(node("Reshape", [mixed, merged], f"{h}.merged"), f"{h}.attn.c_proj")
        x = node("Add", [x, y], f"{h}.attended")
        y = linear(norm(x, f"{h}.ln_2"), f"{h}.mlp.c_fc")
        cube = node("Pow", [y, three], f"{h}.3") if power else node("Mul", [node("Mul", [y, y], f"{h}.2"), y], f"{h}.3")
        cube = node("Mul", [cube, cubic], f"{h}.cube")
        inner = node("Mul", [node("Add", [y, cube], f"{h}.sum"), root], f"{h}.inner")
        bent = node("Add", [node("Tanh", [inner], f"{h}.tanh"), one], f"{h}.bent")
        y = node("Mul", [node("Mul", [y, half], f"{h}.half"), bent], f"{h}.gelu")
        x = node("Add", [x, linear(y, f"{h}.mlp.c_proj")], f"{h}.out")
    last = node("Gather", [x, constant("last", np.array([-1], np.int64))], "last_row", axis=1)
    head_weight = constant("lm_head", weights["wte.weight"].T)
    node("MatMul", [norm(last, "ln_f"), head_weight], "logits")

    def value(name, kind, dims):
        return helper.make_tensor_value_info(name, kind, dims)

    past = [value(f"past.{i}.{p}", TensorProto.FLOAT, [1, heads, "past", head]) for i in range(layers) for p in "kv"]
    inputs = [value("input_ids", TensorProto.INT64, [1, "n"]), value("position_ids", TensorProto.INT64, [1, "n"])]
    inputs += [value("mask", TensorProto.FLOAT, ["n", "all"]), *past]
    outputs = [value("logits", TensorProto.FLOAT, [1, 1, vocabulary])]
    outputs += [value(name, TensorProto.FLOAT, [1, heads, "all", head]) for name in presents]
    graph = helper.make_graph(nodes, "gpt2", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
