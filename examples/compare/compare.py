"""Speed of snnc beside what a user would run instead, on one machine, in one run, taken in turn.

    examples/compare/compare.sh [--size small] [--rounds 5] [--threads 1] [--json FILE]

`compare.sh` makes the virtual environment and the GPT-2; this file measures. Every engine gives the same kind of output: the
logits of the last token for prompts, one token after another for decoding, at the same depth. A round measures every engine
once, and the ratio of a round is of figures taken within seconds of each other; printed are the medians of rounds.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnxruntime.quantization import QuantType, quantize_dynamic

from with_past import with_past

LAYERS = {"small": (12, 12, 64), "medium": (24, 16, 64), "large": (36, 20, 64)}
DEPTH, DECODED = 128, 72


def session(path, threads):
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class Onnxruntime:
    """A GPT-2 with past keys and values as inputs, the head on the last token only."""

    def __init__(self, name, path, threads, heads, head_width):
        self.name = name
        self.session = session(path, threads)
        self.past = [i for i in self.session.get_inputs() if "past" in i.name]
        self.empty = np.zeros((1, heads, 0, head_width), np.float32)
        self.present = [o.name for o in self.session.get_outputs() if "present" in o.name]

    def forward(self, ids, past, at):
        n, whole = len(ids), at + len(ids)
        seen = np.arange(whole)[None] <= np.arange(at, whole)[:, None]
        feeds = {i.name: p for i, p in zip(self.past, past)} | {
            "input_ids": np.array([ids], np.int64),
            "position_ids": np.arange(at, whole, dtype=np.int64)[None],
            "mask": np.where(seen, 0, -np.inf).astype(np.float32).reshape(n, whole),
        }
        self.logits, *present = self.session.run(["logits", *self.present], feeds)
        return present

    def prefill(self, ids):
        start = time.perf_counter()
        self.forward(ids, [self.empty] * len(self.past), 0)
        return len(ids) / (time.perf_counter() - start)

    def decode(self, ids):
        past = self.forward(ids[:DEPTH], [self.empty] * len(self.past), 0)
        start = time.perf_counter()
        for at in range(DEPTH, DEPTH + DECODED):
            past = self.forward(ids[at : at + 1], past, at)
        return DECODED / (time.perf_counter() - start)


def snnc(program, model, threads, prompts, extra=()):
    command = [program, "bench", model, "--json", "--repeats", "1", "--threads", str(threads), "--depths", str(DEPTH)]
    command += ["--decoded", str(DECODED), "--prompts", ",".join(map(str, prompts)), *extra]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    figures = json.loads(done.stdout)
    rates = {f"prefill {r['at']}": r["tokens_per_s"] for r in figures["collapsed"]["prefill"]}
    return rates | {"decode": figures["decode_tokens_per_s"]}


def agree(program, model, engines, ids, heads):
    """Says how like the last logits are: both sides are to compute the same network."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "logits.npy"
        tokens = ",".join(map(str, ids))
        subprocess.run([program, "logits", model, "--tokens", tokens, "-o", str(file)], check=True, capture_output=True)
        ours = np.load(file).reshape(len(ids), -1)[-1]
    for engine in engines:
        engine.forward(ids, [engine.empty] * len(engine.past), 0)
        theirs = engine.logits.reshape(-1)
        cosine = float(ours @ theirs / np.linalg.norm(ours) / np.linalg.norm(theirs))
        print(f"last logits of snnc and {engine.name}: cosine {cosine:.5f}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", required=True)
    parser.add_argument("--model", required=True, help="the .snn")
    parser.add_argument("--onnx", required=True, help="the GPT-2 that it was compiled from")
    parser.add_argument("--size", default="small", choices=LAYERS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompts", default="128,1024")
    parser.add_argument("--json", help="write figures to this file")
    args = parser.parse_args()
    _, heads, head_width = LAYERS[args.size]
    prompts = [int(p) for p in args.prompts.split(",")]
    dense = Path(args.onnx).with_suffix(".past.onnx")
    if not dense.exists():
        onnx.save(with_past(args.onnx, heads), dense)
    int8 = dense.with_suffix(".int8.onnx")
    if not int8.exists():
        quantize_dynamic(str(dense), str(int8), weight_type=QuantType.QInt8)
    engines = [
        Onnxruntime("onnxruntime int8", int8, args.threads, heads, head_width),
        Onnxruntime("onnxruntime f32", dense, args.threads, heads, head_width),
    ]
    random = np.random.default_rng(1)
    ids = [int(i) for i in random.integers(0, 50257, 1024)]
    agree(args.program, args.model, engines, ids[:64], heads)
    figures = {}
    for round_ in range(args.rounds + 1):
        once = {"snnc": snnc(args.program, args.model, args.threads, prompts)}
        for engine in engines:
            rates = {f"prefill {n}": engine.prefill(ids[:n]) for n in prompts}
            once[engine.name] = rates | {"decode": engine.decode(ids)}
        if round_ == 0:
            continue  # warm-up
        for name, rates in once.items():
            for what, rate in rates.items():
                figures.setdefault(what, {}).setdefault(name, []).append(rate)
        print(f"round {round_} of {args.rounds}", file=sys.stderr)
    print(f"{args.size}, {args.threads} thread(s), medians of {args.rounds} rounds, tokens/s; ratio: snnc over it")
    table = {}
    for what, by_name in figures.items():
        ours = by_name["snnc"]
        print(f"{what:<14} {'snnc':<20} {statistics.median(ours):9.1f}")
        table[what] = {"snnc": statistics.median(ours)}
        for name, theirs in by_name.items():
            if name == "snnc":
                continue
            ratio = statistics.median(a / b for a, b in zip(ours, theirs))
            table[what][name] = {"tokens_per_s": statistics.median(theirs), "ratio": ratio}
            print(f"{'':<14} {name:<20} {statistics.median(theirs):9.1f}   {ratio:6.2f} x")
    if args.json:
        Path(args.json).write_text(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
