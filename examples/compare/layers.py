"""Which layers attend by content: the divergence where one layer's attention forgets it.

    layers.py FOLDER TOKENS.npy [--windows 4] [--length 256]

Of a decoder of the Llama kind in a Hugging Face folder (one safetensors file). A layer that forgets weighs every key by its distance
alone, and the first token by the query's place: both are means over heads' own weights on these windows. Layers that lose little are
the first to try without softmax (docs/training.md). Needs torch, numpy and safetensors; nothing of snnc.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file


class Decoder:
    def __init__(self, folder, length):
        config = json.loads((folder / "config.json").read_text())
        self.weights = {name: value.float() for name, value in load_file(folder / "model.safetensors").items()}
        self.layers, self.heads = config["num_hidden_layers"], config["num_attention_heads"]
        self.kv_heads, self.eps = config.get("num_key_value_heads", self.heads), config["rms_norm_eps"]
        self.width = config.get("head_dim", config["hidden_size"] // self.heads)
        turns = config["rope_theta"] ** -(torch.arange(0, self.width, 2) / self.width)
        angles = torch.outer(torch.arange(length), turns).repeat(1, 2)
        self.cos, self.sin = angles.cos(), angles.sin()

    def linear(self, x, layer, name):
        return x @ self.weights[f"model.layers.{layer}.{name}.weight"].T

    def norm(self, x, gain):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.weights[gain]

    def turned(self, x):
        half = self.width // 2
        return x * self.cos + torch.cat([-x[..., half:], x[..., :half]], -1) * self.sin

    def split(self, x, heads):
        return x.view(*x.shape[:2], heads, self.width).transpose(1, 2)

    def block(self, x, layer, weights=None):
        """The stream behind a block, and its attention's weights [batch, heads, queries, keys]; `weights`: these instead."""
        batch, n, _ = x.shape
        read = self.norm(x, f"model.layers.{layer}.input_layernorm.weight")
        v = self.split(self.linear(read, layer, "self_attn.v_proj"), self.kv_heads)
        if weights is None:
            q = self.turned(self.split(self.linear(read, layer, "self_attn.q_proj"), self.heads))
            k = self.turned(self.split(self.linear(read, layer, "self_attn.k_proj"), self.kv_heads))
            scores = q @ k.repeat_interleave(self.heads // self.kv_heads, 1).transpose(-1, -2) / self.width**0.5
            weights = scores.masked_fill(~torch.ones(n, n, dtype=torch.bool).tril(), -1e30).softmax(-1)
        out = weights @ v.repeat_interleave(self.heads // self.kv_heads, 1)
        x = x + self.linear(out.transpose(1, 2).reshape(batch, n, -1), layer, "self_attn.o_proj")
        read = self.norm(x, f"model.layers.{layer}.post_attention_layernorm.weight")
        gate = torch.nn.functional.silu(self.linear(read, layer, "mlp.gate_proj"))
        return x + self.linear(gate * self.linear(read, layer, "mlp.up_proj"), layer, "mlp.down_proj"), weights

    def logs(self, x):
        head = self.weights.get("lm_head.weight", self.weights["model.embed_tokens.weight"])
        return (self.norm(x, "model.norm.weight") @ head.T).log_softmax(-1)


def forgetful(weights):
    """By head: what keys weigh on average at each distance, beside the first token's mean weight by query."""
    mean = weights.mean(0)
    heads, n, _ = mean.shape
    distance = (torch.arange(n)[:, None] - torch.arange(n)).clamp_min(0)
    by_distance = torch.stack([torch.diagonal(mean, -d, 1, 2)[:, min(1, n - 1 - d):].mean(1) for d in range(n)], 1)
    forgot = by_distance[:, distance].tril()
    first = mean[:, :, 0]
    forgot[:, :, 0] = 0
    forgot = forgot / forgot.sum(-1, keepdim=True).clamp_min(1e-9) * (1 - first)[:, :, None]
    forgot[:, :, 0] = first
    return forgot


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("tokens", type=Path, help="ids [texts, n]")
    parser.add_argument("--windows", type=int, default=4)
    parser.add_argument("--length", type=int, default=256)
    args = parser.parse_args()
    torch.set_grad_enabled(False)
    ids = torch.tensor(np.load(args.tokens)[: args.windows, : args.length]).long()
    decoder = Decoder(args.folder, ids.shape[1])
    streams, attention = [decoder.weights["model.embed_tokens.weight"][ids]], []
    for layer in range(decoder.layers):
        stream, weights = decoder.block(streams[-1], layer)
        streams.append(stream)
        attention.append(weights)
    dense = decoder.logs(streams[-1])
    for layer in range(decoder.layers):
        x, _ = decoder.block(streams[layer], layer, forgetful(attention[layer]))
        for later in range(layer + 1, decoder.layers):
            x, _ = decoder.block(x, later)
        divergence = (dense.exp() * (dense - decoder.logs(x))).sum(-1)[:, 1:].mean()
        print(f"{layer} {divergence:.4f}", flush=True)


if __name__ == "__main__":
    main()
