"""A decoder in a Hugging Face folder: RMSNorm, rotary positions, grouped heads and a gated MLP, with biases and norms of queries
and keys where there are some. `shape` is what its config says, `weights` its numbers in f32. What it leaves out, it refuses by
name: scaled rotary positions, windows shorter than the contexts measured here, curves but SiLU."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

CONTEXT = 1024


@dataclass
class Shape:
    model_type: str
    vocabulary: int
    context: int
    width: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head: int
    eps: float
    theta: float


def shape(folder):
    config = json.loads((Path(folder) / "config.json").read_text())
    rotary = config.get("rope_parameters") or config.get("rope_scaling") or {}
    window = config.get("sliding_window") if config.get("use_sliding_window", True) else None
    curve = config.get("hidden_act")
    refused = {
        f"rotary positions {rotary}": (rotary.get("rope_type") or rotary.get("type") or "default") != "default",
        f"a window of {window}": window is not None and window < CONTEXT,
        f"the curve {curve}": curve != "silu",
    }
    if found := [name for name, is_here in refused.items() if is_here]:
        raise ValueError(f"not known here: {', '.join(found)}")
    heads = config["num_attention_heads"]
    return Shape(
        model_type=config["model_type"],
        vocabulary=config["vocab_size"],
        context=config["max_position_embeddings"],
        width=config["hidden_size"],
        hidden=config["intermediate_size"],
        layers=config["num_hidden_layers"],
        heads=heads,
        kv_heads=config.get("num_key_value_heads") or heads,
        head=config.get("head_dim") or config["hidden_size"] // heads,
        eps=config["rms_norm_eps"],
        theta=rotary.get("rope_theta") or config.get("rope_theta", 10000.0),
    )


def weights(folder):
    """Arrays in f32 by name, without the prefix `model.`."""
    found = {}
    for file in sorted(Path(folder).glob("*.safetensors")):
        data = np.memmap(file, np.uint8, "r")
        start = 8 + int(data[:8].view("<u8")[0])
        for name, tensor in json.loads(data[8:start].tobytes()).items():
            if name != "__metadata__":
                begin, end = (start + at for at in tensor["data_offsets"])
                array = numbers(data[begin:end].tobytes(), tensor["dtype"])
                found[name.removeprefix("model.")] = array.reshape(tensor["shape"])
    return found


def numbers(data, kind):
    if kind == "BF16":
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(data, {"F32": "<f4", "F16": "<f2"}[kind]).astype(np.float32)


def turns(found):
    """Cosines and sines of rotary positions, `[CONTEXT, head / 2]` each."""
    frequencies = found.theta ** (-np.arange(0, found.head, 2) / found.head)
    angles = np.arange(CONTEXT)[:, None] * frequencies
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def scale(found):
    return 1 / math.sqrt(found.head)
