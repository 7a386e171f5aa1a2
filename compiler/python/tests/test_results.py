"""What the module gives is what the command gives."""

from __future__ import annotations

import io
import json
import subprocess
import time

import numpy as np
import pytest

import snnc
from conftest import GELU, SAMPLE, TALES, command, unsigned


def npy(cli, path, ids) -> np.ndarray:
    return np.load(io.BytesIO(cli("logits", path, "--tokens", ",".join(map(str, ids)), "-o", "-")))


def test_logits(cli, model, program, ids):
    expected = npy(cli, program, ids)
    found = model.logits(ids)
    assert found.dtype == np.float32 and found.shape == expected.shape == (len(ids), model.vocabulary)
    assert found.tobytes() == expected.tobytes()
    last = model.logits(ids, last=True)
    assert last.shape == (model.vocabulary,) and last.tobytes() == expected[-1].tobytes()
    both = model.logits(np.stack([ids, ids[::-1]]))
    assert both.shape == (2, *expected.shape) and both[0].tobytes() == expected.tobytes()
    assert both[1].tobytes() == npy(cli, program, ids[::-1]).tobytes()


def test_logits_of_the_dense_network_and_of_another_model(cli, gelu, ids):
    assert snnc.load(TALES).logits(ids).tobytes() == npy(cli, TALES, ids).tobytes()
    some = ids % gelu.vocabulary
    assert gelu.logits(some).tobytes() == npy(cli, gelu.path, some).tobytes()


def test_logits_of_every_kind_of_ids(model, ids):
    expected = model.logits(ids).tobytes()
    for kind in (np.int64, np.int32, np.uint16, np.uint64):
        assert model.logits(ids.astype(kind)).tobytes() == expected
    assert model.logits(ids.tolist()).tobytes() == expected
    assert model.logits(np.repeat(ids, 2)[::2]).tobytes() == expected
    assert model.logits(ids[:1].reshape(())).tobytes() == model.logits(ids[:1]).tobytes()


def test_logits_are_the_engines_own_memory(model, ids):
    logits = model.logits(ids)
    assert logits.flags["C_CONTIGUOUS"] and logits.flags["WRITEABLE"]
    logits[:] = 0
    assert model.logits(ids).any()


def test_compile_as_the_command_does(cli, tmp_path, ids):
    options = {"timesteps": {"all": 4, "mlp.hidden": 5}, "calibrate": SAMPLE, "calibration_tokens": 64}
    ours = snnc.compile(TALES, tmp_path / "ours.snn", **options)
    theirs = tmp_path / "theirs.snn"
    cli("compile", TALES, "-o", theirs, "--timesteps", "4,mlp.hidden=5", "--calibrate", SAMPLE, "--calibration-tokens", 64)
    assert (tmp_path / "ours.snn").read_bytes() == theirs.read_bytes()
    assert ours.compiled["options"].startswith("--timesteps 4,mlp.hidden=5")
    assert ours.logits(ids).tobytes() == npy(cli, theirs, ids).tobytes()


def test_a_temporary_program_lives_as_long_as_its_model(ids):
    model = snnc.compile(TALES, calibrate=SAMPLE, calibration_tokens=64)
    path = model.path
    assert path.exists() and model.logits(ids).any()
    del model
    assert not path.exists()


@pytest.mark.parametrize("stepped", [False, True])
def test_spikes(model, ids, stepped):
    spikes = model.spikes(ids, stepped=stepped)
    assert spikes.total > 0
    for site, layer in spikes.items():
        assert layer.site == site and layer.levels.shape == (len(ids), layer.neurons)
        train = layer.dense().astype(np.int64)
        # The law of spike trains: weighted spikes add up to levels.
        assert (np.einsum("ktn,t->kn", train, layer.weights) == layer.levels).all()
        events = layer.events
        assert (np.abs(train).sum() == len(events)) and set(np.unique(events.sign)) <= {-1, 1}
        order = np.lexsort((events.neuron, events.timestep, events.token))
        assert (order == np.arange(len(events))).all()
        assert events.timestep.max(initial=0) < layer.timesteps == len(layer.weights)


def test_spikes_of_both_forms_are_one(model, ids):
    whole, stepped = model.spikes(ids), model.spikes(ids, stepped=True)
    assert list(whole) == list(stepped)
    for site, layer in whole.items():
        assert (layer.levels == stepped[site].levels).all()
        for name in ("token", "timestep", "neuron", "sign"):
            assert (getattr(layer.events, name) == getattr(stepped[site].events, name)).all()
    some = model.spikes(ids, "mlp.hidden")
    assert set(some) == {site for site in whole if site.endswith("mlp.hidden")}
    assert all((some[site].levels == whole[site].levels).all() for site in some)


def test_spikes_are_those_that_energy_counts(model, tmp_path):
    ids = np.asarray(model.encode(SAMPLE.read_text())[: model.context], np.uint32)
    found = model.eval(tokens=ids, windows=1)
    # What is evaluated is all but the last id.
    assert model.spikes(ids[:-1]).total == found["spikes"]


@pytest.mark.parametrize("extra", [{}, {"windows": 2}, {"windows": 1, "stepped": True}])
def test_energy(cli_json, model, program, extra):
    words = [word for name, value in extra.items() for word in ([f"--{name}"] if value is True else [f"--{name}", value])]
    expected = cli_json("energy", program, "--text", SAMPLE, *words)
    found = model.energy(text=SAMPLE, **extra)
    assert unsigned(found) == expected and found["tokens"] > 0
    rows = found.rows()
    assert rows and all(row["phase"] in ("prefill", "decode") for row in rows)


def test_energy_without_a_text_and_by_one_list(cli_json, model, program):
    assert unsigned(model.energy(prices="int45")) == cli_json("energy", program, "--prices", "int45")
    rate = model.energy(firing_rate="2.5,0.9", prices=["paper45", "int45"])
    assert unsigned(rate) == cli_json(
        "energy", program, "--firing-rate", "2.5,0.9", "--prices", "paper45", "--prices", "int45"
    )
    assert set(rate["prices"]) == {"paper45", "int45"} <= set(snnc.energy.price_lists())
    assert rate["prices"]["int45"] == snnc.energy.price_lists()["int45"]


def test_the_table_of_energy_is_the_commands_csv(cli, model, program):
    import csv

    text = cli("energy", program, "--text", SAMPLE, "--windows", 1, "--format", "csv").decode()
    expected = list(csv.DictReader(io.StringIO(text)))
    found = model.energy(text=SAMPLE, windows=1).rows()
    assert [row["pj_per_token"] for row in found] == [float(row["pj_per_token"]) if row["pj_per_token"] else None for row in expected]
    keys = ("phase", "block", "form", "list")
    assert [tuple(row[key] for key in keys) for row in found] == [tuple(row[key] for key in keys) for row in expected]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_eval(cli_json, model, program):
    words = ["--reference", TALES, "--text", SAMPLE, "--windows", 3]
    found = model.eval(text=SAMPLE, reference=TALES, windows=3)
    assert unsigned(found) == cli_json("eval", program, *words)
    assert found["perplexity"] > 1 and found["kl"] > 0


def test_eval_of_ids_and_of_several_programs(cli_json, model, program, gelu, tmp_path):
    ids = np.asarray(model.encode(SAMPLE.read_text())[:256], np.int64)
    np.save(tmp_path / "ids.npy", ids)
    assert unsigned(model.eval(tokens=ids)) == cli_json("eval", program, "--tokens", tmp_path / "ids.npy")
    several = snnc.eval([program, model], text=SAMPLE, windows=1)
    assert [one["perplexity"] for one in several["programs"]] == [model.eval(text=SAMPLE, windows=1)["perplexity"]] * 2
    assert len(several.rows()) == 2


def test_a_result_can_be_repeated_by_the_command(model, tmp_path):
    found = model.energy(text=SAMPLE, windows=1)
    assert found["run"]["arguments"][0] == "energy"
    (tmp_path / "run.json").write_text(json.dumps(found))
    done = subprocess.run([command(), "verify", str(tmp_path / "run.json")], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.parametrize(
    "options",
    [
        {"max_new_tokens": 24},
        {"max_new_tokens": 24, "temperature": 0.8, "seed": 17, "top_p": 0.95, "repeat_penalty": 1.1},
        {"max_new_tokens": 40, "stop": [".", ","]},
        {"max_new_tokens": 150, "on_full": "slide", "temperature": 1.0, "top_k": 20},
    ],
)
def test_generate_writes_what_run_writes(cli, model, program, options):
    words = []
    for name, value in options.items():
        for one in value if isinstance(value, list) else [value]:
            words += [f"--{name.replace('_', '-')}", one]
    expected = cli("run", program, "--prompt", "Once upon a time", *words).decode()
    writing = model.generate("Once upon a time", **options)
    pieces = list(writing)
    assert "Once upon a time" + "".join(pieces) + "\n" == expected
    assert writing.text == "".join(pieces) and writing.prompt_tokens > 1
    assert 0 < len(writing.ids) <= options["max_new_tokens"]


def test_generate_from_ids_is_generate_from_their_text(model):
    ids = model.encode("Once upon a time", start=True)
    of_text, of_ids = model.generate("Once upon a time"), model.generate(ids)
    assert of_ids.text == of_text.text and (of_ids.ids == of_text.ids).all()
    assert of_ids.stopped == of_text.stopped == "max-new-tokens"
    assert len(model.generate(ids, max_new_tokens=0).ids) == 0
    greedy = [int(np.argmax(model.logits([*ids, *of_ids.ids[:n]], last=True))) for n in range(4)]
    assert greedy == of_ids.ids[:4].tolist()


def test_text_and_ids(model):
    text = "The old fox slept."
    ids = model.encode(text)
    assert model.decode(ids) == text
    assert model.encode(text, start=True) == model.start_ids + ids


def test_ir(cli, model, program):
    assert model.ir() == cli("show", program).decode()
    assert model.ir("collapse") == cli("show", program, "--until", "collapse").decode()
    assert snnc.load(TALES).ir("raise") == cli("show", TALES, "--until", "raise").decode()


def test_report(model, tmp_path):
    report = model.report(text=SAMPLE, tokens=16, reference=TALES)
    page = report.save(tmp_path / "report.html").read_text()
    assert page == report.html and page.lstrip().lower().startswith("<!doctype html")
    assert report.data["title"] == "tales.snn" and len(report.data["predictions"]) == 16
    assert report._repr_html_().startswith("<iframe srcdoc=")
    written = report.save_figures(tmp_path / "figures")
    assert written and all(path.stat().st_size > 0 for path in written)


def test_check_and_what_a_model_says(cli_json, model):
    assert unsigned(snnc.check(GELU)) == cli_json("check", GELU)
    assert "spiking" in repr(model) and "<table>" in model._repr_html_()
    assert model.spiking and not snnc.load(TALES).spiking


def test_tune(cli_json, tmp_path):
    options = {"text": SAMPLE, "windows": 1, "calibration_tokens": 64, "probe_tokens": 16, "budget": "timesteps=4"}
    journal = tmp_path / "tune.jsonl"
    tuned = snnc.tune(TALES, output=tmp_path / "tuned.snn", save=tmp_path / "recipe.toml", resume=journal, **options)
    words = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", value)]
    # What was measured is of the same network, text and options, or the journal is refused.
    assert unsigned(tuned) == cli_json("tune", TALES, *words, "--resume", journal)
    assert tuned.model.spiking and "timesteps" in (tmp_path / "recipe.toml").read_text()
    assert len(tuned.rows()) == len(tuned["points"]) > 1


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_train(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text(SAMPLE.read_text()[:4000])
    start = snnc.compile(TALES, tmp_path / "linear.snn", attention="linear", calibration_tokens=128)
    run = snnc.train(
        start, reference=TALES, text=text, output=tmp_path / "trained.snn", steps=2, batch=1, window_tokens=16, validation_windows=1
    )
    events = list(run)
    assert [event["step"] for event in events if event["kind"] == "step"] == [1, 2]
    assert events[0]["kind"] == "before" and events[-1]["kind"] == "after"
    assert run.outcome["finished"] and run.model.logits([1, 2, 3]).shape == (3, start.vocabulary)


def test_the_facade(model, program, ids):
    auto = snnc.AutoModel.from_pretrained(program)
    batch = np.stack([ids[:8], ids[8:16]]).astype(np.int64)
    logits = auto(batch).logits
    assert logits.shape == (2, 8, model.vocabulary) and (logits[0] == model.logits(ids[:8])).all()
    out = auto.generate(batch, max_new_tokens=5)
    assert out.shape[0] == 2 and (out[:, :8] == batch).all()
    one = model.generate(ids[:8], max_new_tokens=5)
    assert (out[0, 8 : 8 + len(one.ids)] == one.ids).all()
    assert (auto.generate(batch, max_new_tokens=5, do_sample=True, seed=3) != -1).all()
    with pytest.raises(snnc.OptionError, match="attention_mask"):
        auto(batch, attention_mask=np.zeros_like(batch))
    with pytest.raises(snnc.OptionError, match="num_beams"):
        auto.generate(batch, num_beams=4)


def test_overhead(model, capsys):
    """Printed, not judged: a busy machine is none to judge on."""
    ids = np.asarray((model.encode(SAMPLE.read_text()) * 2)[: min(128, model.context)], np.uint32)
    model.logits(ids)
    whole, engine = [], []
    for _ in range(100):
        began = time.perf_counter()
        model.logits(ids)
        whole.append(time.perf_counter() - began)
        engine.append(model._core.engine_seconds(ids))
    whole, engine = min(whole), min(engine)
    assert 0 < engine and 0 < whole
    with capsys.disabled():
        print(f"\nlogits of {len(ids)} tokens: {1e3 * whole:.3f} ms, the engine {1e3 * engine:.3f} ms, {100 * (whole / engine - 1):.1f} % more")


def test_exports_are_the_commands(tmp_path, model, program, cli, ids):
    """Files of the same program are the same bytes, and what is refused is an exception."""
    ids = ids[:8]
    np.save(tmp_path / "ids.npy", ids.astype(np.int32))
    for to, name in [("onnx", "p.onnx"), ("npz", "p.npz")]:
        assert model.export(tmp_path / name, to, ids=ids)
        other = tmp_path / f"c-{name}"
        cli("export", program, "--to", to, "--text", tmp_path / "ids.npy", "-o", other)
        assert (tmp_path / name).read_bytes() == other.read_bytes()
    run = np.load(tmp_path / "p.npz")
    assert np.array_equal(run["logits"], model.logits(ids))
    manifest = model.export(tmp_path / "nir", "nir", dialect="norse")
    assert manifest["islands"] and all((tmp_path / "nir" / island["file"]).exists() for island in manifest["islands"])
    with pytest.raises(snnc.OptionError, match="norse"):
        model.export(tmp_path / "nir", "nir", dialect="norsk")
    with pytest.raises(snnc.ExportError, match="--neuron if"):
        model.export(tmp_path / "chip", "sana-fe")
