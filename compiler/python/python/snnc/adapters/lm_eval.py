"""lm-evaluation-harness: the model ``snnc``.

>>> import lm_eval, snnc.adapters.lm_eval
>>> lm_eval.simple_evaluate(model="snnc", model_args="model=model.snn", tasks=["lambada_openai"])

Texts are read as the harness has them: what stands before every text of the model, such as a start token, is put before every
context. A text longer than the context loses its beginning.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from lm_eval import utils
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model

from .._commands import _path, load
from .._model import Model

# Of the harness: new tokens where a task names no number.
_NEW_TOKENS = 256


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    logits = logits.astype(np.float64)
    top = logits.max(axis=-1, keepdims=True)
    return logits - top - np.log(np.exp(logits - top).sum(axis=-1, keepdims=True))


@register_model("snnc")
class SnncLM(LM):
    """A model of snnc in lm-evaluation-harness.

    ``model``: a ``.snn``, an ONNX file, a folder, or a ``Model``. Other arguments are those of ``snnc.load``. ``batch_size`` is
    the number of requests that run at once, each on ``threads`` threads.
    """

    def __init__(self, model: Any, batch_size: int | str = 1, max_length: int | None = None, **options: Any) -> None:
        super().__init__()
        for ignored in ("device", "max_batch_size"):
            options.pop(ignored, None)
        batch = 1 if str(batch_size).startswith("auto") else max(1, int(batch_size))
        options.setdefault("threads", max(1, (os.cpu_count() or 1) // batch))
        self.model: Model = model if isinstance(model, Model) else load(_path(model), **options)
        self._batch = batch
        self._longest = min(max_length or self.model.context, self.model.context)

    @property
    def tokenizer_name(self) -> str:
        return str(self.model.path).replace("/", "__")

    @property
    def eot_token_id(self) -> int:
        """The id that ends a text."""
        ends, starts = self.model.end_ids, self.model.start_ids
        return (ends or starts or [0])[0]

    @property
    def prefix_token_id(self) -> int:
        """The id before a text that has no context."""
        return (self.model.start_ids or [self.eot_token_id])[-1]

    def tok_encode(self, text: str, **_: Any) -> list[int]:
        """The ids of a text."""
        return self.model.encode(text)

    def _pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        # A space belongs to the word behind it, as the tokenizer has it.
        spaces = len(context) - len(context.rstrip())
        if spaces:
            continuation, context = context[-spaces:] + continuation, context[:-spaces]
        if not context:
            return [self.prefix_token_id], self.tok_encode(continuation)
        whole, first = self.tok_encode(context + continuation), self.tok_encode(context)
        return self.model.start_ids + first, whole[len(first) :]

    def _score(self, pair: tuple[list[int], list[int]]) -> tuple[float, bool]:
        """The log likelihood of ids behind others, in nats, and whether each was the likeliest."""
        context, continuation = pair
        if not continuation:
            return 0.0, True
        inputs = (context + continuation)[:-1][-self._longest :]
        continuation = continuation[-len(inputs) :]
        scores = _log_softmax(self.model.logits(inputs)[-len(continuation) :])
        rows = np.arange(len(continuation))
        return float(scores[rows, continuation].sum()), bool((scores.argmax(axis=-1) == continuation).all())

    def _each(self, work: Any, items: list[Any], quiet: bool) -> list[Any]:
        from tqdm import tqdm

        with ThreadPoolExecutor(self._batch) as pool:
            return list(tqdm(pool.map(work, items), total=len(items), disable=quiet))

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Log likelihoods of continuations in nats, and whether each is the greedy one."""

        def score(request: Any) -> tuple[float, bool]:
            found = self._score(self._pair(*request.args))
            self.cache_hook.add_partial("loglikelihood", request.args, found)
            return found

        return self._each(score, requests, disable_tqdm)

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """Log likelihoods of whole texts in nats, in windows of the context's length."""

        def score(request: Any) -> float:
            (text,) = request.args
            windows = utils.get_rolling_token_windows(
                token_list=self.tok_encode(text),
                prefix_token=self.prefix_token_id,
                max_seq_len=self._longest,
                context_len=1,
            )
            found = sum(self._score(utils.make_disjoint_window(window))[0] for window in windows)
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, found)
            return found

        return self._each(score, requests, disable_tqdm)

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """What continues contexts, up to one of the stop texts."""

        def write(request: Any) -> str:
            context, asked = request.args
            until = asked.get("until") or []
            stop = [until] if isinstance(until, str) else list(until)
            most = int(asked.get("max_gen_toks", asked.get("max_new_tokens", _NEW_TOKENS)))
            most = max(0, min(most, self._longest - 1))
            options: dict[str, Any] = {"stop": [one for one in stop if one], "max_new_tokens": most}
            if asked.get("do_sample"):
                names = ("temperature", "top_k", "top_p", "seed")
                options.update({name: asked[name] for name in names if asked.get(name) is not None})
            ids = self.model.start_ids + self.tok_encode(context)
            found = self.model.generate(ids[-(self._longest - most) :] or [self.prefix_token_id], **options).text
            self.cache_hook.add_partial("generate_until", request.args, found)
            return found

        return self._each(write, requests, disable_tqdm)
