"""Threads, forks, Ctrl-C, progress, and whatever is given that cannot be right."""

from __future__ import annotations

import gc
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import snnc
from conftest import GELU, ROOT, SAMPLE, TALES


def test_two_threads_use_one_model(model, ids):
    texts = [np.roll(ids, n)[: 8 + n] for n in range(12)]
    expected = [model.logits(text).tobytes() for text in texts]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            found = list(pool.map(lambda text: model.logits(text).tobytes(), texts))
            assert found == expected
        written = list(pool.map(lambda seed: model.generate("The", max_new_tokens=8, temperature=1, seed=seed).text, range(8)))
    assert written == [model.generate("The", max_new_tokens=8, temperature=1, seed=seed).text for seed in range(8)]


def test_a_fresh_model_is_used_by_two_threads_at_once(program, ids):
    model, expected = snnc.load(program), snnc.load(program, threads=1).logits(ids).tobytes()
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(lambda _: model.logits(ids).tobytes(), range(8))) == {expected}


def test_python_is_free_while_a_model_works(program):
    ticks, done = [], threading.Event()

    def tick():
        while not done.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.005)

    thread = threading.Thread(target=tick)
    thread.start()
    began = time.perf_counter()
    snnc.load(program).eval(text=SAMPLE, windows=8)
    took = time.perf_counter() - began
    done.set()
    thread.join()
    gaps = np.diff([tick for tick in ticks if tick >= began])
    assert len(gaps) > 0 and gaps.max() < max(0.5, took / 2)


def in_child(work) -> tuple[int, bytes]:
    """What a fork writes, and its exit status; a child that hangs is ended, and fails."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(read)
            os.write(write, work())
            status = 0
        finally:
            os._exit(status)
    os.close(write)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            with os.fdopen(read, "rb") as pipe:
                return os.waitstatus_to_exitcode(status), pipe.read()
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(read)
    pytest.fail("the child hangs")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_fork_makes_its_own_threads(program, ids):
    model = snnc.load(program, threads=2)
    expected = model.logits(ids)
    assert in_child(lambda: model.logits(ids).tobytes()[:4096]) == (0, expected.tobytes()[:4096])
    text = model.generate("The", max_new_tokens=6).text
    assert in_child(lambda: model.generate("The", max_new_tokens=6).text.encode()) == (0, text.encode())
    assert model.logits(ids).tobytes() == expected.tobytes()

    def dropped() -> bytes:
        nonlocal model
        model = None
        gc.collect()
        return b"gone"

    assert in_child(dropped) == (0, b"gone")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_fork_while_another_thread_works(program, ids):
    model = snnc.load(program, threads=2)
    expected = model.logits(ids).tobytes()[:64]
    done = threading.Event()

    def busy():
        while not done.is_set():
            model.logits(ids)

    thread = threading.Thread(target=busy)
    thread.start()

    def child() -> bytes:
        try:
            return model.logits(ids).tobytes()[:64]
        except snnc.Error as error:
            return error.code.encode()

    try:
        for _ in range(10):
            status, found = in_child(child)
            assert status == 0 and found in (expected, b"E0601")
    finally:
        done.set()
        thread.join()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_iterator_stays_with_its_process(model):
    writing = model.generate("The", max_new_tokens=40)
    next(writing)

    def child() -> bytes:
        try:
            next(writing)
        except snnc.RunError as error:
            return error.code.encode()
        return b"went on"

    assert in_child(child) == (0, b"E0601")
    assert writing.text


def interrupted(code: str, after: float = 0.6) -> tuple[float, str]:
    """Runs a program, sends it Ctrl-C while it works; the seconds until it ended, and what it printed."""
    text = "import snnc, sys, signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n" + textwrap.dedent(code)
    process = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line == "ready\n", line + process.stdout.read()
    time.sleep(after)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    try:
        rest, _ = process.communicate(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return time.monotonic() - began, rest


def of_nothing() -> float:
    """Seconds that a program takes which does nothing: some hundredths, and more where others take the processors."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    return time.monotonic() - began


INTERRUPTED = {
    "compile": f"snnc.compile({str(GELU)!r}, {{out!r}}, calibration_tokens=1000000)",
    "eval": f"snnc.eval({{program!r}}, text={{text!r}}, threads=1)",
    "energy": f"snnc.load({{program!r}}).energy(text={{text!r}}, windows=100000, threads=1)",
    "tune": f"snnc.tune({str(GELU)!r}, text={{text!r}}, windows=1000)",
    "generate": "list(model.generate('The', max_new_tokens=10**9, on_full='slide', temperature=1))",
}


@pytest.mark.parametrize("what", INTERRUPTED)
def test_ctrl_c_ends_long_work(what, program, tmp_path):
    text = tmp_path / "long.txt"
    text.write_text(SAMPLE.read_text() * 200)
    call = INTERRUPTED[what].format(out=str(tmp_path / "out.snn"), program=str(program), text=str(text))
    code = f"""
        model = snnc.load({str(program)!r})
        print("ready", flush=True)
        try:
            {call}
            print("came to its end")
        except KeyboardInterrupt:
            print("KeyboardInterrupt")
    """
    seconds, printed = interrupted(code)
    assert printed == "KeyboardInterrupt\n" and seconds < max(1, 30 * of_nothing())
    assert not (tmp_path / "out.snn").exists()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_ctrl_c_in_training_keeps_a_checkpoint(tmp_path):
    start, out, text = tmp_path / "linear.snn", tmp_path / "out.snn", tmp_path / "text.txt"
    text.write_text(SAMPLE.read_text()[:4000])
    snnc.compile(TALES, start, attention="linear", calibration_tokens=128)
    options = f"reference={str(TALES)!r}, text={str(text)!r}, output={str(out)!r}, steps=100000, batch=1, window_tokens=16"
    code = f"""
        run = snnc.train({str(start)!r}, {options}, validation_windows=1)
        try:
            for event in run:
                if event["kind"] == "step" and event["step"] == 1:
                    print("ready", flush=True)
        except KeyboardInterrupt:
            print("step" in run.outcome, run.outcome["finished"])
    """
    _, printed = interrupted(code)
    assert printed == "True False\n"
    assert list(tmp_path.glob("out*")) and not out.exists()


def test_progress(program, capsys):
    seen: list[tuple[int, int, str]] = []
    snnc.load(program).eval(text=SAMPLE, windows=4, progress=lambda *row: seen.append(row))
    assert seen and seen[-1][0] == seen[-1][1] > 0 and isinstance(seen[-1][2], str)
    snnc.load(program).eval(text=SAMPLE, windows=4, progress=True)
    assert capsys.readouterr().out == ""
    with pytest.raises(TypeError):
        snnc.load(program, progress="yes")


def test_an_exception_of_progress_is_the_callers(program):
    def fails(*_):
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        snnc.load(program).eval(text=SAMPLE, progress=fails)


HOSTILE_IDS = {
    "negative": [-1],
    "above the vocabulary": [10**6],
    "above 32 bits": [2**40],
    "beyond 64 bits": [2**80],
    "a text": "1,2",
    "bytes": b"12",
    "nothing": [],
    "no array": object(),
    "None": None,
    "floats": [1.0, 2.0],
    "truth": [True, False],
    "ragged": [[1], [1, 2]],
    "texts": ["a", "b"],
    "three dimensions": [[[1]]],
    "no text": np.zeros((0, 4), np.uint32),
    "empty texts": np.zeros((4, 0), np.uint32),
    "too many": [1] * 100_000,
    "complex": [1j],
    "a map": {"ids": 1},
}


@pytest.mark.parametrize("what", HOSTILE_IDS)
def test_hostile_ids(model, what):
    ids = HOSTILE_IDS[what]
    calls = [model.logits, model.spikes]
    if what != "too many":
        # Windows of any number of tokens are evaluated.
        calls.append(lambda ids: model.eval(tokens=ids))
    for call in calls:
        with pytest.raises(snnc.Error) as told:
            call(ids)
        assert told.value.code.startswith("E0") and str(told.value)
    if not isinstance(ids, (str, bytes)):
        with pytest.raises(snnc.Error):
            _ = model.generate(ids).text
    assert model.logits([1, 2]).shape == (2, model.vocabulary)


HOSTILE_OPTIONS = {
    "unknown": ({"timestep": 4}, "timesteps"),
    "a value that is none": ({"timesteps": 0}, "timesteps"),
    "a text of nothing": ({"timesteps": ""}, "timesteps"),
    "a flag for a value": ({"timesteps": True}, "timesteps"),
    "an object": ({"timesteps": object()}, "timesteps"),
    "two of one kind": ({"preset": "frugal", "timesteps": 3}, "preset"),
    "a preset that is none": ({"preset": "fast"}, "frugal"),
    "a site that is none": ({"timesteps": {"all": 4, "nowhere": 3}}, "nowhere"),
    "tokens that are none": ({"calibration_tokens": -1}, "calibration_tokens"),
    "a file that is none": ({"calibrate": "nowhere.txt"}, "nowhere.txt"),
    "threads that are none": ({"threads": 0}, "threads"),
    "a context too long": ({"context": 10**6}, "context"),
    "the model itself": ({"calibrate": TALES}, ""),
    "NUL": ({"calibrate": "a\0b"}, ""),
}


@pytest.mark.parametrize("what", HOSTILE_OPTIONS)
def test_hostile_options(tmp_path, what):
    options, named = HOSTILE_OPTIONS[what]
    with pytest.raises(snnc.Error) as told:
        snnc.compile(TALES, tmp_path / "out.snn", **{"calibration_tokens": 16, **options})
    assert named in str(told.value)
    assert not (tmp_path / "out.snn").exists()


def test_an_option_that_is_near_is_suggested(model):
    with pytest.raises(snnc.OptionError, match="did you mean `windows`") as told:
        model.energy(window=3)
    assert told.value.place == "window" and told.value.code == "E0701"
    assert isinstance(told.value, ValueError)
    with pytest.raises(snnc.OptionError, match="did you mean `max_new_tokens`"):
        model.generate("a", max_tokens=3)


def test_hostile_files(tmp_path, program):
    whole = program.read_bytes()
    for name, content in {
        "truncated": whole[: len(whole) // 2],
        "short": whole[:10],
        "empty": b"",
        "noise": bytes(range(256)) * 64,
        "turned": whole[:2000] + bytes([whole[2000] ^ 0xFF]) + whole[2001:],
    }.items():
        path = tmp_path / f"{name}.snn"
        path.write_bytes(content)
        with pytest.raises(snnc.Error) as told:
            snnc.load(path)
        assert name in str(told.value)
        assert pickle.loads(pickle.dumps(told.value)).diagnostics == told.value.diagnostics
    onnx = tmp_path / "truncated.onnx"
    onnx.write_bytes(TALES.read_bytes()[:5000])
    for call in (snnc.load, snnc.compile):
        with pytest.raises(snnc.Error):
            call(onnx)
    with pytest.raises(snnc.FileError) as missing:
        snnc.load(tmp_path / "nothing.snn")
    assert missing.value.code == "E0101" and missing.value.notes
    for wrong in (None, 3, object()):
        with pytest.raises(snnc.OptionError):
            snnc.load(wrong)
    with pytest.raises(snnc.Error):
        snnc.load(tmp_path)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("folder", sorted(path.name for path in (ROOT / "tests/inputs/bugs").iterdir() if path.is_dir()) or ["none"])
def test_folders_that_once_broke_something(folder):
    path = ROOT / "tests/inputs/bugs" / folder
    try:
        snnc.compile(path, calibration_tokens=16)
    except snnc.Error as error:
        assert error.diagnostics and str(error)


def test_a_program_does_not_replace_its_model(tmp_path):
    copy = tmp_path / "model.onnx"
    copy.write_bytes(TALES.read_bytes())
    with pytest.raises(snnc.Error):
        snnc.compile(copy, copy, calibration_tokens=16)
    assert copy.read_bytes() == TALES.read_bytes()


def test_what_a_dense_network_cannot(tmp_path):
    dense = snnc.load(TALES)
    with pytest.raises(snnc.RunError):
        dense.spikes([1])
    with pytest.raises(snnc.Error):
        dense.energy()
    with pytest.raises(snnc.OptionError):
        snnc.load(TALES, context=10**5)


def test_a_model_without_a_tokenizer(tmp_path, ids):
    alone = tmp_path / "model.onnx"
    alone.write_bytes(TALES.read_bytes())
    with pytest.warns(UserWarning, match="seeded random ids"):
        model = snnc.compile(alone, tmp_path / "model.snn", calibration_tokens=64)
    with pytest.raises(snnc.Error, match="tokenizer"):
        model.encode("text")
    with pytest.raises(snnc.Error, match="tokenizer"):
        _ = model.generate("text").text
    new = model.generate(ids, max_new_tokens=5).ids
    assert len(new) == 5
    assert int(np.argmax(model.logits(ids, last=True))) == int(new[0])
