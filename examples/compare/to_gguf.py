"""A GPT-2 as `make_gpt2` writes it, made into a GGUF file for llama.cpp: matrices in Q8_0, its blocks of 32 weights with one
scale; positions, norms and biases in f32, as llama.cpp's own quantiser leaves them. It has no tokenizer: ids go in."""

import gguf
import numpy as np
from with_past import weights_of

MATRICES = {"attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output", "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down"}
NORMS = {"ln_1": "attn_norm", "ln_2": "ffn_norm"}


def to_gguf(source, target, heads):
    weights = weights_of(source)
    (vocabulary, width), context = weights["wte.weight"].shape, weights["wpe.weight"].shape[0]
    layers = sum(name.endswith("ln_1.weight") for name in weights)
    writer = gguf.GGUFWriter(target, "gpt2")
    writer.add_context_length(context)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(4 * width)
    writer.add_block_count(layers)
    writer.add_head_count(heads)
    writer.add_layer_norm_eps(1e-5)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_tokenizer_model("none")
    writer.add_vocab_size(vocabulary)

    def real(name, array):
        writer.add_tensor(name, np.ascontiguousarray(array, np.float32))

    def matrix(name, array):
        q8_0 = gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(name, gguf.quants.quantize(np.ascontiguousarray(array), q8_0), raw_dtype=q8_0)

    matrix("token_embd.weight", weights["wte.weight"])
    real("position_embd.weight", weights["wpe.weight"])
    for part in "weight", "bias":
        real(f"output_norm.{part}", weights[f"ln_f.{part}"])
    for i in range(layers):
        for name, theirs in MATRICES.items():
            matrix(f"blk.{i}.{theirs}.weight", weights[f"h.{i}.{name}.weight"].T)
            real(f"blk.{i}.{theirs}.bias", weights[f"h.{i}.{name}.bias"])
        for name, theirs in NORMS.items():
            for part in "weight", "bias":
                real(f"blk.{i}.{theirs}.{part}", weights[f"h.{i}.{name}.{part}"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
