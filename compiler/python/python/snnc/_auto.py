"""For programs that use transformers: one line differs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ._commands import compile, load
from ._errors import OptionError
from ._model import Model, PathText
from ._options import ids_of

# Of `generate` in transformers: tokens and candidates where nothing else is asked for.
_NEW_TOKENS, _TOP_K = 20, 50


@dataclass(frozen=True)
class Output:
    """What a call of a model gives."""

    logits: Any
    """f32 [texts, tokens, vocabulary]: a tensor of PyTorch where the ids were one."""

    def __getitem__(self, key: int | str) -> Any:
        return (self.logits,)[key] if isinstance(key, int) else getattr(self, key)


class CausalModel:
    """A model that is called as one of transformers: ``model(ids).logits``, ``model.generate(ids, max_new_tokens=...)``."""

    def __init__(self, model: Model) -> None:
        self.model = model
        """The model itself, with all that can be asked of it."""

    def __call__(self, input_ids: Any, attention_mask: Any = None, **unused: Any) -> Output:
        """Logits of ids ``[tokens]`` or ``[texts, tokens]``; as of ``Model.logits``."""
        _refuse(unused)
        _whole(attention_mask)
        ids = ids_of(input_ids, "input_ids")
        return Output(_as(self.model.logits(ids.reshape(-1, ids.shape[-1])), input_ids))

    forward = __call__

    def generate(
        self,
        input_ids: Any,
        *,
        max_new_tokens: int = _NEW_TOKENS,
        do_sample: bool = False,
        temperature: float = 1.0,
        top_k: int = _TOP_K,
        top_p: float = 1.0,
        repetition_penalty: float = 1.0,
        seed: int = 0,
        pad_token_id: int | None = None,
        attention_mask: Any = None,
        **unused: Any,
    ) -> Any:
        """Ids of the texts with what continues them, ``[texts, tokens]``, as transformers has them.

        Without ``do_sample`` the likeliest token is taken. Text ``n`` uses the seed ``seed + n``. Texts that end before others are
        filled with ``pad_token_id``, without one with the token that ended them.
        """
        _refuse(unused)
        _whole(attention_mask)
        ids = ids_of(input_ids, "input_ids")
        texts = ids.reshape(-1, ids.shape[-1])
        options: dict[str, Any] = {"max_new_tokens": max_new_tokens}
        if do_sample:
            options.update(temperature=temperature, top_k=top_k, top_p=top_p)
        if repetition_penalty != 1.0:
            options.update(repeat_penalty=repetition_penalty, repeat_window=self.model.context)
        ends = self.model.end_ids
        written = []
        for n, text in enumerate(texts):
            done = self.model.generate(text, seed=seed + n, **options)
            new = done.ids
            if done.stopped == "end-of-text" and ends:
                new = np.append(new, np.uint32(ends[0]))
            written.append(np.concatenate([text, new]))
        longest = max(map(len, written))
        pad = pad_token_id if pad_token_id is not None else (ends[0] if ends else 0)
        out = np.full((len(written), longest), pad, np.int64)
        for row, one in zip(out, written):
            row[: len(one)] = one
        return _as(out, input_ids)


class AutoModel:
    """Makes models that are called as those of transformers."""

    @staticmethod
    def from_pretrained(path: PathText, **options: Any) -> CausalModel:
        """A ``.snn`` is loaded; an ONNX file or a folder is compiled, with the options of ``compile``. ``path`` is local."""
        if Path(path).suffix == ".snn":
            return CausalModel(load(path, **options))
        return CausalModel(compile(path, **options))

    @staticmethod
    def from_onnx(path: PathText, **options: Any) -> CausalModel:
        """Compiles an ONNX file."""
        return CausalModel(compile(path, **options))

    @staticmethod
    def from_folder(path: PathText, **options: Any) -> CausalModel:
        """Compiles a Hugging Face folder."""
        return CausalModel(compile(path, **options))


def _refuse(unused: dict[str, Any]) -> None:
    # What asks for nothing is let through, since callers of transformers write it.
    quiet = {"use_cache", "return_dict", "output_attentions", "output_hidden_states", "position_ids", "past_key_values"}
    for name, value in unused.items():
        if not (name in quiet and (value is None or value is False or name in ("use_cache", "return_dict"))):
            raise OptionError("is nothing that a spiking program takes here", code="E0701", place=name)


def _whole(attention_mask: Any) -> None:
    if attention_mask is None:
        return
    if hasattr(attention_mask, "detach"):
        attention_mask = attention_mask.detach().cpu()
    if not np.asarray(attention_mask).all():
        message = "hides tokens; texts of a batch have one length here, so run texts of other lengths one by one"
        raise OptionError(message, code="E0701", place="attention_mask")


def _as(array: np.ndarray, like: Any) -> Any:
    if hasattr(like, "detach"):
        import torch

        return torch.from_numpy(array).to(like.device)
    return array
