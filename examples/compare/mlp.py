"""SpikingJelly's rate-coded MLP beside snnc's: 768-3072-768 with ReLU, random weights, 128 tokens, the same for both.

SpikingJelly converts the dense network by its default recipe and runs it in the faster of its two step modes; its input is no
spike train but flows as a current. snnc's input is a spike train too, and all weights are int8. `stepped` runs every timestep
spike by spike with as large a share of neurons firing as in SpikingJelly's hidden layer; `collapsed` gives the same numbers.
A figure of a round is the best of 5 passes behind one that warms up; printed are medians over rounds.
"""

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from spikingjelly.activation_based import ann2snn, functional, neuron

WIDTH, HIDDEN, TOKENS, REPEATS = 768, 3072, 128, 5


class SpikingJelly:
    def __init__(self, dense, x):
        recipe = ann2snn.RateCodingRecipe(dataloader=[(x, 0)])
        self.net, self.x = ann2snn.FXConverter(recipe=recipe).convert(dense).eval(), x
        self.neurons = next(module for module in self.net.modules() if isinstance(module, neuron.IFNode))

    def step_by_step(self, steps):
        functional.reset_net(self.net)
        return sum(self.net(self.x) for _ in range(steps)) / steps

    def all_steps(self, steps):
        functional.reset_net(self.net)
        return self.net(self.x.expand(steps, *self.x.shape)).mean(0)

    def ms(self, steps):
        best = float("inf")
        for mode, run in ("s", self.step_by_step), ("m", self.all_steps):
            functional.set_step_mode(self.net, mode)
            run(steps)
            for _ in range(REPEATS):
                start = time.perf_counter()
                run(steps)
                best = min(best, 1e3 * (time.perf_counter() - start))
        return best

    def rate(self, steps):
        """The share of neurons that fire at a timestep, and the outputs."""
        functional.set_step_mode(self.net, "m")
        shares = []
        hook = self.neurons.register_forward_hook(lambda _, __, spikes: shares.append(float(spikes.mean())))
        y = self.all_steps(steps)
        hook.remove()
        return shares[0], y


def snnc(program, folder, steps, rate, threads):
    command = [program, "--steps", str(steps), "--rate", str(rate), "--threads", str(threads)]
    command += ["--repeats", str(REPEATS), folder / "mlp.f32", folder / "y.f32"]
    figures = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    y = torch.from_numpy(np.fromfile(folder / "y.f32", np.float32)).reshape(TOKENS, WIDTH)
    return figures, y


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program", help="the built example mlp")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", help="write figures to this file")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    up, down = torch.nn.Linear(WIDTH, HIDDEN), torch.nn.Linear(HIDDEN, WIDTH)
    x = torch.randn(TOKENS, WIDTH)
    table = {}
    with torch.inference_mode(), tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        arrays = [x, up.weight.T, up.bias, down.weight.T, down.bias]
        np.concatenate([array.numpy().ravel() for array in arrays]).tofile(folder / "mlp.f32")
        dense = torch.nn.Sequential(up, torch.nn.ReLU(), down).eval()
        want = dense(x)
        peer = SpikingJelly(dense, x)

        def cosine(y):
            return float(torch.nn.functional.cosine_similarity(y.ravel(), want.ravel(), 0))

        for steps in 4, 8, 32:
            rate, theirs = peer.rate(steps)
            figures = {"spikingjelly": [], "collapsed": [], "stepped": []}
            for _ in range(args.rounds):
                figures["spikingjelly"].append(peer.ms(steps))
                ours, y = snnc(args.program, folder, steps, rate, args.threads)
                figures["collapsed"].append(ours["collapsed_ms"])
                figures["stepped"].append(ours["stepped_ms"])
            row = {name: {"ms": statistics.median(ms)} for name, ms in figures.items()}
            for form in "collapsed", "stepped":
                ratios = [a / b for a, b in zip(figures["spikingjelly"], figures[form])]
                row[form]["ratio"] = statistics.median(ratios)
            row["spikingjelly"] |= {"rate": rate, "cosine": cosine(theirs)}
            row["stepped"] |= {"rates": [ours["input_rate"], ours["hidden_rate"]], "cosine": cosine(y)}
            table[steps] = row
            print(
                f"MLP, T = {steps:<2}  spikingjelly {row['spikingjelly']['ms']:7.1f} ms, {100 * rate:.1f} % fire,"
                f" cosine to the dense {cosine(theirs):.3f}"
            )
            for form in "collapsed", "stepped":
                print(f"{'':<12} snnc {form:<10} {row[form]['ms']:5.2f} ms   {row[form]['ratio']:6.1f} x")
            rates = ", ".join(f"{100 * rate:.1f} %" for rate in row["stepped"]["rates"])
            print(f"{'':<12} of snnc's input and hidden neurons {rates} fire, cosine {row['stepped']['cosine']:.3f}")
    if args.json:
        Path(args.json).write_text(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
