"""Models made into GGUF files for llama.cpp: a GPT-2 as `make_gpt2` writes it, or a decoder in a Hugging Face folder. Matrices are
in Q8_0, its blocks of 32 weights with one scale; positions, norms and biases in f32, as llama.cpp's own quantiser leaves them.
There is no tokenizer: ids go in."""

import gguf
import numpy as np
from decoder import CONTEXT, shape, weights
from with_past import HEAD, weights_of

MATRICES = {"attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output", "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down"}
NORMS = {"ln_1": "attn_norm", "ln_2": "ffn_norm"}


# The format's architecture of a model type, and whether it holds rotary pairs side by side, not in two halves of a head.
ARCHITECTURES = {"llama": ("llama", True), "mistral": ("llama", True), "qwen2": ("qwen2", False), "qwen3": ("qwen3", False)}
PARTS = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
ENDS = {"embed_tokens": "token_embd", "norm": "output_norm", "lm_head": "output"}


class Writer(gguf.GGUFWriter):
    """A file without a tokenizer; `exact`: with matrices in f32 as well."""

    def __init__(self, target, architecture, vocabulary, exact=False):
        super().__init__(target, architecture)
        self.exact = exact
        self.add_file_type(gguf.LlamaFileType.ALL_F32 if exact else gguf.LlamaFileType.MOSTLY_Q8_0)
        self.add_tokenizer_model("none")
        self.add_vocab_size(vocabulary)

    def real(self, name, array):
        self.add_tensor(name, np.ascontiguousarray(array, np.float32))

    def matrix(self, name, array):
        """In f16 where its rows are no whole blocks, as llama.cpp's own quantiser does."""
        if self.exact:
            return self.real(name, array)
        q8_0 = gguf.GGMLQuantizationType.Q8_0
        if array.shape[1] % gguf.GGML_QUANT_SIZES[q8_0][0]:
            return self.add_tensor(name, np.ascontiguousarray(array, np.float16))
        return self.add_tensor(name, gguf.quants.quantize(np.ascontiguousarray(array), q8_0), raw_dtype=q8_0)

    def finish(self):
        self.write_header_to_file()
        self.write_kv_data_to_file()
        self.write_tensors_to_file()
        self.close()


def decoder_to_gguf(folder, target, exact=False):
    found = shape(folder)
    if found.model_type not in ARCHITECTURES:
        raise ValueError(f"{found.model_type}: GGUF's architecture for it is not known here")
    architecture, side_by_side = ARCHITECTURES[found.model_type]
    writer = Writer(target, architecture, found.vocabulary, exact)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(found.width)
    writer.add_feed_forward_length(found.hidden)
    writer.add_block_count(found.layers)
    writer.add_head_count(found.heads)
    writer.add_head_count_kv(found.kv_heads)
    writer.add_key_length(found.head)
    writer.add_value_length(found.head)
    writer.add_rope_dimension_count(found.head)
    writer.add_rope_freq_base(found.theta)
    writer.add_layer_norm_rms_eps(found.eps)
    for name, array in weights(folder).items():
        module, part = name.rsplit(".", 1)
        _, _, inner = module.partition("layers.")
        layer, _, inner = inner.partition(".")
        theirs = f"blk.{layer}.{PARTS[inner]}.{part}" if layer else f"{ENDS[module]}.{part}"
        if side_by_side and inner in ("self_attn.q_proj", "self_attn.k_proj"):
            array = array.reshape(-1, 2, found.head // 2, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)
        (writer.matrix if array.ndim == 2 else writer.real)(theirs, array)
    writer.finish()


def gpt2_to_gguf(source, target):
    weights = weights_of(source)
    (vocabulary, width), context = weights["wte.weight"].shape, weights["wpe.weight"].shape[0]
    layers = sum(name.endswith("ln_1.weight") for name in weights)
    writer = Writer(target, "gpt2", vocabulary)
    writer.add_context_length(context)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(4 * width)
    writer.add_block_count(layers)
    writer.add_head_count(width // HEAD)
    writer.add_layer_norm_eps(1e-5)
    writer.matrix("token_embd.weight", weights["wte.weight"])
    writer.real("position_embd.weight", weights["wpe.weight"])
    for part in "weight", "bias":
        writer.real(f"output_norm.{part}", weights[f"ln_f.{part}"])
    for i in range(layers):
        for name, theirs in MATRICES.items():
            writer.matrix(f"blk.{i}.{theirs}.weight", weights[f"h.{i}.{name}.weight"].T)
            writer.real(f"blk.{i}.{theirs}.bias", weights[f"h.{i}.{name}.bias"])
        for name, theirs in NORMS.items():
            for part in "weight", "bias":
                writer.real(f"blk.{i}.{theirs}.{part}", weights[f"h.{i}.{name}.{part}"])
    writer.finish()
