"""Tokens per second, forward and backward, of `snnc train` and of PyTorch, on the same student, threads and tokens per step.

The student is the network that `snnc compile --attention coincidence` or `linear` makes: features of 4 timesteps, with a staircase of
recency; levels of 7 timesteps before every other product; all of it frozen but attention's weights, maps and thresholds. Decoders of
GPT-2's kind and of the Llama kind are known (heads that share keys, gated MLPs, RMSNorm; rotary positions and rotations, which cost
little, are left out of PyTorch's). The loss is KL from the teacher, which runs in every step: in PyTorch the dense network, in snnc
what --teacher says, the dense network or a program with `ttfs` attention and 8 timesteps. PyTorch's weights are random, since numbers
do not change its speed. The two take turns; a figure is the median over rounds of one run's later steps.
"""

import argparse
import json
import math
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
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
    def __init__(self, shape, context, linear):
        super().__init__()
        d, w, heads, hidden = shape["d"], shape["head_width"], shape["heads"], shape["hidden"]
        kv = shape["kv_heads"] * w
        self.kv_heads, self.gated, self.linear = shape["kv_heads"], shape["gated"], linear
        random = lambda *sizes: torch.randn(*sizes) / math.sqrt(sizes[-2])
        learned = torch.nn.Parameter
        self.heads = heads
        self.widths = [heads * w, kv, kv]
        self.qkv, self.qkv_bias = learned(random(d, sum(self.widths))), learned(torch.zeros(sum(self.widths)))
        self.out, self.out_bias = learned(random(heads * w, d)), learned(torch.zeros(d))
        signs = torch.cat([torch.eye(w), -torch.eye(w)], 1).repeat(heads, 1, 1)
        self.maps = torch.nn.ParameterList([signs[:n] + 0.05 * torch.randn(n, w, FEATURES * w) for n in (heads, self.kv_heads)])
        spread = torch.linspace(0.25, 2.25, TIMESTEPS).view(TIMESTEPS, 1, 1, 1)
        self.thresholds = learned(spread.repeat(1, 1, 1, FEATURES * w))
        self.sink = learned(torch.full((heads, 1, 1), 0.5))
        self.logs = torch.nn.ParameterList([torch.zeros(n) for n in (d, kv, heads * w)])
        self.up, self.up_bias = random(d, hidden), torch.zeros(hidden)
        self.gate = random(d, hidden) if self.gated else None
        self.down, self.down_bias = random(hidden, d), torch.zeros(d)
        i = torch.arange(context)
        halving = torch.tensor([context >> 3 * h for h in range(heads)]).clamp_min(1).view(-1, 1, 1)
        gone = i.view(-1, 1) // halving - i // halving
        self.recency = 2.0 ** -gone.clamp(0, 40).float() * torch.ones(context, context).tril()

    def split(self, x):
        b, n, _ = x.shape
        return [part.view(b, n, heads, -1).transpose(1, 2) for part, heads in zip(x.split(self.widths, -1), self.each)]

    @property
    def each(self):
        return [self.heads, self.kv_heads, self.kv_heads]

    def shared(self, x):
        return x.repeat_interleave(self.heads // self.kv_heads, 1)

    def attend(self, q, k, v):
        if self.linear:
            q, k = (levels(F.relu(x @ m), torch.zeros(1)) for x, m in zip((q, k), self.maps))
            weights = q @ self.shared(k).transpose(-1, -2)
        else:
            spikes = lambda x, m: torch.cat([Spike.apply(0.35 * (x @ m) - t) for t in self.thresholds], -1)
            weights = (spikes(q, self.maps[0]) @ self.shared(spikes(k, self.maps[1])).transpose(-1, -2)).square()
        n, v = weights.shape[-1], self.shared(v)
        weights = weights * self.recency[:, :n, :n]
        return weights @ v / (weights.sum(-1, keepdim=True) + self.sink.abs())

    def forward(self, x, dense):
        b, n, d = x.shape
        level = (lambda x, _: x) if dense else levels
        norm = (lambda x: F.rms_norm(x, (d,))) if self.gated else (lambda x: F.layer_norm(x, (d,)))
        zero = torch.zeros(1)
        q, k, v = self.split(level(norm(x), self.logs[0]) @ self.qkv + self.qkv_bias)
        if dense:
            a = F.scaled_dot_product_attention(q, self.shared(k), self.shared(v), is_causal=True)
        else:
            v = levels(v.transpose(1, 2).reshape(b, n, -1), self.logs[1]).view(b, n, self.kv_heads, -1).transpose(1, 2)
            a = self.attend(q, k, v)
        a = a.transpose(1, 2).reshape(b, n, -1)
        x = x + level(a, self.logs[2]) @ self.out + self.out_bias
        read = level(norm(x), zero)
        hidden = read @ self.up + self.up_bias
        hidden = F.silu(read @ self.gate) * hidden if self.gated else F.gelu(hidden, approximate="tanh")
        return x + level(hidden, zero) @ self.down + self.down_bias


def peer(shape, batch, window, threads, linear, half):
    """PyTorch's tokens per second; `half`: products in bf16."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    d, layers, vocabulary = shape["d"], shape["layers"], shape["vocabulary"]
    table, places = torch.randn(vocabulary, d) * 0.1, torch.randn(window, d) * 0.1
    blocks = torch.nn.ModuleList(Block(shape, window, linear) for _ in range(layers))
    optimiser = torch.optim.AdamW(blocks.parameters(), lr=1e-3, weight_decay=0)

    def logits(ids, dense):
        x = table[ids] + places
        for block in blocks:
            x = block(x, dense)
        x = F.rms_norm(x, (d,)) if shape["gated"] else F.layer_norm(x, (d,))
        return (x if dense else levels(x, torch.zeros(1))) @ table.T

    taken = []
    for _ in range(STEPS):
        ids = torch.randint(vocabulary, (batch, window))
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            with torch.no_grad():
                teacher = logits(ids, True).float().log_softmax(-1)
            student = logits(ids, False).float().log_softmax(-1)
        loss = F.kl_div(student.flatten(0, 1), teacher.flatten(0, 1), log_target=True, reduction="batchmean")
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(blocks.parameters(), 1.0)
        optimiser.step()
        taken.append(time.perf_counter() - start)
    return batch * window / statistics.median(taken[2:])


def snnc(program, start, teacher, text, folder, batch, window, threads, gradients):
    """snnc's tokens per second: of the steps after the first two."""
    command = [program, "train", start, "--reference", teacher, text[0], text[1], "--output", folder / "tuned.snn", "--json"]
    command += ["--validate", folder / "validation.npy", "--gradients", gradients, "--checkpoint-seconds", 10000]
    command += ["--steps", STEPS, "--batch", batch, "--window-tokens", window, "--threads", threads, "--validation-windows", 1]
    taken, last = [], None
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        for line in run.stdout:
            kind = json.loads(line)["kind"]
            if kind == "step":
                taken.append(time.perf_counter() - last)
            # A step begins where the line of the step or validation before it was written.
            last = time.perf_counter()
            if len(taken) == STEPS:
                # What follows is no step.
                run.kill()
                return batch * window / statistics.median(taken[2:])
        raise RuntimeError(run.stderr.read())


def shape_of(program, model):
    """What PyTorch's student needs to know."""
    told = subprocess.run([program, "check", "--json", model], check=True, stdout=subprocess.PIPE, text=True)
    network = json.loads(told.stdout)["network"]
    heads = network["heads"][0]
    shape = {"d": network["width"], "layers": network["layers"], "vocabulary": network["vocabulary"], "heads": heads}
    config = Path(model) / "config.json"
    if not config.exists():
        return shape | {"kv_heads": heads, "head_width": shape["d"] // heads, "hidden": 4 * shape["d"], "gated": False}
    known = json.loads(config.read_text())
    kv_heads, head_width = known.get("num_key_value_heads", heads), known.get("head_dim", shape["d"] // heads)
    return shape | {"kv_heads": kv_heads, "head_width": head_width, "hidden": known["intermediate_size"], "gated": True}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a decoder of GPT-2's kind in ONNX, or of the Llama kind as a folder, with its tokenizer beside it")
    parser.add_argument("text", help="a text, or ids [texts, n] in a .npy file")
    parser.add_argument("--program", required=True)
    parser.add_argument("--attention", choices=["coincidence", "linear"], default="coincidence")
    parser.add_argument("--teacher", choices=["dense", "ttfs"], default="dense", help="snnc's")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=6)
    parser.add_argument("--window", type=int, default=256)
    args = parser.parse_args()
    shape = shape_of(args.program, args.model)
    text = ["--tokens" if args.text.endswith(".npy") else "--text", args.text]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "validation.npy", np.arange(args.window + 2, dtype=np.int32) % shape["vocabulary"])
        start, teacher = folder / "start.snn", args.model

        def compiled(output, *options):
            command = [args.program, "compile", args.model, "-o", output, *options]
            subprocess.run(list(map(str, command)), check=True, stderr=subprocess.DEVNULL)

        compiled(start, "--attention", args.attention)
        if args.teacher == "ttfs":
            teacher = folder / "teacher.snn"
            compiled(teacher, "--timesteps", 8)
        setting = (args.batch, args.window, args.threads)
        runs = {
            "PyTorch f32": lambda: peer(shape, *setting, args.attention == "linear", False),
            "PyTorch bf16": lambda: peer(shape, *setting, args.attention == "linear", True),
            "snnc f32": lambda: snnc(args.program, start, teacher, text, folder, *setting, "f32"),
            "snnc bf16": lambda: snnc(args.program, start, teacher, text, folder, *setting, "bf16"),
        }
        figures = {name: [] for name in runs}
        for _ in range(args.rounds):
            for name, run in runs.items():
                figures[name].append(run())
            print(", ".join(f"{name} {each[-1]:.0f}" for name, each in figures.items()), "tokens/s", flush=True)
    base = figures["PyTorch f32"]
    for name, each in figures.items():
        ratio = statistics.median(a / b for a, b in zip(each, base))
        print(f"{name}: {statistics.median(each):.0f} tokens/s, {ratio:.2f} times PyTorch's f32")


if __name__ == "__main__":
    main()
