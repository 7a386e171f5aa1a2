"""SpikingJelly's rate-coded MLP beside snnc's: 768-3072-768 with ReLU, random weights, 128 tokens, the same for both.

SpikingJelly converts the dense network by its default recipe and runs it in the faster of its two step modes; its input is no
spike train but flows as a current. snnc's input is a spike train too, and all weights are int8. It is measured with as large a
share of neurons firing at a timestep, input included, as in SpikingJelly's hidden layer: with integrate-then-fire neurons
(`stepped` runs every timestep spike by spike, `collapsed` gives the same numbers) and with IF neurons that answer within the
timestep, as SpikingJelly's do. These are measured at half that share as well: their cost follows the spikes. `largest value`
has the thresholds that SpikingJelly's recipe would take, at which the largest value fires at every timestep. A figure of a
round is the best of 5 passes behind one that warms up; printed are medians over rounds, and cosines of the outputs with the
dense network's.
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
FORMS = "stepped", "collapsed"


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


def programs(rate):
    """snnc's: name, share of neurons that fires (None: thresholds by the largest value), neuron."""
    return [
        ("same rate", rate, "fire"),
        ("IF, same rate", rate, "if"),
        ("IF, half the rate", rate / 2, "if"),
        ("largest value", None, "fire"),
        ("IF, largest value", None, "if"),
    ]


def snnc(program, folder, steps, rate, threads, neuron):
    """Its figures, and the outputs; thresholds by the largest value where no rate is given."""
    command = [program, "--steps", str(steps), "--threads", str(threads), "--repeats", str(REPEATS)]
    command += ["--neuron", neuron]
    command += ["--rate", str(rate)] if rate else []
    command += [folder / "mlp.f32", folder / "y.f32"]
    figures = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    y = torch.from_numpy(np.fromfile(folder / "y.f32", np.float32)).reshape(TOKENS, WIDTH)
    return figures, y


def measured(peer, program, folder, steps, threads, rounds, cosine):
    """What fires, what comes out, and medians of times and of ratios."""
    rate, y = peer.rate(steps)
    row = {"spikingjelly": {"rate": rate, "cosine": cosine(y)}}
    theirs, passes = [], {}
    for _ in range(rounds):
        theirs.append(peer.ms(steps))
        for name, wanted, neuron in programs(rate):
            ours, y = snnc(program, folder, steps, wanted, threads, neuron)
            for form in FORMS:
                if (ms := ours.pop(f"{form}_ms", None)) is not None:
                    passes.setdefault((name, form), []).append(ms)
            row[name] = ours | {"cosine": cosine(y)}
    row["spikingjelly"]["ms"] = statistics.median(theirs)
    for (name, form), ms in passes.items():
        ratio = statistics.median(a / b for a, b in zip(theirs, ms))
        row[name][form] = {"ms": statistics.median(ms), "ratio": ratio}
    whole, half = (passes[name, "stepped"] for name in ("IF, same rate", "IF, half the rate"))
    row["half_over_same_rate"] = statistics.median(a / b for a, b in zip(half, whole))
    return row


def show(steps, row):
    peer = row["spikingjelly"]
    fires = f"{peer['rate']:.1%} of hidden neurons fire, cosine {peer['cosine']:.3f}"
    print(f"T = {steps:<4} {'spikingjelly':<32} {peer['ms']:8.2f}             {fires}")
    for name, ours in row.items():
        for form in FORMS:
            if not isinstance(ours, dict) or form not in ours:
                continue
            fires = f"{ours['hidden_rate']:.1%}, of the input {ours['input_rate']:.1%}, cosine {ours['cosine']:.3f}"
            what = f"snnc {form}, {name}"
            print(f"{'':<8} {what:<32} {ours[form]['ms']:8.2f} {ours[form]['ratio']:8.1f} x   {fires}")
    print(f"{'':<8} half the rate takes {row['half_over_same_rate']:.0%} of the time")


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
    rows = {}
    with torch.inference_mode(), tempfile.TemporaryDirectory() as folder:
        arrays = [x, up.weight.T, up.bias, down.weight.T, down.bias]
        np.concatenate([array.numpy().ravel() for array in arrays]).tofile(Path(folder) / "mlp.f32")
        dense = torch.nn.Sequential(up, torch.nn.ReLU(), down).eval()
        want = dense(x)
        peer = SpikingJelly(dense, x)

        def cosine(y):
            return float(torch.nn.functional.cosine_similarity(y.ravel(), want.ravel(), 0))

        print(f"MLP, {args.threads} thread(s), medians of {args.rounds} rounds, ms a pass; ratio: SpikingJelly over snnc")
        for steps in 4, 8, 32:
            rows[steps] = measured(peer, args.program, Path(folder), steps, args.threads, args.rounds, cosine)
            show(steps, rows[steps])
    if args.json:
        Path(args.json).write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
