"""Speed of snnc beside what a user would run instead, on one machine, in one run, taken in turn.

    examples/compare/compare.sh [--size small] [--rounds 5] [--threads 1,2] [--peers tract,llama.cpp] [--json FILE]
    examples/compare/compare.sh --folder DIR [--gguf FILE] [--snn FILE] [--prompts 512] ...

The model is a GPT-2 with random weights, or a decoder in a Hugging Face folder. Every engine gives the same kind of output: the
logits of the last token for prompts, one token after another for decoding, at the same depth, on the same cores. A round
measures every engine once, each warm, and the ratio of a round is of figures taken within seconds of each other; printed are
medians over rounds. How like the logits are to onnxruntime's f32 is printed first, for a fast wrong answer is no peer. SpikingJelly runs no decoder: it is met on an MLP, by `mlp.py`.

A peer that cannot be installed or run is left out, and the reason is printed.
"""

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from decoder import CONTEXT, shape
from peers import made

HERE, ROOT = Path(__file__).parent, Path(__file__).parents[2]
WORK = ROOT / "target/compare"
SIZES = ["small", "medium", "large"]
DEPTH, DECODED = 128, 72
# How many ids are compared, one after another, and behind how many.
GREEDY, BEHIND = 16, 48
REFERENCE = "onnxruntime f32"

# What a peer is called for `--peers`, the engines of `peers.py` that it has, and its packages.
PEERS = {
    "onnxruntime": (["onnxruntime int8", "onnxruntime f32"], ["onnxruntime==1.32.0"]),
    "tract": (["tract f32"], ["tract==0.23.9"]),
    "llama.cpp": (["llama.cpp Q8_0"], ["gguf==0.19.0", "--no-binary=llama-cpp-python", "llama-cpp-python==0.3.36"]),
    "spikingjelly": ([], ["torch==2.15.0", "spikingjelly==2.0.0"]),
}
# llama.cpp is built for this machine; its tools and what it sees and hears with are not needed.
BUILD = {
    "CMAKE_ARGS": "-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF -DMTMD_BUILD=OFF -DLLAMA_BUILD_TOOLS=OFF",
    "CXXFLAGS": f"-include {HERE}/tiles.h",
}


class Peer:
    """A process of `peers.py`."""

    def __init__(self, name, source, stem, threads):
        command = [sys.executable, HERE / "peers.py", name, source, stem, str(threads)]
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

    def end(self):
        self.process.stdin.close()
        self.process.wait()

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


def random_model(program, size):
    """A GPT-2 with random weights; where files made of it begin; ids to feed it with."""
    stem = WORK / size
    # Protobuf ends at 2 GB.
    make = [program.parent / "examples/make_gpt2", "--size", size, "--external", "1" if size == "large" else "0"]
    made(Path(f"{stem}.onnx"), lambda path: subprocess.run([*make, "-o", path], check=True))
    return Path(f"{stem}.onnx"), stem, random_ids(50257)


def folder_model(folder):
    """The same of a folder. What was made of files that lay there before is not taken for what is there now."""
    lying = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in sorted(folder.iterdir())]
    key = hashlib.sha256(repr((folder, lying)).encode()).hexdigest()[:8]
    return folder, WORK / f"{folder.name}-{key}", text_ids(folder)


def random_ids(vocabulary):
    return [int(id) for id in np.random.default_rng(1).integers(0, vocabulary, CONTEXT)]


def text_ids(folder):
    """Of a text, since a network that has learned one is not made for noise; random where there is no tokenizer."""
    if not (folder / "tokenizer.json").exists():
        return random_ids(shape(folder).vocabulary)
    from tokenizers import Tokenizer

    text = (ROOT / "docs/architecture.md").read_text()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return tokenizer.encode(text, add_special_tokens=False).ids[:CONTEXT]


def compiled(program, source, stem, timesteps):
    """What this snnc compiles it to."""
    snn = Path(f"{stem}.t{timesteps}.snn")
    if not snn.exists() or snn.stat().st_mtime < program.stat().st_mtime:
        levels = ["--timesteps", str(timesteps), "--calibration-tokens", "2048"]
        subprocess.run([program, "compile", source, "-o", snn, *levels], check=True)
    return snn


def alike(engines, ids):
    """By engine, beside the reference: the cosine of the last logits, whether the best guess is the same, and how many greedy
    ids are the same until one differs."""
    reference = next((e for e in engines if e.name == REFERENCE), None)
    if reference is None:
        print(f"{REFERENCE} is not here, so that logits are not compared")
        return {}
    expected, guesses = np.array(reference.ask("logits", ids), np.float64), reference.ask("greedy", ids, GREEDY)
    found = {}
    for engine in engines:
        logits = np.array(engine.ask("logits", ids), np.float64)
        cosine = logits @ expected / np.linalg.norm(logits) / np.linalg.norm(expected)
        found[engine.name] = {"cosine": float(cosine), "same_best": bool(logits.argmax() == expected.argmax())}
        best = "same" if found[engine.name]["same_best"] else "other"
        told = f"last logits beside {REFERENCE}: {engine.name:<18} cosine {cosine:.6f}, {best} best guess"
        if isinstance(engine, Peer):
            same = [a == b for a, b in zip(engine.ask("greedy", ids, GREEDY), guesses)]
            found[engine.name]["same_greedy"] = (same + [False]).index(False)
            told += f", {found[engine.name]['same_greedy']} of {GREEDY} greedy ids"
        print(told)
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


def refused(folder, longest):
    """Why a folder cannot be measured here, or None."""
    try:
        context = shape(folder).context
    except KeyError as key:
        return f"its config.json has no {key}: it is no decoder that is known here"
    except ValueError as error:
        return error
    return f"it has a context of {context} tokens; {longest} are measured" if context < longest else None


def arguments():
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--size", default="small", choices=SIZES, help="of a GPT-2 with random weights")
    parser.add_argument("--folder", type=Path, help="a Hugging Face folder of a decoder, instead of that GPT-2")
    parser.add_argument("--gguf", type=Path, help="a file of the same model that llama.cpp runs as it is, too")
    parser.add_argument("--snn", type=Path, help="what snnc compiled the model to; else it is compiled here")
    parser.add_argument("--threads", default="1", help="their numbers, one after another")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompts", default="128,1024", help="their lengths")
    parser.add_argument("--peers", default=",".join(PEERS), help="some of them")
    parser.add_argument("--timesteps", type=int, default=7, help="of snnc's program")
    parser.add_argument("--stepped", action="store_true", help="snnc runs every timestep, spike by spike")
    parser.add_argument("--density", type=float, help="this share of snnc's neurons fires, whatever they read")
    parser.add_argument("--json", help="write figures to this file")
    parser.add_argument("--program", help="a built snnc, its examples in `examples` beside it; else it is built here")
    args = parser.parse_args()
    args.folder, args.gguf, args.snn = (path and path.resolve() for path in (args.folder, args.gguf, args.snn))
    args.threads, args.prompts = ([int(n) for n in text.split(",")] for text in (args.threads, args.prompts))
    if args.folder and not (args.folder / "config.json").exists():
        parser.error(f"{args.folder} has no config.json: it is no Hugging Face folder")
    if args.folder and (why := refused(args.folder, max(*args.prompts, DEPTH + DECODED))):
        parser.error(f"{args.folder}: {why}")
    if args.gguf and not (args.folder and args.gguf.is_file()):
        parser.error("--gguf FILE goes with --folder DIR, and the file must be there")
    if min(args.threads) < 1 or max(args.prompts) > CONTEXT:
        parser.error(f"there is one thread or more, and a prompt has {CONTEXT} tokens or fewer")
    if unknown := set(args.peers.split(",")) - set(PEERS):
        parser.error(f"no such peer: {', '.join(unknown)}; there are {', '.join(PEERS)}")
    return args


def kind_of(gguf):
    """How a file's weights are stored: `Q4_1`."""
    from gguf import GGUFReader, LlamaFileType

    kind = LlamaFileType(GGUFReader(gguf).fields["general.file_type"].contents()).name
    return kind.removeprefix("MOSTLY_")


def started(args, source, stem, threads, left_out):
    """The engines of these peers, as far as they can be had."""
    engines = []
    for peer in args.peers.split(","):
        names, packages = PEERS[peer]
        names = [name for name in names if name not in left_out]
        if why := install(packages):
            leave_out(left_out, peer, why)
            continue
        sources = [(name, source) for name in names]
        if peer == "llama.cpp" and args.gguf:
            sources.append((f"llama.cpp {kind_of(args.gguf)}", args.gguf))
        for name, file in sources:
            try:
                engines.append(Peer(name, file, stem, threads))
            except RuntimeError as error:
                leave_out(left_out, name, error)
    return engines


def speeds(args, program, model, threads, left_out):
    """Everything at so many threads: how like logits are, and rates."""
    source, stem, snn, ids = model
    peers = started(args, source, stem, threads, left_out)
    if not peers:
        return {}
    engines = [Snnc(program, snn, threads, args.stepped, args.density), *peers]
    result = {"logits": alike(engines, ids[:BEHIND])}
    figures = measured(engines, ids, args.prompts, args.rounds, left_out)
    for peer in peers:
        peer.end()
    form = "stepped" if args.stepped else "collapsed"
    form += f" with {args.density:.0%} of neurons firing" if args.density else ""
    form += "" if args.snn else f", T = {args.timesteps}"
    print(f"{args.folder or f'GPT-2 {args.size}'}, {threads} thread(s); snnc: {form}")
    print(f"medians of {args.rounds} rounds, tokens/s; ratio: snnc over it")
    return result | {"figures": table(figures)}


def main():
    args = arguments()
    program = built(args.program).resolve()
    WORK.mkdir(parents=True, exist_ok=True)
    left_out, result = {}, {"arguments": {name: str(value) for name, value in vars(args).items()}}
    cores, speed = sorted(os.sched_getaffinity(0)), set(args.peers.split(",")) != {"spikingjelly"}
    if speed:
        source, stem, ids = folder_model(args.folder) if args.folder else random_model(program, args.size)
        snn = args.snn or compiled(program, source, stem, args.timesteps)
    for threads in args.threads:
        # All children run on the same cores.
        os.sched_setaffinity(0, cores[:threads])
        found = speeds(args, program, (source, stem, snn, ids), threads, left_out) if speed else {}
        if "spikingjelly" in args.peers.split(",") and "spikingjelly" not in left_out:
            found["mlp"] = mlp(program, threads, args.rounds, left_out)
        result[f"{threads} threads"] = found
    if args.json:
        Path(args.json).write_text(json.dumps(result | {"left_out": left_out}, indent=1))


if __name__ == "__main__":
    main()
