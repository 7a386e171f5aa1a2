"""Options of Python as the command line writes them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator

import numpy as np

from ._errors import OptionError

Given = list[tuple[str, "str | None"]]

# Options of which every value is given on its own. Other lists are joined by commas.
_REPEATED = {"input", "prices", "stop", "others"}


def _text(name: str, value: Any) -> str:
    if isinstance(value, (str, os.PathLike)):
        return os.fspath(value)
    if isinstance(value, (bool, np.bool_)):
        raise OptionError("takes a value, not True or False", code="E0701", place=name)
    if isinstance(value, (int, np.integer)):
        return str(int(value))
    if isinstance(value, (float, np.floating)):
        return repr(float(value))
    raise OptionError(f"is a {type(value).__name__}; write a text or a number", code="E0701", place=name)


def given(options: Mapping[str, Any]) -> Given:
    """Names with texts. ``None`` and ``False`` are options that are not given; ``True`` is a flag.

    A list is joined by commas, or repeats the option. A mapping is ``site=value`` by commas; its key ``""`` or ``"all"`` is the
    value of every other site.
    """
    rows: Given = []
    for name, value in options.items():
        if value is None or value is False:
            continue
        if value is True or isinstance(value, np.bool_):
            if value:
                rows.append((name, None))
            continue
        if isinstance(value, Mapping):
            words = [
                _text(name, one) if key in ("", "all") else f"{key}={_text(name, one)}" for key, one in value.items()
            ]
        elif isinstance(value, (list, tuple, set, frozenset)):
            words = [_text(name, one) for one in value]
        else:
            rows.append((name, _text(name, value)))
            continue
        if name in _REPEATED:
            rows.extend((name, word) for word in words)
        elif words:
            rows.append((name, ",".join(words)))
    return rows


def ids_of(ids: Any, what: str = "ids") -> np.ndarray:
    """Token ids as an array of u32: no copy of an array that is one already.

    Raises ``OptionError`` where there are none, or something that is no id.
    """

    def wrong(message: str, *notes: str) -> OptionError:
        return OptionError(message, code="E0701", place=what, notes=notes)

    if isinstance(ids, (str, bytes)):
        raise wrong("is a text, not token ids", "model.encode(text) gives the ids of a text")
    if hasattr(ids, "detach"):
        # A tensor of PyTorch, on whatever device.
        ids = ids.detach().cpu()
    try:
        array = np.asarray(ids)
    except (TypeError, ValueError) as error:
        raise wrong(f"cannot be read as an array of token ids: {error}") from None
    if array.size == 0:
        raise wrong("holds no token ids")
    if array.dtype.kind not in "iu":
        raise wrong(f"has the dtype {array.dtype}; token ids are integers")
    if array.dtype != np.uint32:
        least, most = int(array.min()), int(array.max())
        if least < 0:
            raise wrong(f"holds {least}; a token id is 0 or more")
        if most > 0xFFFFFFFF:
            raise wrong(f"holds {most}, which is no token id of any vocabulary")
    return np.ascontiguousarray(array, dtype=np.uint32)


@contextmanager
def with_ids(options: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The options with ``tokens`` in a file where they are an array."""
    tokens = options.get("tokens")
    if tokens is None or isinstance(tokens, (str, os.PathLike, int, np.integer)):
        yield options
        return
    array = ids_of(tokens, "tokens")
    if array.ndim > 2:
        raise OptionError(f"has {array.ndim} dimensions; [n] or [texts, n] is expected", code="E0701", place="tokens")
    with tempfile.TemporaryDirectory(prefix="snnc-") as folder:
        path = Path(folder) / "tokens.npy"
        np.save(path, array)
        yield {**options, "tokens": path}
