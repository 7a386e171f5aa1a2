"""Speed of snnc beside what a user would run instead, on one machine, in one run, taken in turn.

    examples/compare/compare.sh [--size small] [--rounds 5] [--threads 1] [--peers tract,llama.cpp] [--json FILE]

Every engine gives the same kind of output: the logits of the last token for prompts, one token after another for decoding,
at the same depth, on the same cores. A round measures every engine once, each warm, and the ratio of a round is of figures
taken within seconds of each other; printed are medians over rounds. How like the logits are to onnxruntime's f32 is printed
first, for a fast wrong answer is no peer. SpikingJelly runs no GPT-2: it is met on an MLP, by `mlp.py`.

A peer that cannot be installed or run is left out, and the reason is printed.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from peers import made

HERE, ROOT = Path(__file__).parent, Path(__file__).parents[2]
WORK = ROOT / "target/compare"
HEADS = {"small": 12, "medium": 16, "large": 20}
DEPTH, DECODED = 128, 72
REFERENCE = "onnxruntime f32"

# What a peer is called for `--peers`, the engines of `peers.py` that it has, and its packages.
PEERS = {
    "onnxruntime": (["onnxruntime int8", "onnxruntime f32"], ["onnxruntime==1.32.0"]),
    "tract": (["tract f32"], ["tract==0.23.9"]),
    "llama.cpp": (["llama.cpp Q8_0"], ["gguf==0.19.0", "--no-binary=llama-cpp-python", "llama-cpp-python==0.3.36"]),
    "spikingjelly": ([], ["torch==2.15.0", "spikingjelly==2.0.0"]),
}
# llama.cpp is built for this machine; its tools and what it sees and hears with are not needed.
BUILD = {"CMAKE_ARGS": "-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF -DMTMD_BUILD=OFF -DLLAMA_BUILD_TOOLS=OFF"}


class Peer:
    """A process of `peers.py`."""

    def __init__(self, name, onnx, heads, threads):
        command = [sys.executable, HERE / "peers.py", name, onnx, str(heads), str(threads)]
        self.name = name
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True
        )
        self.answer()

    def ask(self, *question):
        try:
            self.process.stdin.write(json.dumps(question) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # It has ended: what it said is read below.
        return self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            status = self.process.wait()
            self.log.seek(0)
            raise RuntimeError(f"status {status}: {last_line(self.log.read())}")
        return json.loads(line)

    def rates(self, ids, prompts):
        rates = {f"prompt of {n}": n / self.ask("prefill", ids[:n]) for n in prompts}
        past = f"decoding past {DEPTH}"
        return rates | {past: DECODED / self.ask("decode", ids[: DEPTH + DECODED], DEPTH)}


class Snnc:
    """`snnc bench`, a process a round."""

    name = "snnc"

    def __init__(self, program, model, threads, stepped, density):
        self.program, self.model = program, model
        self.form = "stepped" if stepped else "collapsed"
        self.options = ["--json", "--repeats", "1", "--threads", str(threads)]
        self.options += ["--depths", str(DEPTH), "--decoded", str(DECODED)]
        self.options += ["--stepped"] if stepped else []
        self.options += ["--density", str(density)] if density else []

    def rates(self, ids, prompts):
        command = [self.program, "bench", self.model, *self.options, "--prompts", ",".join(map(str, prompts))]
        figures = json.loads(output(command))[self.form]
        rates = {f"prompt of {r['at']}": r["tokens_per_s"] for r in figures["prefill"]}
        return rates | {f"decoding past {DEPTH}": figures["decode"][0]["tokens_per_s"]}

    def ask(self, _, ids):
        """The last logits."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "logits.npy"
            command = [self.program, "logits", self.model, "--tokens", ",".join(map(str, ids)), "-o", file]
            output(command)
            return np.load(file).reshape(len(ids), -1)[-1]


def output(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stderr}")
    return done.stdout


def last_line(text):
    return (text.strip().splitlines() or ["no word of why"])[-1]


def install(packages):
    """Why they cannot be installed, or None."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", *packages]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | BUILD)
    return last_line(done.stderr) if done.returncode else None


def built(program):
    """snnc, with its examples in a folder beside it."""
    if program:
        return Path(program)
    for what in [["--bins"], ["-p", "snnc-examples", "--examples"]]:
        subprocess.run(["cargo", "build", "--release", "--quiet", *what], check=True, cwd=ROOT)
    return ROOT / "target/release/snnc"


def models(program, size, timesteps):
    """A GPT-2 with random weights, and what this snnc compiles it to."""
    WORK.mkdir(parents=True, exist_ok=True)
    onnx, snn = WORK / f"{size}.onnx", WORK / f"{size}.t{timesteps}.snn"
    # Protobuf ends at 2 GB.
    make = [program.parent / "examples/make_gpt2", "--size", size, "--external", "1" if size == "large" else "0"]
    made(onnx, lambda path: subprocess.run([*make, "-o", path], check=True))
    if not snn.exists() or snn.stat().st_mtime < program.stat().st_mtime:
        levels = ["--timesteps", str(timesteps), "--calibration-tokens", "2048"]
        subprocess.run([program, "compile", onnx, "-o", snn, *levels], check=True)
    return onnx, snn


def alike(engines, ids):
    """Cosine of the last logits with the reference's, and whether the best guess is the same, by engine."""
    reference = next((np.array(e.ask("logits", ids)) for e in engines if e.name == REFERENCE), None)
    if reference is None:
        print(f"{REFERENCE} is not here, so that logits are not compared")
        return {}
    found = {}
    for engine in engines:
        logits = np.array(engine.ask("logits", ids), np.float64)
        cosine = logits @ reference / np.linalg.norm(logits) / np.linalg.norm(reference)
        found[engine.name] = {"cosine": float(cosine), "same_best": bool(logits.argmax() == reference.argmax())}
        best = "same" if found[engine.name]["same_best"] else "other"
        print(f"last logits beside {REFERENCE}: {engine.name:<18} cosine {cosine:.6f}, {best} best guess")
    return found


def measured(engines, ids, prompts, rounds, left_out):
    """Rates of all rounds: what, then engine."""
    figures = {}
    for round_ in range(rounds):
        for engine in [engine for engine in engines if engine.name not in left_out]:
            try:
                rates = engine.rates(ids, prompts)
            except RuntimeError as error:
                leave_out(left_out, engine.name, error)
                continue
            for what, rate in rates.items():
                figures.setdefault(what, {}).setdefault(engine.name, []).append(rate)
        print(f"round {round_ + 1} of {rounds}", file=sys.stderr)
    return figures


def mlp(program, threads, rounds, left_out):
    """The figures of `mlp.py`, by timesteps."""
    with tempfile.NamedTemporaryFile("r") as file:
        command = [sys.executable, HERE / "mlp.py", program.parent / "examples/mlp", "--json", file.name]
        command += ["--threads", str(threads), "--rounds", str(rounds)]
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            leave_out(left_out, "spikingjelly", last_line(done.stderr))
            return None
        return json.load(file)


def leave_out(left_out, name, why):
    print(f"left out: {name}: {why}")
    left_out[name] = str(why)


def table(figures):
    """Medians, and ratios of snnc over each."""
    found = {}
    for what, by_engine in figures.items():
        ours = by_engine["snnc"]
        for name, theirs in by_engine.items():
            row = {"tokens_per_s": statistics.median(theirs)}
            if name != "snnc":
                row["ratio"] = statistics.median(a / b for a, b in zip(ours, theirs))
            found.setdefault(what, {})[name] = row
            ratio = f"{row['ratio']:9.2f} x" if "ratio" in row else ""
            print(f"{what if name == 'snnc' else '':<18} {name:<18} {row['tokens_per_s']:10.1f} {ratio}")
    return found


def arguments():
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--size", default="small", choices=HEADS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompts", default="128,1024", help="their lengths")
    parser.add_argument("--peers", default=",".join(PEERS), help="some of them")
    parser.add_argument("--timesteps", type=int, default=7, help="of snnc's program")
    parser.add_argument("--stepped", action="store_true", help="snnc runs every timestep, spike by spike")
    parser.add_argument("--density", type=float, help="this share of snnc's neurons fires, whatever they read")
    parser.add_argument("--json", help="write figures to this file")
    parser.add_argument("--program", help="a built snnc, its examples in `examples` beside it; else it is built here")
    args = parser.parse_args()
    if unknown := set(args.peers.split(",")) - set(PEERS):
        parser.error(f"no such peer: {', '.join(unknown)}; there are {', '.join(PEERS)}")
    return args


def started(peers, onnx, heads, threads, left_out):
    """The engines of these peers, as far as they can be had."""
    engines = []
    for peer in peers:
        names, packages = PEERS[peer]
        if why := install(packages):
            leave_out(left_out, peer, why)
            continue
        for name in names:
            try:
                engines.append(Peer(name, onnx, heads, threads))
            except RuntimeError as error:
                leave_out(left_out, name, error)
    return engines


def main():
    args = arguments()
    program = built(args.program).resolve()
    onnx, snn = models(program, args.size, args.timesteps)
    # All children run on the same cores.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.threads])
    left_out = {}
    peers = started(args.peers.split(","), onnx, HEADS[args.size], args.threads, left_out)
    result = {"arguments": vars(args), "left_out": left_out}
    if peers:
        engines = [Snnc(program, snn, args.threads, args.stepped, args.density), *peers]
        ids = [int(id) for id in np.random.default_rng(1).integers(0, 50257, 1024)]
        result["logits"] = alike(engines, ids[:64])
        figures = measured(engines, ids, [int(n) for n in args.prompts.split(",")], args.rounds, left_out)
        form = "stepped" if args.stepped else "collapsed"
        form += f" with {args.density:.0%} of neurons firing" if args.density else ""
        print(f"GPT-2 {args.size}, {args.threads} thread(s); snnc: T = {args.timesteps}, {form}")
        print(f"medians of {args.rounds} rounds, tokens/s; ratio: snnc over it")
        result["figures"] = table(figures)
    if "spikingjelly" in args.peers.split(",") and "spikingjelly" not in left_out:
        result["mlp"] = mlp(program, args.threads, args.rounds, left_out)
    if args.json:
        Path(args.json).write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
