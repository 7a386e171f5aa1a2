"""snnc: a compiler from language models to spiking neural networks.

>>> import snnc
>>> model = snnc.compile("model.onnx", timesteps=7)
>>> model.logits([5, 17, 9])                        # f32 [tokens, vocabulary]
>>> print(model.generate("The river", max_new_tokens=40).text)
>>> model.spikes([5, 17, 9])["h.0.mlp.hidden"].events.neuron
>>> model.energy(text="test.txt").to_pandas()

Functions have the options of the command of the same name, with underscores instead of dashes. Python is free for other
threads while they work, and Ctrl-C ends them.
"""

from . import energy
from ._auto import AutoModel, CausalModel, Output
from ._commands import Training, Tuned, check, compile, eval, load, train, tune
from ._errors import (
    Diagnostic,
    Error,
    ExportError,
    FileError,
    ModelError,
    OptionError,
    ProgramError,
    RunError,
    TrainingError,
)
from ._model import Events, Generation, Layer, Model, Report, Spikes
from ._results import Result
from ._snnc import __version__

__all__ = [
    "AutoModel",
    "CausalModel",
    "Diagnostic",
    "Error",
    "Events",
    "ExportError",
    "FileError",
    "Generation",
    "Layer",
    "Model",
    "ModelError",
    "OptionError",
    "Output",
    "ProgramError",
    "Report",
    "Result",
    "RunError",
    "Spikes",
    "Training",
    "TrainingError",
    "Tuned",
    "__version__",
    "check",
    "compile",
    "energy",
    "eval",
    "load",
    "train",
    "tune",
]
