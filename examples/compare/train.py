"""Tokens a second, forward and backward, of `snnc train` and of PyTorch, on the same student, threads and tokens a step.

The student is the network that `snnc compile --attention coincidence` makes: attention by coincidences of binary features of 4
timesteps, squared, with a staircase of recency, levels of 7 timesteps before every other product, all of it frozen but attention's
weights, maps and thresholds; the loss is KL from the dense network, which runs in every step, as it does in snnc. PyTorch's weights
are random, since numbers do not change its speed. The two take turns; a figure is the median over rounds of one run's later steps.
"""

import argparse
import json
import math
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F

STEPS = 6
FEATURES, TIMESTEPS = 2, 4


class Spike(torch.autograd.Function):
    """A step whose derivative is the arctangent's."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return (x >= 0).float()

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient / (1 + (math.pi * x).square())


def levels(x, log):
    """127 levels either way, straight through where nothing is clipped, with a learned threshold."""
    scaled = x * torch.exp(-log) * 32
    clipped = scaled.clamp(-127, 127)
    return (clipped + (clipped.round() - clipped).detach()) * torch.exp(log) / 32


class Block(torch.nn.Module):
    def __init__(self, d, heads, context):
        super().__init__()
        w = d // heads
        random = lambda *sizes: torch.randn(*sizes) / math.sqrt(sizes[-2])
        learned = torch.nn.Parameter
        self.heads = heads
        self.qkv, self.qkv_bias = learned(random(d, 3 * d)), learned(torch.zeros(3 * d))
        self.out, self.out_bias = learned(random(d, d)), learned(torch.zeros(d))
        signs = torch.cat([torch.eye(w), -torch.eye(w)], 1).repeat(heads, 1, 1)
        self.maps = torch.nn.ParameterList([signs + 0.05 * torch.randn(heads, w, FEATURES * w) for _ in "qk"])
        spread = torch.linspace(0.25, 2.25, TIMESTEPS).view(TIMESTEPS, 1, 1, 1)
        self.thresholds = learned(spread.repeat(1, heads, 1, FEATURES * w))
        self.sink = learned(torch.full((heads, 1, 1), 0.5))
        self.logs = torch.nn.ParameterList([torch.zeros(d) for _ in range(3)])
        self.up, self.up_bias = random(d, 4 * d), torch.zeros(4 * d)
        self.down, self.down_bias = random(4 * d, d), torch.zeros(d)
        i = torch.arange(context)
        halving = torch.tensor([context >> 3 * h for h in range(heads)]).clamp_min(1).view(-1, 1, 1)
        gone = i.view(-1, 1) // halving - i // halving
        self.recency = 2.0 ** -gone.clamp(0, 40).float() * torch.ones(context, context).tril()

    def split(self, x):
        b, n, _ = x.shape
        return x.view(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)

    def attend(self, q, k, v):
        spikes = lambda x, m: torch.cat([Spike.apply(0.35 * (x @ m) - t) for t in self.thresholds], -1)
        scores = spikes(q, self.maps[0]) @ spikes(k, self.maps[1]).transpose(-1, -2)
        n = scores.shape[-1]
        weights = scores.square() * self.recency[:, :n, :n]
        return weights @ v / (weights.sum(-1, keepdim=True) + self.sink.abs())

    def forward(self, x, dense):
        b, n, d = x.shape
        level = (lambda x, _: x) if dense else levels
        zero = torch.zeros(1)
        q, k, v = self.split(level(F.layer_norm(x, (d,)), self.logs[0]) @ self.qkv + self.qkv_bias)
        if dense:
            a = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(b, n, d)
        else:
            v = levels(v.transpose(1, 2).reshape(b, n, d), self.logs[1]).view(b, n, self.heads, -1).transpose(1, 2)
            a = self.attend(q, k, v).transpose(1, 2).reshape(b, n, d)
        x = x + level(a, self.logs[2]) @ self.out + self.out_bias
        hidden = level(F.layer_norm(x, (d,)), zero) @ self.up + self.up_bias
        return x + level(F.gelu(hidden, approximate="tanh"), zero) @ self.down + self.down_bias


def peer(shape, batch, window, threads):
    """PyTorch's tokens a second."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    d, heads, layers, vocabulary = shape["width"], shape["heads"][0], shape["layers"], shape["vocabulary"]
    table, places = torch.randn(vocabulary, d) * 0.1, torch.randn(window, d) * 0.1
    blocks = torch.nn.ModuleList(Block(d, heads, window) for _ in range(layers))
    optimiser = torch.optim.AdamW(blocks.parameters(), lr=1e-3, weight_decay=0)

    def logits(ids, dense):
        x = table[ids] + places
        for block in blocks:
            x = block(x, dense)
        x = F.layer_norm(x, (d,))
        return (x if dense else levels(x, torch.zeros(1))) @ table.T

    taken = []
    for _ in range(STEPS):
        ids = torch.randint(vocabulary, (batch, window))
        start = time.perf_counter()
        with torch.no_grad():
            teacher = logits(ids, True).log_softmax(-1)
        student = logits(ids, False).log_softmax(-1)
        loss = F.kl_div(student.flatten(0, 1), teacher.flatten(0, 1), log_target=True, reduction="batchmean")
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(blocks.parameters(), 1.0)
        optimiser.step()
        taken.append(time.perf_counter() - start)
    return batch * window / statistics.median(taken[2:])


def snnc(program, start, model, text, folder, batch, window, threads):
    """snnc's tokens a second: what the last step's line says, which is the mean since the run began."""
    command = [program, "train", start, "--teacher", model, "--text", text, "--output", folder / "tuned.snn", "--json"]
    command += ["--steps", STEPS, "--batch", batch, "--window", window, "--threads", threads, "--validation-windows", 1]
    run = subprocess.run(list(map(str, command)), check=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    steps = [line for line in map(json.loads, run.stdout.splitlines()) if line["kind"] == "step"]
    return steps[-1]["tokens_a_second"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a GPT-2 in ONNX, with its tokenizer beside it")
    parser.add_argument("text")
    parser.add_argument("--program", required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=6)
    parser.add_argument("--window", type=int, default=256)
    args = parser.parse_args()
    told = subprocess.run([args.program, "check", "--json", args.model], check=True, stdout=subprocess.PIPE, text=True)
    shape = json.loads(told.stdout)["network"]
    with tempfile.TemporaryDirectory() as folder:
        start = Path(folder) / "start.snn"
        compiled = [args.program, "compile", args.model, "--attention", "coincidence", "-o", start]
        subprocess.run(list(map(str, compiled)), check=True, stderr=subprocess.DEVNULL)
        ours, theirs = [], []
        for _ in range(args.rounds):
            setting = (args.batch, args.window, args.threads)
            theirs.append(peer(shape, *setting))
            ours.append(snnc(args.program, start, args.model, args.text, Path(folder), *setting))
            print(f"snnc {ours[-1]:.0f}, PyTorch {theirs[-1]:.0f} tokens/s", flush=True)
    ratio = statistics.median(a / b for a, b in zip(ours, theirs))
    print(f"{args.threads} thread(s): snnc {statistics.median(ours):.0f} tokens/s, {ratio:.2f} times PyTorch's")


if __name__ == "__main__":
    main()
