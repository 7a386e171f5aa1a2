"""Islands as `snnc export --to nir --trace` writes them, made of random numbers: nir_standin.py FOLDER [--wrong]. Tests nir_readers.py.

Each dialect gets a folder `FOLDER/DIALECT` with one island for each neuron and sign that the dialect has a rating for: two hidden layers with
integer weights, a gain and an offset for each channel, and an output layer. Spikes come from a simulation of snnc's neuron (docs/ir.md), f32,
rounded after every operation. With --wrong, the Norse folder has one more island, whose rating `faithful` is wrong.

An island is a chain, so that every reader runs it in the same order:

    input, (Affine w, Affine g, neuron n) for each layer, Affine out, output

- Every signal has its channels, then lines. `one` is 1 in each of our timesteps. `start` is 1 in the leading step, where all channels are 0.
- `w` has integer weights, so that its sums are exact. `g` has gains on its diagonal, offset / T in the column `one`, and the potential 0.5 in the
  column `start`. No row of `g` ever adds more than two numbers that are not 0, and `one` is behind the channels: so its sums round as ours do.
  Biases are 0, for some kernels begin a sum with the bias.
- A signed neuron is two: the second half of its channels takes the negated current, and the next weight is [W, -W].
- The exact form for sinabs has a line more, `odd`, and two steps for each of ours. Its neurons do not reset themselves. `v` (an LI) integrates.
  `k` (a LIF without memory) says trunc(v). `n` says min(k, 1) in our timesteps and 0 in the odd steps between them, where `b` subtracts the spikes.

The HDF5 file has what the smallest writer makes: superblock 0, contiguous data, strings of fixed length.
"""

import argparse
import json
from pathlib import Path

import h5py
import numpy as np

F = np.float32
BELOW = np.nextafter(F(1), F(0))  # v > BELOW is v >= 1
DT = 1e-4
HUGE = F(1e20)  # a time constant whose leak vanishes in f32
SHORT = F(1e-3)  # exp(-1 / SHORT) is 0 in f32


def neurons(current, kind):
    """Spikes of one membrane each, i8 [tokens, T, n], for the input I_t [tokens, T, n]."""
    v, spikes = np.full(current[:, 0].shape, 0.5, F), np.zeros(current.shape, np.int8)
    for t in range(current.shape[1]):
        u = v + current[:, t]
        fires = u >= 1
        spikes[:, t] = fires
        v = u - fires.astype(F) if kind == "if" else np.where(fires, F(0), u)
    return spikes


def simulate(layers, out, x, kind, signed):
    """Spikes of every layer, i8 [tokens, T, n] or [tokens, T, 2 n], and the output current f32 [tokens, T, m]; x is i8 [tokens, T, k]."""
    timesteps, all_spikes, spikes = x.shape[1], [], x.astype(F)
    for weight, gain, offset in layers:
        current = (spikes @ weight.T) * gain + offset / F(timesteps)
        said = neurons(current, kind)
        spikes = said.astype(F)
        if signed:
            negative = neurons(-current, kind)
            spikes, said = spikes - negative, np.concatenate([said, negative], -1)
        all_spikes.append(said)
    return all_spikes, spikes @ out.T


def neuron(dialect, kind, n):
    """The NIR node of n neurons."""

    def full(value):
        return np.full(n, value, F)

    if dialect in ("nir", "norse", "spikingjelly"):
        return {
            "type": "IF",
            "r": full(1 if dialect == "norse" else 1 / DT),
            "v_threshold": full(1 if dialect == "spikingjelly" else BELOW),
        }
    if dialect == "snntorch":
        return {"type": "LIF", "tau": full(HUGE), "r": full(HUGE / F(DT)), "v_leak": full(0), "v_threshold": full(BELOW)}
    return {"type": "LIF", "tau": full(HUGE), "r": full(1), "v_leak": full(0), "v_threshold": full(1)}


def affine(weight, bias=None):
    return {"type": "Affine", "weight": weight, "bias": np.zeros(len(weight), F) if bias is None else bias}


def build(layers, out, timesteps, dialect, kind, signed, exact):
    """Nodes and edges of an island."""
    lines, k = 3 if exact else 2, layers[0][0].shape[1]
    nodes, edges, last = {"input": {"type": "Input", "shape": np.array([k + lines])}}, [], "input"

    def put(name, node, after=None):
        nonlocal last
        nodes[name] = node
        edges.append((after or last, name))
        if after is None:
            last = name

    def both(weight, first):
        return weight if first or not signed else np.concatenate([weight, -weight], 1)

    for i, (weight, gain, offset) in enumerate(layers):
        m, wide = len(gain), len(gain) * (2 if signed else 1)
        weight = both(weight, i == 0)
        w = np.zeros((m + lines, weight.shape[1] + lines), F)
        w[:m, : weight.shape[1]] = weight
        g = np.zeros((wide + lines, m + lines), F)
        each, offset = np.arange(m), offset / F(timesteps)
        g[each, each], g[:m, m], g[:wide, m + lines - 1] = gain, offset, 0.5
        if signed:
            g[each + m, each], g[m:wide, m] = -gain, -offset
        for line in range(lines):
            w[m + line, weight.shape[1] + line] = g[wide + line, m + line] = 1
        put(f"w{i}", affine(w))
        put(f"g{i}", affine(g))
        n = wide + lines
        if not exact:
            put(f"n{i}", neuron(dialect, kind, n))
            continue

        def full(value):
            return np.full(n, value, F)

        put(f"v{i}", {"type": "LI", "tau": full(HUGE), "r": full(1), "v_leak": full(0)})
        rest = {"type": "LIF", "tau": full(SHORT), "r": full(1), "v_leak": full(0)}
        put(f"k{i}", dict(rest, v_threshold=full(1)))
        mask = np.eye(n, dtype=F)
        mask[:wide, wide + 1] = -(2.0**21)
        put(f"p{i}", affine(mask, full(2.0**20)))
        put(f"n{i}", dict(rest, v_threshold=full(2.0**20 + 1)))
        put(f"b{i}", affine(-np.eye(n, dtype=F)), after=f"n{i}")
        edges.append((f"b{i}", f"v{i}"))
    out = both(out, False)
    put("out", affine(np.concatenate([out, np.zeros((len(out), lines), F)], 1)))
    put("output", {"type": "Output", "shape": np.array([len(out)])})
    return nodes, edges


def write(path, nodes, edges):
    """An HDF5 file of superblock 0 with contiguous data and strings of fixed length."""

    def text(group, name, value):
        group.create_dataset(name, data=np.array(value.encode(), dtype=f"S{len(value)}"))

    with h5py.File(path, "w", libver=("earliest", "v108")) as file:
        text(file, "version", "1.0")
        root = file.create_group("node")
        text(root, "type", "NIRGraph")
        width = max(len(name) for edge in edges for name in edge)
        root.create_dataset("edges", data=np.array([[a.encode(), b.encode()] for a, b in edges], dtype=f"S{width}"))
        group = root.create_group("nodes")
        for name, node in nodes.items():
            one = group.create_group(name)
            text(one, "type", node["type"])
            for field, value in node.items():
                if field != "type":
                    one.create_dataset(field, data=value)


def steps(x, stride, lines, wide):
    """Puts [tokens, T, n] into the reader's timesteps, and adds the lines: [tokens, 1 + stride T, wide + lines]."""
    tokens, timesteps, n = x.shape
    y = np.zeros((tokens, 1 + stride * timesteps, wide + lines), np.int8)
    y[:, 1::stride, :n], y[:, 1::stride, wide], y[:, 0, wide + lines - 1] = x, 1, 1
    if stride == 2:
        y[:, 2::2, wide + 1] = 1
    return y


def make(folder, dialect, tokens=48, timesteps=15, sizes=(96, 256, 128, 64), wrong=False, seed=1, scale=2.0):
    """Writes the folder of one dialect."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, islands = np.random.default_rng(seed), []
    exact = dialect == "sinabs"
    cases = [("if_hard", s, "unsupported" if exact else "faithful", False) for s in (False, True)]
    cases += [("if", s, "faithful" if exact else "unsupported", exact) for s in (False, True)]
    if exact:
        cases += [("if", False, "approximate", False)]
    if wrong:
        cases += [("if", False, "faithful", False)]
    for kind, signed, rating, feedback in cases:
        layers = []
        for k, m in zip(sizes[:-2], sizes[1:-1]):
            gain = (scale * rng.uniform(0.2, 1.5, m) / 127 / np.sqrt(k)).astype(F)
            layers.append((rng.integers(-127, 128, (m, k)).astype(F), gain, rng.normal(0, 0.7, m).astype(F)))
        out = rng.integers(-127, 128, (sizes[-1], sizes[-2])).astype(F)
        x = rng.integers(-1 if signed else 0, 2, (tokens, timesteps, sizes[0])) * (rng.random((tokens, timesteps, sizes[0])) < 0.3)
        x = x.astype(np.int8)
        spikes, current = simulate(layers, out, x, kind, signed)
        stride, lines = (2, 3) if feedback else (1, 2)
        name = f"h.{len(islands)}.mlp"
        nodes, edges = build(layers, out, timesteps, dialect, kind, signed, feedback)
        write(folder / f"{name}.nir", nodes, edges)
        trace = {f"n{i}": steps(s, stride, lines, s.shape[-1]) for i, s in enumerate(spikes)}
        full = np.zeros((tokens, 1 + stride * timesteps, sizes[-1]), F)
        full[:, 1::stride] = current
        np.savez_compressed(folder / f"{name}.npz", input=steps(x, stride, lines, sizes[0]), output=full, **trace)
        islands.append(
            {
                "name": name,
                "file": f"{name}.nir",
                "rating": rating,
                "reasons": [],
                "lead": 1,
                "stride": stride,
                "input": {"site": f"h.{len(islands)}.norm", "width": sizes[0], "lines": ["one", "odd", "start"] if feedback else ["one", "start"]},
                "nodes": [
                    {"name": n, "type": node["type"], "site": f"site {n}" if n[0] == "n" else None, "neuron": kind if n[0] == "n" else None, "rating": rating, "reason": ""}
                    for n, node in nodes.items()
                ],
                "output": {"site": None, "width": sizes[-1], "lines": []},
            }
        )
    manifest = {"schema": "snnc.nir.v2", "dialect": dialect, "timesteps": timesteps, "dt": DT, "islands": islands, "connections": []}
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder")
    parser.add_argument("--wrong", action="store_true", help="one rating of the Norse folder is wrong")
    args = parser.parse_args()
    for dialect in "nir", "snntorch", "norse", "sinabs", "spikingjelly":
        make(Path(args.folder) / dialect, dialect, wrong=args.wrong and dialect == "norse")


if __name__ == "__main__":
    main()
