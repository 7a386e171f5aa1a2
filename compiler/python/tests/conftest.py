"""Models of the repository, and the command `snnc` to compare with: the variable SNNC names it, else it is looked for."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

import snnc

ROOT = Path(__file__).resolve().parents[3]
TALES = ROOT / "examples/models/tales/model.onnx"
GELU = ROOT / "examples/models/wt2-gelu/model.onnx"
SAMPLE = ROOT / "examples/models/tales/sample.txt"
# Few, so that compiling takes a moment.
TOKENS = 512


def command() -> str:
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    found = os.environ.get("SNNC") or str(target / "release/snnc")
    if not Path(found).exists():
        pytest.exit(f"{found} is not there: cargo build --release, or name the command with SNNC=", returncode=2)
    return found


@pytest.fixture(scope="session")
def cli():
    """Runs the command; its standard output."""

    def run(*arguments: object) -> bytes:
        words = [command(), "-q", *map(str, arguments)]
        done = subprocess.run(words, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    return run


@pytest.fixture(scope="session")
def cli_json(cli):
    """What the command prints as JSON, without what says which run it is of."""

    def run(*arguments: object) -> dict:
        return unsigned(json.loads(cli(*arguments, "--json")))

    return run


def unsigned(found: dict) -> dict:
    return {key: value for key, value in found.items() if key != "run"}


@pytest.fixture(scope="session")
def program(tmp_path_factory, cli) -> Path:
    """The tales' model, compiled by the command."""
    path = tmp_path_factory.mktemp("tales") / "tales.snn"
    cli("compile", TALES, "-o", path, "--calibrate", SAMPLE, "--calibration-tokens", TOKENS)
    return path


@pytest.fixture(scope="session")
def model(program) -> snnc.Model:
    return snnc.load(program)


@pytest.fixture(scope="session")
def gelu(tmp_path_factory) -> snnc.Model:
    """The model with GELU, compiled by the module."""
    path = tmp_path_factory.mktemp("gelu") / "gelu.snn"
    return snnc.compile(GELU, path, calibration_tokens=TOKENS)


@pytest.fixture
def ids(model) -> np.ndarray:
    return np.asarray(model.encode(SAMPLE.read_text()[:400])[:32], np.uint32)
