"""Models: what is loaded or compiled, and what can be asked of it."""

from __future__ import annotations

import html
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator, Union

import numpy as np

from . import _snnc
from ._errors import OptionError
from ._options import given, ids_of, with_ids
from ._progress import Progress, telling
from ._results import Result

PathText = Union[str, "os.PathLike[str]"]

# Options of `load` that commands take as well: a command on a model has the model's, unless it is given others.
_SHARED = ("input", "import_tolerance", "architecture", "start")


class _TemporaryFile:
    """A file that lives as long as the process that made it needs it."""

    def __init__(self, suffix: str) -> None:
        self._folder = tempfile.mkdtemp(prefix="snnc-")
        self._process = os.getpid()
        self.path = Path(self._folder) / f"model{suffix}"

    def __del__(self) -> None:
        # A fork uses the file of its parent, and leaves it alone.
        if os.getpid() == self._process:
            self.path.unlink(missing_ok=True)
            try:
                os.rmdir(self._folder)
            except OSError:
                pass


@dataclass(frozen=True)
class Events:
    """Spikes of a layer as columns, ordered by token, then timestep, then neuron."""

    token: np.ndarray
    """u32 [events]: the token's place in the run, from 0."""
    timestep: np.ndarray
    """u16 [events]: the timestep, from 0."""
    neuron: np.ndarray
    """u32 [events]: the neuron's index in its layer."""
    sign: np.ndarray
    """i8 [events]: 1 or -1."""

    def __len__(self) -> int:
        return len(self.token)


@dataclass(frozen=True)
class Layer:
    """What a layer of neurons did in a run."""

    site: str
    """Its place in the network, such as ``h.0.mlp.hidden``."""
    neuron: str
    """The neurons, as the IR spells them."""
    code: str
    """How spikes spell a level: ``binary`` or ``unary``."""
    timesteps: int
    """Timesteps per token."""
    weights: np.ndarray
    """i32 [timesteps]: what a spike of each timestep adds to the level."""
    levels: np.ndarray
    """i32 [tokens, neurons]: the sums of weighted spikes."""
    events: Events

    @property
    def tokens(self) -> int:
        """Tokens of the run."""
        return self.levels.shape[0]

    @property
    def neurons(self) -> int:
        """Neurons of the layer."""
        return self.levels.shape[1]

    @property
    def rate(self) -> float:
        """Spikes per neuron and token."""
        return len(self.events) / max(1, self.levels.size)

    def dense(self) -> np.ndarray:
        """i8 [tokens, timesteps, neurons]: the spikes as -1, 0 and 1."""
        shape = (self.tokens, self.timesteps, self.neurons)
        train = np.zeros(shape, np.int8)
        train[self.events.token, self.events.timestep, self.events.neuron] = self.events.sign
        return train

    def __repr__(self) -> str:
        return (
            f"Layer({self.site!r}, {self.neurons} neurons, {self.code} code, {self.timesteps} timesteps, "
            f"{len(self.events)} spikes in {self.tokens} tokens)"
        )


class Spikes(dict[str, Layer]):
    """Layers by site, in the order of the network."""

    @property
    def total(self) -> int:
        """Spikes of all layers."""
        return sum(len(layer.events) for layer in self.values())

    def __repr__(self) -> str:
        return f"Spikes({len(self)} layers, {self.total} spikes)"


class Generation:
    """A text that is being written: an iterator of its pieces.

    Pieces are whole characters that will not change. ``text``, ``ids`` and ``stopped`` run it to its end.
    """

    def __init__(self, stream: Any, shown: Any) -> None:
        self._stream, self._shown = stream, shown
        self._facts: dict[str, Any] | None = None

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        piece = next(self._stream, None)
        if piece is None:
            self._shown.__exit__(None, None, None)
            raise StopIteration
        return piece

    def _done(self) -> dict[str, Any]:
        if self._facts is None:
            for _ in self:
                pass
            self._facts = json.loads(self._stream.done or "null") or {}
        return self._facts

    @property
    def ids(self) -> np.ndarray:
        """u32 [new tokens]: the ids of the new tokens."""
        return np.asarray(self._done().get("ids", []), np.uint32)

    @property
    def text(self) -> str:
        """The whole new text, without the prompt. Empty where the model has no tokenizer."""
        return self._done().get("text") or ""

    @property
    def stopped(self) -> str | None:
        """Why it ended: ``max-new-tokens``, ``context``, ``end-of-text`` or ``stop``."""
        return self._done().get("stopped")

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt, the start token included."""
        return int(self._done().get("prompt_tokens", 0))

    def cancel(self) -> None:
        """Asks it to stop after this token."""
        self._stream.cancel()

    def __str__(self) -> str:
        return self.text


class Report:
    """A page about a run. A notebook shows it as it is."""

    def __init__(self, core: Any) -> None:
        self._core = core
        self._page: str | None = None

    @property
    def html(self) -> str:
        """The page: one HTML file without anything from a network."""
        if self._page is None:
            self._page = self._core.html()
        return self._page

    @property
    def data(self) -> dict[str, Any]:
        """The same as data: what ``snnc inspect --json`` prints."""
        return json.loads(self._core.json())

    def save(self, path: PathText) -> Path:
        """Writes the page to a file."""
        path = Path(path)
        path.write_text(self.html, encoding="utf-8")
        return path

    def save_figures(self, folder: PathText) -> list[Path]:
        """Writes every figure as SVG, PNG and CSV into a folder; the paths of the files."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        return [Path(path) for path in self._core.figures(Path(folder))]

    def _repr_html_(self) -> str:
        page = html.escape(self.html, quote=True)
        return f'<iframe srcdoc="{page}" width="100%" height="640" style="border:0"></iframe>'

    def __repr__(self) -> str:
        return f"Report({len(self.html) / 1e6:.2f} MB of HTML)"


class Model:
    """A model: a compiled program, or the dense network of an ONNX file or a folder.

    Threads may share one. After ``os.fork`` a child makes its own program from the same weights.
    """

    def __init__(self, core: Any, path: Path, options: dict[str, Any], keeps: Any = None, facts: Any = None) -> None:
        self._core, self._path, self._options, self._keeps = core, path, options, keeps
        self._facts: dict[str, Any] | None = None
        self.compiled: dict[str, Any] | None = facts
        """What ``compile`` found: ``bytes``, ``options``, ``calibration``, ``context``, ``expected_savings``. ``None`` of a model
        that was loaded."""

    # What it is.

    @property
    def path(self) -> Path:
        """The file or folder that it is."""
        return self._path

    @property
    def facts(self) -> dict[str, Any]:
        """What is known of it: ``stage``, ``context``, ``vocabulary``, ``parameters``, ``timesteps``, ``network`` and more."""
        if self._facts is None:
            self._facts = json.loads(self._core.facts())
        return self._facts

    @property
    def vocabulary(self) -> int:
        """Logits per token."""
        return int(self.facts["vocabulary"])

    @property
    def context(self) -> int:
        """Tokens of a sequence, at most."""
        return int(self.facts["context"])

    @property
    def spiking(self) -> bool:
        """Whether it is a compiled program, and not a dense network."""
        return not self.facts["dense"]

    @property
    def start_ids(self) -> list[int]:
        """The ids that stand before every text."""
        return list(self.facts["start"])

    @property
    def end_ids(self) -> list[int]:
        """The ids that end a text."""
        return list(self.facts["end"])

    def save(self, path: PathText) -> Path:
        """Copies the program to a file. Raises ``OptionError`` of a folder."""
        import shutil

        if self._path.is_dir():
            raise OptionError("is a folder; copy it yourself", code="E0701", place=str(self._path))
        return Path(shutil.copyfile(self._path, path))

    # Text and ids.

    def encode(self, text: str, *, start: bool = False) -> list[int]:
        """The ids of a text. ``start``: with the ids that stand before every text.

        Raises ``FileError`` where the model has no tokenizer.
        """
        return self._core.encode(text, start)

    def decode(self, ids: Any) -> str:
        """The text of ids."""
        return self._core.decode(ids_of(ids))

    # Running.

    def logits(self, ids: Any, *, last: bool = False, progress: Progress = None) -> np.ndarray:
        """Raw predictions: the numbers that ``snnc logits`` writes.

        ``ids`` are integers ``[tokens]``, or ``[texts, tokens]``, which are run one by one. They are run as they are, without a
        start token. ``last`` gives the last token's row alone, for less work.

        Returns f32 ``[tokens, vocabulary]``, or ``[texts, tokens, vocabulary]``; with ``last`` f32 ``[vocabulary]``, or
        ``[texts, vocabulary]``. The array is the engine's own memory, not a copy.

        Raises ``OptionError`` of what are no ids, ``RunError`` of ids outside the vocabulary or more than the context.
        """
        ids = ids_of(ids)
        if ids.ndim > 2:
            message = f"has {ids.ndim} dimensions; [tokens] or [texts, tokens] is expected"
            raise OptionError(message, code="E0701", place="ids")
        rows = ids.reshape(1, -1) if ids.ndim == 0 else ids
        if progress is None:
            logits = self._core.logits(rows, last, None)
        else:
            with telling(progress) as told:
                logits = self._core.logits(rows, last, told)
        return logits if ids.ndim == 2 else logits[0]

    def spikes(
        self, ids: Any, sites: str | list[str] | None = None, *, stepped: bool = False, progress: Progress = None
    ) -> Spikes:
        """Every spike of a run, layer by layer.

        ``sites`` selects layers: ``"mlp.hidden"``, ``["h.0", "attention.q"]``; all without it. The spikes are those of the
        stepped program. Levels spell them, so by default the faster collapsed program runs; ``stepped=True`` runs every
        timestep. Both give the same.

        Returns layers by site. Levels are i32 ``[tokens, neurons]``, events are columns.

        Raises ``RunError`` of a dense network, ``OptionError`` of a site that the network does not have.
        """
        ids = ids_of(ids)
        if ids.ndim > 1:
            raise OptionError(f"has {ids.ndim} dimensions; [tokens] is expected", code="E0701", place="ids")
        names = [sites] if isinstance(sites, str) else list(sites or [])
        with telling(progress) as told:
            rows = self._core.spikes(ids.reshape(-1), names, stepped, told)
        layers = Spikes()
        for (site, neuron, code, timesteps, weights), levels, columns in rows:
            weights = np.asarray(weights, np.int32)
            layers[site] = Layer(site, neuron, code, timesteps, weights, levels, Events(*columns))
        return layers

    def export(
        self,
        path: Any,
        to: str,
        *,
        ids: Any = None,
        dialect: str = "nir",
        placement: str = "layers",
        opset: int = 17,
        progress: Progress = None,
    ) -> dict[str, Any]:
        """Writes the program in the format of another tool, as ``snnc export`` does.

        ``to`` is ``"onnx"``, ``"nir"``, ``"sana-fe"`` or ``"npz"``. ``path`` is a file, or for NIR and SANA-FE a folder. ``ids`` are
        tokens to run, ``[tokens]``: ``"npz"`` needs them, and a folder then has spikes as well. ``opset`` is the version of ONNX's
        operators, 17 to 27.

        Returns what was made: the manifest of a folder, or the facts of a file. The format's words are in the documentation.

        Raises ``ExportError`` of a program for which the format has no words.
        """
        rows = None
        if ids is not None:
            rows = ids_of(ids)
            if rows.ndim > 1:
                raise OptionError(f"has {rows.ndim} dimensions; [tokens] is expected", code="E0701", place="ids")
            rows = rows.reshape(-1)
        with telling(progress) as told:
            return json.loads(self._core.export(to, Path(path), rows, dialect, placement, opset, told))

    def generate(self, prompt: Any = "", *, progress: Progress = None, **options: Any) -> Generation:
        """Continues a text, or ids: an iterator of pieces of text.

        Options are those of ``snnc run``, and give the same tokens: ``max_new_tokens`` (40; -1 until the text or the context
        ends), ``temperature`` (0), ``top_k``, ``top_p``, ``min_p``, ``repeat_penalty``, ``repeat_window``, ``seed``, ``stop``
        (a text, or several), ``on_full`` (``"stop"`` or ``"slide"``), ``plain``. A text gets the start token before it, ids
        are continued as they are.

        ``generate(...).text`` is the whole new text, ``.ids`` are its ids, ``.stopped`` says why it ended.
        """
        rows = given(options)
        shown = telling(progress)
        told = shown.__enter__()
        if isinstance(prompt, str):
            return Generation(self._core.generate(prompt, None, rows, told), shown)
        ids = ids_of(prompt)
        if ids.ndim > 1:
            raise OptionError(f"has {ids.ndim} dimensions; [tokens] is expected", code="E0701", place="prompt")
        return Generation(self._core.generate(None, ids.reshape(-1), rows, told), shown)

    # Measuring.

    def _command(self, run: Any, options: dict[str, Any], progress: Progress, first: Any = None) -> Any:
        shared = {name: self._options[name] for name in _SHARED if self._options.get(name) is not None}
        with with_ids({**shared, **options}) as all_options, telling(progress) as told:
            return run(self._path if first is None else first, given(all_options), told)

    def energy(self, *, progress: Progress = None, **options: Any) -> Result:
        """What the model costs on text, dense beside spiking: what ``snnc energy --json`` prints.

        Options are those of ``snnc energy``: ``text`` (a file) or ``tokens`` (a ``.npy`` file, or an array of ids),
        ``firing_rate``, ``context``, ``windows``, ``batch``, ``prices`` (a name or a file, or several), ``threads``, ``stepped``,
        ``interpret``. Energies are picojoules per token, as every key says. ``.to_pandas()`` has a row per phase, block, form
        and price list.

        Raises ``Error`` of a dense network.
        """
        return Result(json.loads(self._command(_snnc.energy, options, progress)))

    def eval(self, *, progress: Progress = None, **options: Any) -> Result:
        """How well the model predicts a text: what ``snnc eval --json`` prints.

        Options are those of ``snnc eval``: ``text`` (a file) or ``tokens`` (a ``.npy`` file, or an array of ids),
        ``reference`` (the dense network to compare with), ``windows``, ``stride``, ``ledger``, ``ledger_tokens``, ``recall``,
        ``threads``, ``stepped``, ``interpret``. Perplexities are per token, divergences are nats per token.
        """
        reference = options.get("reference")
        if isinstance(reference, Model):
            options["reference"] = reference.path
        return Result(json.loads(self._command(_snnc.evaluate, options, progress, [self._path])))

    def report(self, *, progress: Progress = None, **options: Any) -> Report:
        """A page about a run: network, spikes, levels, energy, errors, predictions and IR.

        Options are those of ``snnc report``: ``text``, ``tokens`` (a number, or a ``.npy`` file or an array of ids),
        ``reference``, ``others`` (more programs of the network), ``tune``, ``training``, ``ledger``, ``neuron``, ``prices``,
        ``threads``.
        """
        reference = options.get("reference")
        if isinstance(reference, Model):
            options["reference"] = reference.path
        return Report(self._command(_snnc.report, options, progress))

    def ir(self, stage: str | None = None) -> str:
        """The IR as text, after a pass: what ``snnc show --until`` prints.

        Of a program ``stage`` is ``None`` or ``"collapse"``; of a dense network ``"imported"``, ``"raise"``, ``"simplify"``
        (the default), ``"quantise"`` and so on.
        """
        shared = {name: self._options[name] for name in _SHARED[:3] if self._options.get(name) is not None}
        return _snnc.ir(self._path, stage, given(shared))

    # What it looks like.

    def _rows(self) -> list[tuple[str, str]]:
        facts = self.facts
        low, high = facts["timesteps"]
        rows = [("file", str(self._path)), ("stage", facts["stage"])]
        rows.append(("vocabulary", f"{facts['vocabulary']} tokens"))
        rows.append(("context", f"{facts['context']} tokens"))
        rows.append(("parameters", f"{facts['parameters']:,}".replace(",", " ")))
        if low is not None:
            rows.append(("timesteps", str(low) if low == high else f"{low} to {high}"))
        rows.extend((name, words) for name, words in facts["network"] or [])
        return rows

    def __repr__(self) -> str:
        kind = "spiking" if self.spiking else "dense"
        return f"Model({str(self._path)!r}, {kind}, {self.vocabulary} tokens of vocabulary, context {self.context})"

    def _repr_html_(self) -> str:
        cells = "".join(
            f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
            f"<td style='text-align:left'>{html.escape(words)}</td></tr>"
            for name, words in self._rows()
        )
        kind = "spiking network" if self.spiking else "dense network"
        return f"<b>snnc: a {kind}</b><table>{cells}</table>"
