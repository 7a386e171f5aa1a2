"""SpikingJelly: spikes of snnc as its tensors, time first, to compare layers.

>>> from spikingjelly.activation_based import layer, neuron
>>> from snnc.adapters.spikingjelly import feed, train
>>> spikes = model.spikes(ids)["h.0.mlp.hidden"]
>>> train(spikes)                                   # f32 [timesteps, tokens, neurons]
>>> feed(torch.nn.Sequential(layer.Linear(256, 64), neuron.IFNode()), spikes)
"""

from __future__ import annotations

from typing import Any

import torch
from spikingjelly.activation_based import functional

from .._model import Layer


def train(layer: Layer, *, weighted: bool = False) -> torch.Tensor:
    """The spikes of a layer as f32 ``[timesteps, tokens, neurons]``, -1, 0 and 1.

    ``weighted``: each timestep times what its spikes weigh, so that the sum over time is the level. A train of the unary code has
    weights of 1, as SpikingJelly's have.
    """
    spikes = torch.from_numpy(layer.dense()).to(torch.float32).permute(1, 0, 2).contiguous()
    if weighted:
        spikes *= torch.from_numpy(layer.weights).to(torch.float32)[:, None, None]
    return spikes


def levels(spikes: torch.Tensor, layer: Layer) -> torch.Tensor:
    """The levels i64 ``[tokens, neurons]`` that a train spells by the code of a layer."""
    weights = torch.from_numpy(layer.weights).to(torch.float64)
    return torch.einsum("tkn,t->kn", spikes.to(torch.float64), weights).round().to(torch.int64)


def feed(module: torch.nn.Module, layer: Layer) -> torch.Tensor:
    """Feeds the spikes of a layer to a module of SpikingJelly, timestep by timestep: its outputs, ``[timesteps, ...]``.

    The module is in single-step mode, and is reset before and after.
    """
    functional.reset_net(module)
    with torch.no_grad():
        outputs = torch.stack([module(spikes) for spikes in train(layer)])
    functional.reset_net(module)
    return outputs


def compare(spikes: torch.Tensor, layer: Layer) -> dict[str, Any]:
    """How a train ``[timesteps, tokens, neurons]`` differs from that of a layer.

    ``spikes`` and ``spikes_snnc`` count spikes, ``rate`` and ``rate_snnc`` are per neuron and token, ``same`` is the share of
    places with the same spike, ``level_error`` is the mean absolute difference of levels.
    """
    own = train(layer)
    if spikes.shape != own.shape:
        raise ValueError(f"the shape is {tuple(spikes.shape)}, that of the layer is {tuple(own.shape)}")
    places = max(1, own.shape[1] * own.shape[2])
    counts = [int((one != 0).sum()) for one in (spikes, own)]
    difference = (levels(spikes, layer) - levels(own, layer)).abs().to(torch.float64)
    return {
        "spikes": counts[0],
        "spikes_snnc": counts[1],
        "rate": counts[0] / places,
        "rate_snnc": counts[1] / places,
        "same": float((spikes == own).to(torch.float64).mean()),
        "level_error": float(difference.mean()),
    }
