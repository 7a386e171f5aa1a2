"""What is done with files: compile, load, tune, train, check."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Iterator

from . import _snnc
from ._errors import FileError, OptionError
from ._model import Model, PathText, _TemporaryFile
from ._options import given, with_ids
from ._progress import Progress, call, telling
from ._results import Result

# Options that a model keeps for commands that take them as well.
_KEPT = ("input", "import_tolerance", "architecture", "start")
# Options of `load`.
_LOAD = (*_KEPT, "context", "threads", "pin", "interpret", "jit", "stepped", "kernel_costs")


def _path(model: Any, what: str = "model") -> Path:
    if isinstance(model, Model):
        return model.path
    try:
        path = Path(model)
    except TypeError:
        raise OptionError(f"is a {type(model).__name__}; name a file", code="E0701", place=what) from None
    if not path.exists():
        raise FileError("does not exist", code="E0101", place=str(path), notes=["name an ONNX file, a folder or a .snn"])
    return path


def load(model: PathText, *, progress: Progress = None, **options: Any) -> Model:
    """Loads a model: a ``.snn``, or the dense network of an ONNX file or of a Hugging Face folder.

    Options: ``threads`` (of one sequence; all cores), ``pin``, ``interpret``, ``stepped``, ``kernel_costs``, ``context`` (in
    tokens, at most the network's), ``start`` (token before a text), ``input``, ``import_tolerance``, ``architecture``. They are
    those of ``snnc run``.

    Raises ``FileError``, ``ModelError``, ``OptionError``.
    """
    path = _path(model)
    with telling(progress) as told:
        core = call(_snnc.load, path, given(options), told, False)
    return Model(core, path, options)


def compile(model: PathText, output: PathText | None = None, *, progress: Progress = None, **options: Any) -> Model:
    """Converts an ONNX file or a Hugging Face folder to a spiking network.

    ``output`` is the ``.snn`` to write; without it the program is in a temporary file that lives as long as the model.

    Options are those of ``snnc compile``, with underscores: ``timesteps`` (``7``, ``"4,mlp.hidden=5"``, or
    ``{"all": 4, "mlp.hidden": 5}``), ``preset``, ``calibrate``, ``calibration_tokens``, ``code``, ``neuron``, ``dense``,
    ``thresholds``, ``attention``, ``weights``, ``rounding``, ``rotate``, ``recipe``, ``tokenizer``, ``context``, ``start``,
    ``threads`` and the others. Their defaults are the command's.

    Raises ``FileError``, ``ModelError``, ``OptionError``. ``Model.compiled`` has what was found.
    """
    path = _path(model)
    keeps = _TemporaryFile(".snn") if output is None else None
    target = keeps.path if keeps is not None else Path(output)  # type: ignore[arg-type]
    with telling(progress) as told:
        facts = json.loads(call(_snnc.compile, path, target, given(options), told))
    kept = {name: options[name] for name in _KEPT if options.get(name) is not None}
    engine = {name: options[name] for name in ("threads",) if options.get(name) is not None}
    core = call(_snnc.load, target, given({**_without_start(kept), **engine}), None, True)
    return Model(core, target, _without_start(kept), keeps, facts)


def _without_start(options: dict[str, Any]) -> dict[str, Any]:
    # A program remembers what stood before a text when it was compiled.
    return {name: value for name, value in options.items() if name != "start"}


def check(model: PathText, **options: Any) -> Result:
    """Whether a model can be compiled, and what network it holds: what ``snnc check --json`` prints."""
    return Result(json.loads(call(_snnc.check, _path(model), given(options), None)))


def eval(models: PathText | Model | Iterable[PathText | Model], *, progress: Progress = None, **options: Any) -> Result:
    """Measures one model, or several programs of one network on the same windows: what ``snnc eval --json`` prints.

    Options are those of ``Model.eval``.
    """
    several = [models] if isinstance(models, (str, Path, Model)) or hasattr(models, "__fspath__") else list(models)  # type: ignore[arg-type]
    if isinstance(options.get("reference"), Model):
        options["reference"] = options["reference"].path
    paths = [_path(model) for model in several]
    with with_ids(options) as all_options, telling(progress) as told:
        return Result(json.loads(call(_snnc.evaluate, paths, given(all_options), told)))


class Tuned(Result):
    """What a tuning run found: ``chosen``, and all ``points`` that were measured."""

    output: Path | None = None

    @property
    def model(self) -> Model:
        """The program of ``output=``. Raises ``OptionError`` where nothing stays within the budget, or no output was named."""
        if self.output is None:
            raise OptionError("was not given to tune", code="E0701", place="output")
        if self.get("chosen") is None:
            raise OptionError("nothing stays within the budget", code="E0701", place="budget")
        return load(self.output)


def tune(model: PathText, *, progress: Progress = None, **options: Any) -> Tuned:
    """Finds the fewest spikes within a budget, site by site: what ``snnc tune --json`` prints.

    Options are those of ``snnc tune``: ``text`` or ``tokens``, ``budget`` (``"perplexity+1%"``, ``"timesteps=4"``), ``minimise``,
    ``windows``, ``calibrate``, ``probe_tokens``, ``output`` (the ``.snn`` to write), ``save`` (a recipe), ``resume``, ``threads``.

    ``chosen`` is ``None`` where nothing stays within the budget. ``.to_pandas()`` has a row per point.
    """
    path = _path(model)
    with with_ids(options) as all_options, telling(progress) as told:
        tuned = Tuned(json.loads(call(_snnc.tune, path, given(all_options), told)))
    tuned.output = Path(options["output"]) if options.get("output") is not None else None
    return tuned


class Training:
    """A training run: an iterator of events, each a dictionary with a ``kind``.

    ``before`` and ``after`` hold the program's figures, ``step`` has ``loss`` (nats per token), ``norm``, ``rate`` and
    ``tokens_per_s``, ``validation`` has a ``loss``. Ctrl-C ends it after the step at hand; its checkpoint has everything then,
    and the same call with ``resume=True`` goes on.
    """

    def __init__(self, stream: Any, output: Path, files: Any, shown: Any) -> None:
        self._stream, self._output, self._files, self._shown = stream, output, files, shown
        self._closed = False

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self

    def __next__(self) -> dict[str, Any]:
        try:
            line = next(self._stream, None)
        except BaseException:
            self._close()
            raise
        if line is None:
            self._close()
            raise StopIteration
        return json.loads(line)

    def _close(self) -> None:
        if not self._closed:
            self._closed = True
            self._files.__exit__(None, None, None)
            self._shown.__exit__(None, None, None)

    def cancel(self) -> None:
        """Asks it to stop after this step, and to keep a checkpoint."""
        self._stream.cancel()

    @property
    def outcome(self) -> dict[str, Any]:
        """How it ended: ``finished``, or ``step``, ``steps`` and ``checkpoint``. Runs it to its end."""
        for _ in self:
            pass
        return json.loads(self._stream.done or "null") or {}

    @property
    def model(self) -> Model:
        """The trained program. Runs the training to its end."""
        if not self.outcome.get("finished"):
            raise OptionError("was stopped before its end; go on with resume=True", code="E0701", place="train")
        return load(self._output)


def train(program: PathText | Model, *, progress: Progress = None, **options: Any) -> Training:
    """Trains a compiled program to predict like its dense network; events as they happen.

    Options are those of ``snnc train``: ``reference``, ``text`` or ``tokens``, ``output`` (all needed), ``parameters``, ``loss``,
    ``steps`` or ``minutes``, ``batch``, ``rate``, ``seed``, ``resume``, ``restart``, ``threads`` and the others.
    """
    path = _path(program, "program")
    if isinstance(options.get("reference"), Model):
        options["reference"] = options["reference"].path
    files = with_ids(options)
    all_options = files.__enter__()
    shown = telling(progress)
    told = shown.__enter__()
    try:
        stream = _snnc.train(path, given(all_options), told)
    except BaseException:
        files.__exit__(None, None, None)
        shown.__exit__(None, None, None)
        raise
    return Training(stream, Path(options["output"]), files, shown)
