"""Makes the NIR files of other libraries that the tests read: `PYTHONHASHSEED=0 python make.py LIBRARY ...`. Of
LIBRARY, snntorch, norse, spikingjelly and plain want an environment with nir 1.0.8, snnTorch 1.0.0, Norse 1.1.0 and SpikingJelly 2.0.0, and
sinabs wants one with nir 1.0.4 and sinabs 3.1.3. The order of edges in a file is that of a Python set, so the seed makes the same files again.

`NAME.nir` is what the library's own exporter wrote, with nothing changed. `NAME.json` says what the library's own network does, before the export:

    {"library", "version", "nir", "dt", "but", "input": [T][n], "output": [T][m]}

`dt` is in seconds; sinabs counts timesteps, so its `dt` is 1. `but` says what the file does not say of the network, or is empty: then the file, by
the letter, has exactly this output. Each timestep has one row. The networks are those of the four exporters' documentation: chains of linear layers
and neurons, with small random weights. All inputs are spikes, 0 or 1, of one sample. Files `nir_*` have no library behind them, and so no output.
"""

import importlib.metadata
import json
import os
import sys

os.environ["OMP_NUM_THREADS"] = "1"

from pathlib import Path

import h5py
import nir
import numpy as np
import torch
from torch import nn

HERE = Path(__file__).parent
STEPS = 20


def seeded(n=6):
    """Input spikes f32 [STEPS, 1, n]; torch's random numbers start anew."""
    torch.manual_seed(1)
    return (torch.rand(STEPS, 1, n) < 0.4).float()


def linear(n, m, bias=True):
    layer = nn.Linear(n, m, bias=bias)
    layer.weight.data = torch.rand(m, n) * 1.2 - 0.3
    return layer


def save(name, library, graph, dt, x, y, but=""):
    """Writes both files; x and y are [STEPS, 1, n]."""
    nir.write(HERE / f"{name}.nir", graph)
    rows = {"input": x, "output": y}
    row = {"library": library, "version": importlib.metadata.version(library), "nir": importlib.metadata.version("nir"), "dt": dt, "but": but}
    row.update({k: [[float(f) for f in step.flatten()] for step in v] for k, v in rows.items()})
    assert any(f for step in row["output"] for f in step), f"{name} is silent"
    (HERE / f"{name}.json").write_text(json.dumps(row, separators=(",", ":")) + "\n")


def snntorch():
    import snntorch as snn
    from snntorch import utils
    from snntorch.export_nir import export_to_nir

    def case(name, net, x, but=""):
        graph = export_to_nir(net, x[0, 0])
        utils.reset(net)
        with torch.no_grad():
            save(name, "snntorch", graph, 1e-4, x, [net(step) for step in x], but)

    def leaky(beta, n, **options):
        return snn.Leaky(beta=beta * torch.ones(n), threshold=torch.ones(n), init_hidden=True, **options)

    zero = {"reset_mechanism": "zero", "reset_delay": False}
    x = seeded()
    case("snntorch_leaky", nn.Sequential(linear(6, 5), leaky(0.9, 5, **zero), linear(5, 4), leaky(0.8, 4, **zero)), x)
    x = seeded()
    case("snntorch_subtract", nn.Sequential(linear(6, 5), leaky(0.9, 5)), x, "the neuron subtracts its threshold, one timestep later")
    x = seeded()
    neuron = snn.Synaptic(alpha=0.5 * torch.ones(4), beta=0.8 * torch.ones(4), threshold=torch.ones(4), init_hidden=True, **zero)
    case("snntorch_synaptic", nn.Sequential(linear(6, 4), neuron), x)
    x = seeded()
    neuron = snn.RLeaky(beta=0.9 * torch.ones(4), threshold=torch.ones(4), linear_features=4, init_hidden=True, **zero)
    case("snntorch_recurrent", nn.Sequential(linear(6, 4), neuron), x, "the file has a cycle")


def norse():
    import norse.torch as nt
    from norse.torch.functional.iaf import IAFParameters
    from norse.torch.functional.lif_box import LIFBoxParameters
    from norse.torch.module.iaf import IAFCell

    def case(name, net, x, but=""):
        state, y = None, []
        with torch.no_grad():
            for step in x:
                out, state = net(step, state)
                y.append(out)
        save(name, "norse", nt.to_nir(net, x[0, 0]), 1e-3, x, y, but)

    x = seeded()
    constants = (LIFBoxParameters(v_th=torch.full((n,), 0.2), v_leak=torch.zeros(n), tau_mem_inv=torch.full((n,), 200.0)) for n in (5, 4))
    one, two = (nt.LIFBoxCell(c) for c in constants)
    net = nt.SequentialState(linear(6, 5), one, linear(5, 4, bias=False), two)
    case("norse_lif", net, x, "its tau is dt / tau_mem_inv, not 1 / tau_mem_inv")
    x = seeded()
    case("norse_iaf", nt.SequentialState(linear(6, 5), IAFCell(IAFParameters(v_th=torch.ones(5)))), x, "its r is 1, not 1 / dt")


def spikingjelly():
    from spikingjelly.activation_based import functional, layer, neuron
    from spikingjelly.activation_based.nir_exchange import export_to_nir

    def case(name, cell, x, dt=1e-4, but=""):
        own = layer.Linear(6, 5)
        own.weight.data = linear(6, 5).weight.data
        net = nn.Sequential(own, cell)
        graph = export_to_nir(net, x[0], dt=dt)
        functional.reset_net(net)
        with torch.no_grad():
            save(name, "spikingjelly", graph, dt, x, [net(step) for step in x], but)

    case("spikingjelly_if", neuron.IFNode(v_threshold=1.0, v_reset=0.0), seeded())
    case("spikingjelly_if_reset", neuron.IFNode(v_threshold=1.0, v_reset=-0.5), seeded(), but="the neuron starts at v_reset, not at 0")
    case("spikingjelly_lif", neuron.LIFNode(tau=2.0, decay_input=False, v_threshold=1.0, v_reset=0.0), seeded())
    case("spikingjelly_dt", neuron.LIFNode(tau=4.0, decay_input=True, v_threshold=0.3, v_reset=0.0), seeded(), dt=1e-3)


def sinabs():
    import sinabs.layers as sl
    from sinabs.nir import to_nir

    def case(name, net, x, but):
        with torch.no_grad():
            y = net(x[:, 0])
        for module in net:
            if hasattr(module, "reset_states"):
                module.reset_states()
        save(name, "sinabs", to_nir(net, x[:, 0]), 1.0, x, y, but)

    x = seeded()
    net = nn.Sequential(linear(6, 5), sl.IAFSqueeze(batch_size=1), linear(5, 4), sl.IAFSqueeze(batch_size=1))
    case("sinabs_iaf", net, x, "neurons subtract their threshold, and fire as often as it fits")
    x = seeded()
    one = sl.LIFSqueeze(tau_mem=torch.full((5,), 5.0), batch_size=1, norm_input=False, spike_threshold=torch.full((5,), 1.0))
    two = sl.ExpLeakSqueeze(tau_mem=torch.full((4,), 5.0), batch_size=1, norm_input=False)
    case("sinabs_lif", nn.Sequential(linear(6, 5), one, linear(5, 4), two), x, "decay is exp(-1 / tau), the input is whole, and as above")


def plain():
    """What the package nir writes of a graph that a person made; and the same data as other HDF5 writers may lay it out."""
    rng = np.random.default_rng(1)
    f = np.float32
    nodes = {
        "input": nir.Input({"input": np.array([6])}),
        "fc": nir.Linear(rng.normal(size=(5, 6)).astype(f)),
        "neuron": nir.IF(r=np.ones(5, f), v_threshold=np.ones(5, f)),
        "output": nir.Output({"output": np.array([5])}),
    }
    graph = nir.NIRGraph(nodes, [("input", "fc"), ("fc", "neuron"), ("neuron", "output")])
    graph.metadata = {"made by": "hand", "dt": 1e-4}
    nir.write(HERE / "nir_plain.nir", graph)

    def copy(name, libver, **options):
        with h5py.File(HERE / "nir_plain.nir") as source, h5py.File(HERE / f"{name}.nir", "w", libver=libver) as target:
            target.attrs["creator"] = "a test"

            def put(path, item):
                if isinstance(item, h5py.Dataset):
                    data = item[()]
                    big = isinstance(data, np.ndarray) and data.dtype.kind == "f"
                    target.create_dataset(path, data=data, dtype=item.dtype, **(options if big else {}))

            source.visititems(put)

    copy("nir_latest", "latest")
    copy("nir_gzip", "earliest", chunks=True, compression="gzip", shuffle=True)


def main():
    if os.environ.get("PYTHONHASHSEED") != "0":
        sys.exit("make.py: set PYTHONHASHSEED=0")
    for name in sys.argv[1:]:
        {"snntorch": snntorch, "norse": norse, "spikingjelly": spikingjelly, "sinabs": sinabs, "plain": plain}[name]()


if __name__ == "__main__":
    main()
