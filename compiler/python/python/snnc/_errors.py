"""Exceptions: one class for each family of error codes (docs/errors.md)."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Diagnostic:
    """One thing that is wrong: a stable code, a place, what was found, and what to do."""

    code: str
    """Such as ``E0101``; ``E0000`` where no code is given."""
    place: str
    """An option, a file, a node of a graph; empty where it is nowhere in particular."""
    message: str
    """What was found and what was expected."""
    notes: tuple[str, ...] = field(default=())
    """Lines that say what to do."""

    def __str__(self) -> str:
        first = f"{self.place}: {self.message}" if self.place else self.message
        code = f"[{self.code}] " if self.code != "E0000" else ""
        return "\n  ".join([code + first, *self.notes])


class Error(Exception):
    """Something that snnc refuses or cannot do. All exceptions of this package are of this class."""

    def __init__(
        self,
        message: str = "",
        *,
        code: str = "E0000",
        place: str = "",
        notes: tuple[str, ...] | list[str] = (),
        diagnostics: tuple[Diagnostic, ...] | None = None,
    ) -> None:
        if diagnostics is None:
            diagnostics = (Diagnostic(code, place, message, tuple(notes)),)
        self.diagnostics: tuple[Diagnostic, ...] = diagnostics
        """All that is wrong, in the order in which it was found."""
        super().__init__("\n".join(str(one) for one in diagnostics))

    @property
    def _first(self) -> Diagnostic:
        return self.diagnostics[0]

    @property
    def code(self) -> str:
        """The code of the first diagnostic."""
        return self._first.code

    @property
    def place(self) -> str:
        """The place of the first diagnostic."""
        return self._first.place

    @property
    def notes(self) -> tuple[str, ...]:
        """What to do about the first diagnostic."""
        return self._first.notes

    def __reduce__(self):
        return (_again, (type(self), self.diagnostics))


def _again(kind: type[Error], diagnostics: tuple[Diagnostic, ...]) -> Error:
    return kind(diagnostics=diagnostics)


class FileError(Error):
    """E01xx: a file cannot be read or written, is damaged, or does not fit."""


class ModelError(Error):
    """E02xx and E05xx: a network that cannot be imported or converted."""


class ProgramError(Error):
    """E03xx and E04xx: a program that breaks a rule of the IR."""


class RunError(Error):
    """E06xx: ids, a context or memory with which a program cannot run."""


class OptionError(Error, ValueError):
    """E0701: an option that does not exist, or a value that it does not take."""


class TrainingError(Error):
    """E0702: training or tuning cannot go on."""


class ExportError(Error):
    """E0703: the format of another tool has no words for a program."""


_FAMILIES: dict[str, type[Error]] = {
    "E01": FileError,
    "E02": ModelError,
    "E03": ProgramError,
    "E04": ProgramError,
    "E05": ModelError,
    "E06": RunError,
    "E0701": OptionError,
    "E0702": TrainingError,
    "E0703": ExportError,
}


def error_of(rows: list[tuple[str, str, str, list[str]]]) -> Error:
    """The exception of diagnostics as the extension module gives them: code, place, message, notes."""
    diagnostics = tuple(Diagnostic(code, place, message, tuple(notes)) for code, place, message, notes in rows)
    first = diagnostics[0].code if diagnostics else "E0000"
    kind = _FAMILIES.get(first) or _FAMILIES.get(first[:3]) or Error
    return kind(diagnostics=diagnostics or (Diagnostic("E0000", "", "something is wrong and nobody said what"),))
