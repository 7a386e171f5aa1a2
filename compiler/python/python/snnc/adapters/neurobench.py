"""NeuroBench: its metrics of a model, as ``snnc energy --json`` counts them.

>>> from neurobench.benchmarks import Benchmark
>>> from snnc.adapters.neurobench import STATIC, WORKLOAD, SnncModel
>>> benchmark = Benchmark(SnncModel(model), loader, [], [], [STATIC, WORKLOAD])
>>> benchmark.run()

NeuroBench counts with hooks in PyTorch modules, of which a program of snnc has none. So the classes here have NeuroBench's
names and interfaces, and the counts of snnc.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from neurobench.metrics.abstract import AccumulatedMetric, StaticMetric
from neurobench.models import NeuroBenchModel

from .._model import Model


def metrics(model: Model, **options: Any) -> dict[str, Any]:
    """All metrics under NeuroBench's names, per token: the key ``neurobench`` of ``model.energy(**options)``."""
    return dict(model.energy(**options)["neurobench"])


class _NoModules:
    """A network without modules, so that NeuroBench places no hooks."""

    def children(self) -> Any:
        return iter(())

    def named_children(self) -> Any:
        return iter(())

    def parameters(self) -> Any:
        return iter(())

    def buffers(self) -> Any:
        return iter(())

    def eval(self) -> _NoModules:
        return self


class SnncModel(NeuroBenchModel):
    """A model of snnc in NeuroBench: a batch of ids ``[texts, tokens]`` in, f32 logits ``[texts, tokens, vocabulary]`` out."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model
        self._facts: dict[str, Any] | None = None

    def __call__(self, batch: Any) -> Any:
        from .._auto import CausalModel

        return CausalModel(self.model)(batch).logits

    def __net__(self) -> _NoModules:
        return _NoModules()

    def static(self) -> dict[str, Any]:
        """Metrics that depend on no input."""
        if self._facts is None:
            self._facts = metrics(self.model)
        return self._facts


class Footprint(StaticMetric):
    """Bytes of all constants."""

    def __call__(self, model: SnncModel) -> float:
        return model.static()["footprint"]


class ConnectionSparsity(StaticMetric):
    """The share of weights that are 0."""

    def __call__(self, model: SnncModel) -> float:
        return model.static()["connection_sparsity"]


class _PerToken(AccumulatedMetric):
    """The mean over the tokens of all batches."""

    key = ""

    def __init__(self) -> None:
        super().__init__(requires_hooks=False)
        self.reset()

    def reset(self) -> None:
        """Forgets all batches."""
        self._means: Any = None
        self._tokens = 0

    def __call__(self, model: SnncModel, preds: Any, data: Any) -> Any:
        ids = data[0]
        ids = np.asarray(ids.detach().cpu() if hasattr(ids, "detach") else ids)
        ids = ids.reshape(-1, ids.shape[-1])
        found = model.model.energy(tokens=ids, context=ids.shape[-1], windows=len(ids))
        value, tokens = found["neurobench"][self.key], found["tokens"]
        fields = value if isinstance(value, dict) else {"": value}
        self._tokens += tokens
        share = tokens / self._tokens
        means = self._means or dict.fromkeys(fields, 0.0)
        self._means = {name: means[name] + share * (one - means[name]) for name, one in fields.items()}
        return self.compute()

    def compute(self) -> Any:
        """The metric so far."""
        if self._means is None:
            return 0.0
        return dict(self._means) if "" not in self._means else self._means[""]


class ActivationSparsity(_PerToken):
    """The share of neurons and timesteps without a spike."""

    key = "activation_sparsity"


class SynapticOperations(_PerToken):
    """``Effective_MACs``, ``Effective_ACs`` and ``Dense``, each per token."""

    key = "synaptic_operations"


class MembraneUpdates(_PerToken):
    """Updates of membrane potentials per token."""

    key = "membrane_updates"


STATIC = [Footprint, ConnectionSparsity]
"""The metrics that depend on no input."""

WORKLOAD = [ActivationSparsity, SynapticOperations, MembraneUpdates]
"""The metrics of a run."""
