"""Spiking networks on the Loihi model of SANA-FE: spikes, energy and time. sana_fe.py FOLDER ..., or sana_fe.py [--sizes 64,128,32] [--tokens 4]
[--timesteps 15]

A folder is what `snnc export MODEL.snn --to sana-fe --text FILE -o FOLDER` wrote. Its network runs on its spikes, and the spikes of every group are
compared with the program's. Thresholds are rounded to integers, so a few may differ; the exit status is 1 if more than one in 10,000 does.

Without a folder it writes a network of random numbers as `snnc export --to sana-fe` does, and runs it with SANA-FE, a simulator of neuromorphic chips. Every spike is compared with a
simulation of the same neurons by numpy. The exit status is 1 if one differs, or if a layer is silent.

SANA-FE's neuron computes in multiples of 1/64, so the network is of integers. For weights W, a gain and an offset of each neuron:

    threshold = round(1 / gain)     bias = round(offset / (T gain))     start = round(1 / (2 gain))
    u = v + W x + bias              a spike if u >= threshold

The neuron fires if v > threshold. Potentials stand 1/64 higher, so that this is >= for integers; a hard reset goes to 1/64.

A spike of step t reaches its target in step t + 1, so layer k works in steps k + 2 to k + 1 + T. Two input neurons of each layer make its time.
`start` fires so that it sets the potential one step before. `one` fires for each of these steps, and its weights are the biases.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SHIFT = 1 / 64
CORE = 1024  # neurons of a core, inputs among them
CORES = 4  # of a tile


def simulate(layers, x, kind):
    """Spikes of every layer, bool [T, m]; x is bool [T, k]. A layer is (W [m, k], threshold [m], bias [m], start [m]), all integers."""
    every, spikes = [], x
    for weight, threshold, bias, start in layers:
        v, said = start.copy(), []
        for row in spikes:
            u = v + weight @ row.astype(np.int64) + bias
            said.append(u >= threshold)
            v = np.where(said[-1], u - threshold if kind == "if" else 0, u)
        spikes = np.array(said)
        every.append(spikes)
    return every


def write(path, layers, inputs, kind):
    """The network and its places on the chip, as YAML. Inputs fill the first cores, and each layer begins a core. Gives the number of cores."""
    reset = "reset_mode: soft" if kind == "if" else f"reset_mode: hard, reset: {SHIFT}"
    groups, edges, places, before = [("x", inputs, "[log_spikes: true]")], [], [], "x"
    for k, (weight, _, bias, start) in enumerate(layers):
        groups += [(f"one{k}", 1, "[]"), (f"start{k}", 1, "[]")]
        for source, numbers in ((before, weight.T.ravel()), (f"one{k}", bias), (f"start{k}", start + SHIFT)):
            edges.append(f"    - {source} -> n{k}: [type: dense, weight: [{','.join(map(str, numbers.tolist()))}]]\n")
        before = f"n{k}"
    place = 0
    for name, count, _ in groups:
        for i in range(count):
            core = place // CORE
            places.append(f'  - {name}.{i}: [core: {core // CORES}.{core % CORES}, soma: "loihi_inputs[{place % CORE}]"]\n')
            place += 1
    with open(path, "w") as file:
        file.write("network:\n  name: island\n  groups:\n")
        for name, count, attributes in groups:
            file.write(f"    - name: {name}\n      attributes: {attributes}\n      neurons:\n        - 0..{count - 1}: []\n")
        for k, (_, threshold, _, _) in enumerate(layers):
            attributes = f"[log_spikes: true, {reset}, leak_decay: 1.0, dendrite_hw_name: loihi_dendrites]"
            file.write(f"    - name: n{k}\n      attributes: {attributes}\n      neurons:\n")
            file.writelines(f"        - {i}: [threshold: {t}]\n" for i, t in enumerate(threshold.tolist()))
            place = -(-place // CORE) * CORE
            for i in range(len(threshold)):
                core = place // CORE
                places.append(f"  - n{k}.{i}: [core: {core // CORES}.{core % CORES}, soma: loihi_lif]\n")
                place += 1
        file.write("  edges:\n" + "".join(edges) + "mappings:\n" + "".join(places))
    return -(-place // CORE)


def run(chip, layers, x):
    """Spikes of every layer in its own steps, bool [T, m], and SANA-FE's result; x is bool [T, k]."""
    timesteps, steps = len(x), len(x) + 1 + len(layers)
    chip.reset()
    groups = chip.mapped_neuron_groups

    def say(name, i, spikes):
        groups[name][i].set_attributes(model_attributes={"spikes": [int(s) for s in spikes]})

    for i in range(x.shape[1]):
        say("x", i, [0, *x[:, i]])
    for k in range(len(layers)):
        say(f"start{k}", 0, [0] * k + [1])
        say(f"one{k}", 0, [0] * (k + 1) + [1] * timesteps)
    result = chip.sim(steps, timing_model="detailed", spike_trace=True)
    every = [np.zeros((steps, len(layer[1])), bool) for layer in layers]
    for t, fired in enumerate(result["spike_trace"]):
        for neuron in fired:
            if neuron.group_name.startswith("n"):
                every[int(neuron.group_name[1:])][t, neuron.neuron_offset] = True
    return [spikes[k + 2 : k + 2 + timesteps] for k, spikes in enumerate(every)], result


def folder_runs(folder):
    """Runs an export. Prints what a token takes; gives spikes that were compared and that differ."""
    import json

    import sanafe

    folder = Path(folder)
    manifest, trace = json.loads((folder / "manifest.json").read_text()), np.load(folder / "spikes.npz")
    timesteps, steps = manifest["timesteps"], manifest["steps"]
    began = time.monotonic()
    arch = sanafe.load_loihi()
    chip = sanafe.SpikingChip(arch)
    chip.load(sanafe.load_net(folder / "network.yaml", arch))
    loaded = time.monotonic() - began
    inputs = [g["name"] for g in manifest["groups"] if g["depth"] is None]
    layers = {g["name"]: g for g in manifest["groups"] if g["depth"] is not None}
    tokens = len(trace[inputs[0]])
    compared = differ = fired = 0
    energy = seconds = packets = 0.0
    groups = chip.mapped_neuron_groups

    def say(name, i, spikes):
        groups[name][i].set_attributes(model_attributes={"spikes": [int(s) for s in spikes]})

    for token in range(tokens):
        chip.reset()
        for name in inputs:
            for i in range(trace[name].shape[-1]):
                say(name, i, [0, *trace[name][token, :, i]])
        for depth in range(max(g["depth"] for g in layers.values()) + 1):
            say(f"start{depth}", 0, [0] * depth + [1])
            say(f"one{depth}", 0, [0] * (depth + 1) + [1] * timesteps)
        result = chip.sim(steps, timing_model="detailed", spike_trace=True)
        got = {name: np.zeros((steps, g["neurons"]), bool) for name, g in layers.items()}
        for t, some in enumerate(result["spike_trace"]):
            for neuron in some:
                if neuron.group_name in got:
                    got[neuron.group_name][t, neuron.neuron_offset] = True
        for name, g in layers.items():
            want = trace[name][token] != 0
            ours = got[name][g["depth"] + 2 : g["depth"] + 2 + timesteps]
            compared, differ, fired = compared + want.size, differ + int((want != ours).sum()), fired + int(want.sum())
        energy, seconds, packets = energy + result["energy"]["total"], seconds + result["sim_time"], packets + result["packets_sent"]
    print(
        f"{folder}: {manifest['placement']}, {manifest['cores']} cores, loaded in {loaded:.1f} s; {compared:,} neuron-steps, {fired:,} spikes, "
        f"{differ} differ; a token takes {energy / tokens:.3g} J, {seconds / tokens:.3g} s of the chip, {packets / tokens:.0f} packets"
    )
    return compared, differ, fired


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folders", nargs="*", help="what `snnc export --to sana-fe` wrote, with spikes")
    parser.add_argument("--sizes", default="64,128,32", help="channels of the input and of each layer")
    parser.add_argument("--tokens", type=int, default=4)
    parser.add_argument("--timesteps", type=int, default=15)
    args = parser.parse_args()
    if args.folders:
        rows = [folder_runs(folder) for folder in args.folders]
        wrong = [folder for folder, (compared, differ, fired) in zip(args.folders, rows) if not fired or differ * 10_000 > compared]
        for folder in wrong:
            print(f"sana_fe.py: {folder}: spikes differ, or there are none", file=sys.stderr)
        return 1 if wrong else 0
    import sanafe

    sizes, timesteps, rng = [int(n) for n in args.sizes.split(",")], args.timesteps, np.random.default_rng(1)
    compared = differ = 0
    silent = False
    for kind in "if", "if_hard":
        layers = []
        for k, m in zip(sizes, sizes[1:]):
            gain, offset = 2 * rng.uniform(0.2, 1.5, m) / 127 / np.sqrt(k), rng.normal(0, 0.7, m)
            integers = (np.rint(n).astype(np.int64) for n in (1 / gain, offset / (timesteps * gain), 1 / (2 * gain)))
            layers.append((rng.integers(-127, 128, (m, k)), *integers))
        xs = rng.random((args.tokens, timesteps, sizes[0])) < 0.2
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "network.yaml"
            cores = write(path, layers, sizes[0], kind)
            size, began = path.stat().st_size, time.monotonic()
            arch = sanafe.load_loihi()
            chip = sanafe.SpikingChip(arch)
            chip.load(sanafe.load_net(path, arch))
        loaded, energy, seconds, fired = time.monotonic() - began, 0.0, 0.0, [0] * len(layers)
        for x in xs:
            got, result = run(chip, layers, x)
            energy, seconds = energy + result["energy"]["total"], seconds + result["sim_time"]
            for k, (ours, theirs) in enumerate(zip(simulate(layers, x, kind), got)):
                compared, differ, fired[k] = compared + ours.size, differ + int((ours != theirs).sum()), fired[k] + int(ours.sum())
        silent |= 0 in fired
        print(
            f"{kind}: {cores} cores, {size:,} bytes of YAML, loaded in {loaded:.1f} s; spikes {fired}; "
            f"a token takes {energy / len(xs):.3g} J and {seconds / len(xs):.3g} s of the chip"
        )
    print(f"SANA-FE {sanafe_version()}: {compared:,} spikes compared, {differ} differ" + (", a layer is silent" if silent else ""))
    return 1 if differ or silent else 0


def sanafe_version():
    import importlib.metadata

    return importlib.metadata.version("sanafe")


if __name__ == "__main__":
    sys.exit(main())
