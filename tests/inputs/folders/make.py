"""Makes the folders beside this file: tiny random networks of many families, with logits by the Hugging Face library.

    python make.py [NAME...]

It needs torch, transformers and numpy. Weights have a standard deviation of 0.1, biases of 0.05; gains are 1 +- 0.15. Each folder
gets `ref_input_ids.npy` [2, 24] and `ref_logits.npy` [2, 24, vocabulary], computed in f32 with eager attention.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
import transformers as tf

HERE = Path(__file__).parent
SMALL = dict(vocab_size=96, bos_token_id=0, eos_token_id=0, pad_token_id=1)
LLAMA = dict(
    SMALL, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=40,
    max_position_embeddings=64,
)
GPT = dict(SMALL, n_embd=32, n_layer=2, n_head=4, n_inner=40, n_positions=64)
OPT = dict(
    SMALL, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, ffn_dim=40, max_position_embeddings=64,
    word_embed_proj_dim=32,
)
FALCON = dict(SMALL, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, ffn_hidden_size=40, max_position_embeddings=64)
NEOX = dict(
    SMALL, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=40, max_position_embeddings=64
)
# Eager attention of Falcon adds ALiBi twice; what its default computes adds it once.
SDPA = {"falcon_alibi"}
# head_dim is 8, so that a quarter of it is one pair.
FOLDERS = {
    "bloom": (tf.BloomConfig, dict(SMALL, hidden_size=32, n_layer=2, n_head=4)),
    "bloom_6_heads": (tf.BloomConfig, dict(SMALL, hidden_size=48, n_layer=2, n_head=6)),
    "biogpt": (
        tf.BioGptConfig,
        dict(SMALL, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=40, max_position_embeddings=64),
    ),
    "codegen": (tf.CodeGenConfig, dict(GPT, n_ctx=64, rotary_dim=4)),
    "cohere": (tf.CohereConfig, dict(LLAMA, logit_scale=0.5)),
    "falcon": (tf.FalconConfig, dict(FALCON, multi_query=True, parallel_attn=True, bias=False)),
    "falcon_alibi": (tf.FalconConfig, dict(FALCON, alibi=True, multi_query=False, parallel_attn=False, bias=True)),
    "falcon_new": (tf.FalconConfig, dict(FALCON, new_decoder_architecture=True, num_kv_heads=2, bias=True)),
    "falcon_one_norm": (
        tf.FalconConfig,
        dict(FALCON, new_decoder_architecture=True, num_kv_heads=2, num_ln_in_parallel_attn=1, bias=False),
    ),
    "gpt_neo": (
        tf.GPTNeoConfig,
        dict(
            SMALL, hidden_size=32, num_layers=2, num_heads=4, intermediate_size=40, max_position_embeddings=64, window_size=8,
            attention_types=[[["global", "local"], 1]],
        ),
    ),
    "gpt_neox_sequential": (tf.GPTNeoXConfig, dict(NEOX, use_parallel_residual=False, rotary_pct=0.5, hidden_act="gelu_fast")),
    "gptj": (tf.GPTJConfig, dict(GPT, rotary_dim=4)),
    "granite": (
        tf.GraniteConfig,
        dict(LLAMA, embedding_multiplier=3.0, residual_multiplier=0.4, attention_multiplier=0.3, logits_scaling=2.0),
    ),
    "mpt": (tf.MptConfig, dict(SMALL, d_model=32, n_layers=2, n_heads=4, max_seq_len=64)),
    "olmo": (tf.OlmoConfig, LLAMA),
    "olmo2": (tf.Olmo2Config, LLAMA),
    "openai_gpt": (tf.OpenAIGPTConfig, dict(SMALL, n_embd=32, n_layer=2, n_head=4, n_positions=64)),
    "opt_post_norm": (tf.OPTConfig, dict(OPT, word_embed_proj_dim=16, do_layer_norm_before=False)),
    "opt_no_bias": (tf.OPTConfig, dict(OPT, enable_bias=False, activation_function="gelu")),
    "phi": (
        tf.PhiConfig,
        dict(SMALL, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=40, max_position_embeddings=64),
    ),
    "phi3": (tf.Phi3Config, dict(LLAMA, sliding_window=8, rope_theta=10000.0)),
    "smollm3": (tf.SmolLM3Config, dict(LLAMA, no_rope_layers=[1, 0], use_sliding_window=False)),
    "stablelm": (tf.StableLmConfig, dict(LLAMA, use_qkv_bias=True)),
    "stablelm_parallel": (tf.StableLmConfig, dict(LLAMA, use_parallel_residual=True, partial_rotary_factor=0.5)),
    "xglm": (
        tf.XGLMConfig,
        dict(SMALL, d_model=32, num_layers=2, attention_heads=4, ffn_dim=40, max_position_embeddings=64),
    ),
}


def randomise(model, less_one):
    for name, p in model.named_parameters():
        with torch.no_grad():
            if name.endswith("bias"):
                p.normal_(0, 0.05)
            elif p.dim() == 1:
                p.normal_(0.0 if less_one else 1.0, 0.15)
            else:
                p.normal_(0, 0.17 if "q" in name or "k" in name else 0.1)


def make(name):
    config_class, settings = FOLDERS[name]
    torch.manual_seed(sum(map(ord, name)))
    model = tf.AutoModelForCausalLM.from_config(config_class(**settings), attn_implementation="eager").eval()
    randomise(model, less_one=False)
    folder = HERE / name
    model.save_pretrained(folder, safe_serialization=True)
    (folder / "generation_config.json").unlink(missing_ok=True)
    how = "sdpa" if name in SDPA else "eager"
    again = tf.AutoModelForCausalLM.from_pretrained(folder, attn_implementation=how).eval()
    ids = torch.randint(2, settings["vocab_size"], (2, 24), generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        logits = again(ids).logits
    np.save(folder / "ref_input_ids.npy", ids.numpy())
    np.save(folder / "ref_logits.npy", logits.float().numpy())
    size = sum(f.stat().st_size for f in folder.iterdir())
    print(f"{name}: {size} bytes, logits up to {logits.abs().max():.2f}")


for name in sys.argv[1:] or FOLDERS:
    make(name)
