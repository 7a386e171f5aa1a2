"""Progress of long work: what ``progress=`` may be."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import Any, Callable, Iterator, Union

ProgressCallback = Callable[[int, int, str], Any]
Progress = Union[bool, None, ProgressCallback]

# Seconds between two lines about the same work.
_EVERY = 10.0


class _Bars:
    """A bar of tqdm for each stage."""

    def __init__(self, tqdm: Any) -> None:
        self._tqdm = tqdm
        self._bar: Any = None
        self._stage = ""

    def __call__(self, done: int, total: int, what: str) -> None:
        if total == 0:
            self._tqdm.write(what, file=sys.stderr)
            return
        if what != self._stage or self._bar is None:
            self.close()
            self._stage, self._bar = what, self._tqdm(total=total, desc=what, leave=False, file=sys.stderr)
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class _Lines:
    """A line on standard error for each stage, and one every ten seconds."""

    def __init__(self) -> None:
        self._stage, self._told = "", 0.0

    def __call__(self, done: int, total: int, what: str) -> None:
        if total == 0:
            print(what, file=sys.stderr)
            return
        now = time.monotonic()
        if what != self._stage or now - self._told >= _EVERY:
            self._stage, self._told = what, now
            print(f"{what}: {100 * done // total} % ({done} of {total})", file=sys.stderr)

    def close(self) -> None:
        pass


@contextmanager
def telling(progress: Progress) -> Iterator[ProgressCallback | None]:
    """What the extension module calls: nothing, the caller's function, or bars."""
    if progress is None or progress is False:
        yield None
    elif progress is True:
        try:
            from tqdm.auto import tqdm

            shown: Any = _Bars(tqdm)
        except ImportError:
            shown = _Lines()
        try:
            yield shown
        finally:
            shown.close()
    elif callable(progress):
        yield progress
    else:
        raise TypeError("progress is True, False, or a function of (done, total, what)")


def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a function of the extension module, whose warnings name the line of the caller's caller."""
    return function(*arguments)
