"""Runs exported NIR islands in the libraries that read NIR, and compares every spike with the trace that snnc wrote.

    nir_readers.py FOLDER ... [--python READER=PROGRAM ...] [--readers NAME,...] [--markdown FILE] [--json FILE]

A folder is what `snnc export MODEL.snn --to nir --dialect DIALECT --text FILE -o FOLDER` writes: `manifest.json`, one `.nir` file an island, and
one `.npz` file of spikes. Every island runs in every reader, a timestep at a time, all tokens as one batch. Spikes of every neuron
are compared timestep by timestep, and so is the output current where the trace has it.

An export rates its islands for the reader that its dialect is of. Dialect `nir` is the letter of the specification, which numpy runs in this file.
The exit status is 1 if a rating `faithful` is wrong, or if an island with this rating was not run or had no spike in the trace. It is 1 too if an
`approximate` island did not run, or if nothing was compared at all. Readers of other dialects are shown without a claim.

Shapes: a signal of an island is [tokens, steps, width + lines]. `steps` counts the reader's timesteps: `lead` before the first of ours, then
`stride` for each of ours. `lines` say `one`, `odd` or `start`; they come last and are compared too.
"""

import argparse
import importlib.metadata
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

READERS = {
    "nir": ("the letter of NIR", "nir"),
    "snntorch": ("snnTorch", "snntorch"),
    "norse": ("Norse", "norse"),
    "sinabs": ("sinabs", "sinabs"),
    "spikingjelly": ("SpikingJelly", "spikingjelly"),
}
RATINGS = ("faithful", "approximate", "unsupported")
NEURONS = ("IF", "LIF", "CubaLIF")
F = np.float32


class Letter:
    """A NIR graph by the letter of its specification, f32: v += dt * dv/dt; a spike where v > v_threshold, then v = v_reset."""

    def __init__(self, graph, dt):
        self.graph, self.dt, self.v, self.hooks = graph, dt, {}, {}
        self.order, waiting = [], dict(graph.nodes)
        while waiting:
            ready = [n for n in waiting if all(a not in waiting for a, b in graph.edges if b == n)]
            if not ready:
                raise NotImplementedError("a cycle: the specification gives no order of its nodes")
            self.order += ready
            for name in ready:
                del waiting[name]

    def node(self, name, node, x):
        kind, dt = type(node).__name__, self.dt
        if kind in ("Input", "Output"):
            return x
        if kind in ("Affine", "Linear"):
            y = x @ np.asarray(node.weight, F).T
            return y if kind == "Linear" else y + np.asarray(node.bias, F)
        if kind == "Scale":
            return x * np.asarray(node.scale, F)
        if kind not in ("IF", "LIF"):
            raise NotImplementedError(f"a node of type {kind}")
        v = self.v.get(name, np.zeros_like(x))
        drive = x * (np.asarray(node.r, np.float64) * (dt if kind == "IF" else 1)).astype(F)
        if kind == "IF":
            v = v + drive
        else:
            v = v + (dt / np.asarray(node.tau, np.float64)).astype(F) * (np.asarray(node.v_leak, F) - v + drive)
        spike = v > np.asarray(node.v_threshold, F)
        reset = getattr(node, "v_reset", None)
        self.v[name] = np.where(spike, F(0) if reset is None else np.asarray(reset, F), v)
        return spike.astype(F)

    def step(self, x):
        """x [tokens, channels] to what the output node says."""
        out = {}
        for name in self.order:
            node, into = self.graph.nodes[name], [out[a] for a, b in self.graph.edges if b == name]
            out[name] = self.node(name, node, sum(into[1:], into[0]) if into else x)
            if name in self.hooks:
                self.hooks[name](out[name])
            if type(node).__name__ == "Output":
                y = out[name]
        return y


class Torch:
    """A NIR graph as one of the libraries imports it."""

    def __init__(self, reader, graph, dt, tokens):
        import torch

        torch.set_num_threads(1)
        self.torch, self.state, self.hooks = torch, None, {}
        if reader == "snntorch":
            from snntorch.import_nir import import_from_nir

            self.net = import_from_nir(graph)
        elif reader == "norse":
            import norse.torch

            self.net = norse.torch.from_nir(graph, ignore_warnings=True, dt=dt)
        elif reader == "spikingjelly":
            from spikingjelly.activation_based.nir_exchange import import_from_nir

            self.net = import_from_nir(graph, dt=dt)
        elif reader == "sinabs":
            import sinabs.nir

            self.net = sinabs.nir.from_nir(graph, batch_size=tokens, num_timesteps=1)
        self.modules = dict(self.net.named_modules())

    def watch(self, name, function):
        module = self.modules[name.replace(".", "_")]
        module.register_forward_hook(lambda m, i, o: function((o[0] if isinstance(o, tuple) else o).numpy()))

    def step(self, x):
        """x [tokens, channels] to what the output node says."""
        with self.torch.no_grad():
            y = self.net(self.torch.from_numpy(x), self.state)
        if isinstance(y, tuple):
            y, self.state = y
        return y.numpy()


def island(reader, folder, entry, dt):
    """Runs one island in one reader. Counts: steps of neurons compared, spikes in the trace, those that differ, and the first that does."""
    import nir

    trace = np.load(folder / Path(entry["file"]).with_suffix(".npz"))
    x = trace["input"].astype(F)
    tokens, steps, _ = x.shape
    graph = nir.read(str(folder / entry["file"]))
    names = [n for n in graph.nodes if n in trace.files and n not in ("input", "output")]
    missing = [n["name"] for n in entry["nodes"] if n.get("site") and n["type"] in NEURONS and n["name"] not in names]
    if missing or not (names or "output" in trace.files):
        raise LookupError(f"the trace has no spikes of {', '.join(missing) or 'any neuron'}")
    run = Letter(graph, dt) if reader == "nir" else Torch(reader, graph, dt, tokens)
    count = {"compared": 0, "spikes": 0, "differ": 0, "first": None, "currents": 0, "currents differ": 0}
    step = 0

    def look(name):
        def compare(got):
            want = trace[name][:, step].astype(F)
            if got.shape != want.shape:
                raise ValueError(f"{name} has shape {got.shape}, the trace {want.shape}")
            wrong = got != want
            count["compared"] += want.size
            count["spikes"] += int(np.abs(want).sum())
            count["differ"] += int(wrong.sum())
            if count["first"] is None and wrong.any():
                token, channel = (int(i) for i in np.argwhere(wrong)[0])
                count["first"] = f"step {step} of {name}, token {token}, channel {channel}: {got[token, channel]:g}, not {want[token, channel]:g}"

        return compare

    trace = {name: trace[name] for name in trace.files}
    for name in names:
        if reader == "nir":
            run.hooks[name] = look(name)
        else:
            run.watch(name, look(name))
    for step in range(steps):
        y = run.step(np.ascontiguousarray(x[:, step]))
        if "output" in trace:
            want = trace["output"][:, step].astype(F)
            count["currents"] += want.size
            count["currents differ"] += int((y != want).sum())
    if count["compared"] != sum(trace[name].size for name in names):
        raise RuntimeError("some neurons did not run in every timestep")
    return count


def worker(reader, folders):
    """Runs all islands of the folders in one reader. One line of JSON for each, on standard output."""
    import contextlib

    title, package = READERS[reader]
    result = {"reader": reader, "title": title, "version": importlib.metadata.version(package), "nir": importlib.metadata.version("nir")}
    for folder in map(Path, folders):
        manifest = json.loads((folder / "manifest.json").read_text())
        for entry in manifest["islands"]:
            row = dict(result, folder=str(folder), island=entry["name"])
            began = time.monotonic()
            try:
                if not entry.get("file"):
                    raise LookupError("no file was written")
                with contextlib.redirect_stdout(sys.stderr):
                    row.update(island(reader, folder, entry, manifest["dt"]))
            except Exception as error:
                row["error"] = f"{type(error).__name__}: {error}".split("\n")[0]
            row["seconds"] = round(time.monotonic() - began, 2)
            print(json.dumps(row), flush=True)


def neurons_of(entry):
    """The kinds of an island's neurons, and whether its last ones have a membrane per sign."""
    kinds = sorted({node["neuron"] for node in entry["nodes"] if node.get("neuron")})
    signs = ", signed" if entry["output"].get("signed") else ""
    return "+".join(kinds) + signs if kinds else "none: a projection"


def judge(rating, own, row):
    """What a row says of its rating, and whether the check fails."""
    ran = row is not None and "error" not in row
    differ = ran and row["differ"] + row["currents differ"]
    if not own:
        return ("not rated", False)
    if rating == "faithful":
        if not ran:
            return ("WRONG: not run", True)
        if differ:
            return ("WRONG: spikes differ", True)
        if not row["spikes"] and not row["currents"]:
            return ("WRONG: no spike and no current in the trace", True)
        return ("right", False)
    if rating == "approximate" and not ran:
        return ("WRONG: not run", True)
    return ("equal on this trace" if ran and not differ else "as rated", False)


def table(rows):
    """A Markdown table of all rows."""
    head = ["reader", "dialect", "island", "neuron", "rating", "spikes", "compared", "differ", "first difference", "rating is"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        if "error" in row:
            numbers = ["-", "-", "-", row["error"].replace("|", "/")[:160]]
        else:
            differ = f"{row['differ']:,}" + (f", {row['currents differ']:,} currents" if row["currents differ"] else "")
            numbers = [f"{row['spikes']:,}", f"{row['compared']:,}", differ, row["first"] or "-"]
        name = f"{row['title']} {row['version']}" if row["reader"] != "nir" else row["title"]
        cells = [name, row["dialect"], row["island"], row["kind"], row["rating"] if row["own"] else "-", *numbers, row["verdict"]]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def summary(rows):
    """A Markdown table of what ran in the reader of its own dialect, summed over islands of one kind and rating."""
    lines = ["| reader | neurons | rating | islands | neuron-steps compared | spikes | spikes that differ |", "|---|---|---|---|---|---|---|"]
    groups = {}
    for row in rows:
        if row["own"] and row["compared" if "error" not in row else "error"]:
            groups.setdefault((row["reader"], row["kind"], row["rating"]), []).append(row)
    for (reader, kind, rating), some in groups.items():
        name = READERS[reader][0] + ("" if reader == "nir" else f" {some[0]['version']}")
        ran = [row for row in some if "error" not in row]
        numbers = [f"{sum(row[key] for row in ran):,}" for key in ("compared", "spikes", "differ")] if ran else ["did not run", "-", "-"]
        lines.append("| " + " | ".join([name, kind, rating, str(len(some)), *numbers]) + " |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folders", nargs="+", help="folders that `snnc export` wrote, with traces")
    parser.add_argument("--python", action="append", default=[], metavar="READER=PROGRAM", help="a Python that has the reader; else this one")
    parser.add_argument("--readers", default=",".join(READERS), help="the readers to run, by comma")
    parser.add_argument("--markdown", help="a file for the table")
    parser.add_argument("--summary", help="a file for a shorter table: readers by kinds of neurons")
    parser.add_argument("--json", help="a file for the rows")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return worker(args.worker, args.folders)

    manifests = {}
    for folder in args.folders:
        manifest = manifests[str(Path(folder))] = json.loads((Path(folder) / "manifest.json").read_text())
        if not manifest["schema"].startswith("snnc.nir.v") or manifest["dialect"] not in READERS:
            sys.exit(f"{folder}: schema {manifest['schema']}, dialect {manifest['dialect']}")
        unknown = {i["rating"] for i in manifest["islands"]} - set(RATINGS)
        if unknown:
            sys.exit(f"{folder}: no such rating: {', '.join(sorted(unknown))}")
    programs = dict(pair.split("=", 1) for pair in args.python)
    found, faults = {}, []
    for reader in args.readers.split(","):
        if reader not in READERS:
            sys.exit(f"no reader {reader}; there are {', '.join(READERS)}")
        command = [programs.get(reader, sys.executable), __file__, "--worker", reader, *args.folders]
        run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for line in run.stdout.splitlines():
            row = json.loads(line)
            found[reader, row["folder"], row["island"]] = row
        if run.returncode:
            faults.append(f"{reader} failed: {(run.stderr.strip().splitlines() or ['no message'])[-1]}")
    rows = []
    for folder, manifest in manifests.items():
        for entry in manifest["islands"]:
            for reader in args.readers.split(",") + [manifest["dialect"]] * (manifest["dialect"] not in args.readers.split(",")):
                row = found.get((reader, folder, entry["name"]))
                own = manifest["dialect"] == reader
                verdict, wrong = judge(entry["rating"], own, row)
                if row is None:
                    row = {"reader": reader, "title": READERS[reader][0], "version": "?", "error": "was not run"}
                    row.update(folder=folder, island=entry["name"])
                kind = neurons_of(entry)
                rows.append(dict(row, dialect=manifest["dialect"], rating=entry["rating"], kind=kind, own=own, verdict=verdict, wrong=wrong))
    text = table(rows)
    print(text, end="")
    if args.markdown:
        Path(args.markdown).write_text(text)
    if args.summary:
        Path(args.summary).write_text(summary(rows))
    if args.json:
        Path(args.json).write_text(json.dumps(rows, indent=1) + "\n")
    faults += [f"{r['folder']}, {r['island']}: rated {r['rating']} for {r['title']}; {r['verdict']}" for r in rows if r["wrong"]]
    if not any(r["own"] and "error" not in r for r in rows):
        faults.append("no island ran in the reader of its own dialect")
    for fault in faults:
        print(f"nir_readers.py: {fault}", file=sys.stderr)
    right = sum(r["own"] and r["rating"] == "faithful" and not r["wrong"] for r in rows)
    print(f"{right} faithful islands are right, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
