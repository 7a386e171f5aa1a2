"""Adapters, each where its tool is installed."""

from __future__ import annotations

import math

import numpy as np
import pytest

import snnc
from conftest import SAMPLE


class Request:
    """What lm-evaluation-harness asks for."""

    def __init__(self, *args: object) -> None:
        self.args = args


def log_softmax(row: np.ndarray) -> np.ndarray:
    row = row.astype(np.float64)
    return row - row.max() - np.log(np.exp(row - row.max()).sum())


@pytest.fixture
def harness(model):
    pytest.importorskip("lm_eval", exc_type=ImportError)
    from snnc.adapters.lm_eval import SnncLM

    return SnncLM(model, batch_size=2)


def test_the_harness_scores_continuations(harness, model):
    pairs = [("Once upon a", " time"), ("The fox", " ran into the wood"), ("", "The"), ("A king ", "sat")]
    found = harness.loglikelihood([Request(*pair) for pair in pairs], disable_tqdm=True)
    for (context, continuation), (score, greedy) in zip(pairs, found):
        whole = model.encode(context + continuation)
        first = len(model.encode(context.rstrip())) if context else 0
        ids = (model.start_ids if context else [harness.prefix_token_id]) + whole
        logits = model.logits(ids[:-1])
        places = range(len(ids) - len(whole) + first - 1, len(ids) - 1)
        expected = sum(log_softmax(logits[i])[ids[i + 1]] for i in places)
        assert score == pytest.approx(expected, abs=1e-9)
        assert greedy == all(int(logits[i].argmax()) == ids[i + 1] for i in places)


def test_the_harness_scores_whole_texts_and_writes(harness, model):
    text = SAMPLE.read_text()[:3000]
    (found,) = harness.loglikelihood_rolling([Request(text)], disable_tqdm=True)
    ids = model.encode(text)
    assert len(ids) > model.context and found < 0
    # Every token is predicted once: about the perplexity of an evaluation.
    assert 0.5 < math.exp(-found / len(ids)) / model.eval(tokens=np.asarray(ids))["perplexity"] < 2
    asked = {"until": ["."], "max_gen_toks": 12}
    (written,) = harness.generate_until([Request("Once upon a time", asked)], disable_tqdm=True)
    assert written == model.generate("Once upon a time", stop=["."], max_new_tokens=12).text and "." not in written


def test_the_harness_knows_the_model(program):
    pytest.importorskip("lm_eval", exc_type=ImportError)
    import snnc.adapters.lm_eval  # noqa: F401
    from lm_eval.api.registry import get_model

    made = get_model("snnc").create_from_arg_string(f"model={program}", {"batch_size": 1, "device": "cpu"})
    assert made.loglikelihood([Request("a", " b")], disable_tqdm=True)[0][0] < 0


def test_neurobench_counts_as_energy_does(model, ids):
    pytest.importorskip("neurobench", exc_type=ImportError)
    from snnc.adapters import neurobench

    made = neurobench.SnncModel(model)
    batch = np.stack([ids[:16], ids[16:32]])
    assert made(batch).shape == (2, 16, model.vocabulary)
    expected = model.energy(tokens=batch, context=16, windows=2)["neurobench"]
    for metric in neurobench.WORKLOAD:
        one = metric()
        assert one(made, None, (batch, None)) == expected[one.key] == one.compute()
    assert neurobench.Footprint()(made) == expected["footprint"]
    assert neurobench.ConnectionSparsity()(made) == expected["connection_sparsity"]


def test_spikingjelly_has_the_same_spikes(model, ids):
    torch = pytest.importorskip("torch", exc_type=ImportError)
    pytest.importorskip("spikingjelly", exc_type=ImportError)
    from spikingjelly.activation_based import neuron
    from snnc.adapters import spikingjelly

    layer = model.spikes(ids, "h.0.mlp.hidden")["h.0.mlp.hidden"]
    train = spikingjelly.train(layer)
    assert train.shape == (layer.timesteps, layer.tokens, layer.neurons)
    assert (spikingjelly.levels(train, layer).numpy() == layer.levels).all()
    assert (spikingjelly.train(layer, weighted=True).sum(0).numpy() == layer.levels).all()
    same = spikingjelly.compare(train, layer)
    assert same["same"] == 1 and same["level_error"] == 0 and same["spikes"] == len(layer.events)
    # A neuron with a threshold of 1/2 repeats spikes of 1, and hears nothing of -1.
    heard = spikingjelly.feed(neuron.IFNode(v_threshold=0.5, v_reset=0.0), layer)
    assert (heard[0] == (train[0] > 0)).all() and isinstance(heard, torch.Tensor)
