"""snnc's counts of a small spiking network beside SpikingJelly's: 64-128-32, plain IF neurons, 8 timesteps, 16 tokens.

Both run the same network on the same levels: weights are int8, gains powers of two, so that sums are exact and spikes must be the
same, one by one. Compared are spikes by layer, additions that spikes drive (SpikingJelly's `SynOpCounter`, whose rule is one a spike
and output) and multiply-accumulates (`MACCounter`, none: all operands of products are spikes). What differs is not of the network:

- SpikingJelly takes whatever is 0 or 1 for spikes; snnc goes by types. A product of a binary *weight* would differ.
- Its `ACCounter` also counts additions inside neurons and scalings; snnc has those as operations of neurons.
- NeuroBench, unlike both, does not count weights that are 0. `zero weights` is what it would leave out.

Exit status 1 if the counters disagree.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from spikingjelly.activation_based import neuron
from spikingjelly.activation_based.op_counter import DispatchCounterMode, MACCounter, SynOpCounter


def peer(folder, ours):
    """Spikes by layer, synaptic operations, MACs, and those of the synaptic operations whose weight is 0."""
    (k, hidden, m), steps, tokens = ours["sizes"], ours["timesteps"], ours["tokens"]
    x = torch.from_numpy(np.fromfile(folder / "x.i32", "<i4").reshape(tokens, k))
    first, second = (
        torch.from_numpy(np.fromfile(folder / f"{name}.i8", np.int8).reshape(shape).astype(np.float32))
        for name, shape in (("first", (k, hidden)), ("second", (hidden, m)))
    )
    layers = [torch.nn.Linear(k, hidden, bias=False), torch.nn.Linear(hidden, m, bias=False)]
    for layer, weight in zip(layers, (first, second)):
        layer.weight.data = weight.T.contiguous()
    cells = neuron.IFNode(v_threshold=1.0, v_reset=None)
    cells.v = torch.full((tokens, hidden), 0.5)
    synops, macs = SynOpCounter(), MACCounter()
    spikes, zeros = [0, 0], 0
    with torch.no_grad():
        for t in range(steps):
            into = (x > t).float()
            with DispatchCounterMode([synops, macs]):
                current = layers[0](into)
            out = cells(current * ours["gain"])
            with DispatchCounterMode([synops, macs]):
                layers[1](out)
            spikes = [spikes[0] + int(into.sum()), spikes[1] + int(out.sum())]
            zeros += int(into.sum(0) @ (first == 0).sum(1).float() + out.sum(0) @ (second == 0).sum(1).float())
    return {"spikes": spikes, "accumulates": synops.get_total(), "macs": macs.get_total(), "zero weights": zeros}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program", help="the built example counts")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = subprocess.run([args.program, folder], check=True, stdout=subprocess.PIPE, text=True)
        ours = json.loads(run.stdout)
        theirs = peer(Path(folder), ours)
    print(f"{'':<28} {'snnc':>20} {'SpikingJelly':>20}")
    for name in "spikes", "accumulates", "macs":
        print(f"{name:<28} {str(ours[name]):>20} {str(theirs[name]):>20}")
    print(f"{'of accumulates, zero weights':<28} {'':>20} {theirs['zero weights']:>20}")
    print(f"{'dense MACs':<28} {ours['dense_macs']:>20}")
    agree = all(ours[name] == theirs[name] for name in ("spikes", "accumulates", "macs"))
    print("the counters agree" if agree else "the counters DISAGREE")
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
