"""Clients that others wrote, against a server that runs: `clients.py BASE_URL SNNC PROGRAM TEXT`.

The openai package: completions, conversations, streams, probabilities, errors. lm-evaluation-harness: a task of local files, whose
perplexity has to be that of `snnc eval`. `.ci/serve` starts the server and runs this.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path

import openai

BASE, SNNC, PROGRAM, TEXT = sys.argv[1:5]


def command(*words: str) -> str:
    done = subprocess.run([SNNC, *words, "-q"], capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def written(prompt: str, *more: str) -> str:
    text = command("run", PROGRAM, "--prompt", prompt, "-n", "16", *more)
    return text.removeprefix(prompt).removesuffix("\n")


def raises(kind: type[openai.APIStatusError], call, word: str) -> None:
    try:
        call()
    except kind as error:
        assert word in error.message, error.message
        return
    raise AssertionError(f"{kind.__name__} was expected")


def with_openai() -> None:
    client = openai.OpenAI(base_url=f"{BASE}/v1", api_key="none", max_retries=0)
    model = client.models.list().data[0].id
    assert client.models.retrieve(model).id == model
    prompt = "Once upon a time"
    expected = written(prompt)
    asked = {"model": model, "prompt": prompt, "max_tokens": 16, "temperature": 0}
    answer = client.completions.create(**asked)
    assert answer.choices[0].text == expected, (answer.choices[0].text, expected)
    assert answer.usage.completion_tokens == 16
    stream = client.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    pieces = list(stream)
    assert "".join(piece.choices[0].text for piece in pieces if piece.choices) == expected
    assert pieces[-1].usage.completion_tokens == 16

    drawn = client.completions.create(**{**asked, "temperature": 0.8}, seed=7, n=2)
    assert [one.text for one in drawn.choices] == [written(prompt, "--temp", "0.8", "-s", seed) for seed in "78"]

    scored = client.completions.create(**{**asked, "max_tokens": 1}, echo=True, logprobs=3)
    scores = scored.choices[0].logprobs
    assert scores.token_logprobs[0] is None and len(scores.tokens) == len(scores.top_logprobs)
    assert all(3 <= len(top) <= 4 for top in scores.top_logprobs[1:])

    stop = expected[4:7]
    ended = client.completions.create(**asked, stop=stop)
    assert ended.choices[0].text == expected.split(stop)[0] and ended.choices[0].finish_reason == "stop"

    counted = client.completions.create(**asked, extra_body={"snn": True})
    assert counted.choices[0].text == expected
    assert counted.usage.snn["spikes"] == sum(counted.usage.snn["by_site"].values()) > 0

    messages = [{"role": "user", "content": "Who lives in the wood?"}]
    asked = {"model": model, "messages": messages, "max_tokens": 12, "temperature": 0}
    answer = client.chat.completions.create(**asked, logprobs=True, top_logprobs=2)
    text = answer.choices[0].message.content
    assert text and len(answer.choices[0].logprobs.content) == 12
    pieces = list(client.chat.completions.create(**asked, stream=True))
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices) == text

    raises(openai.NotFoundError, lambda: client.completions.create(model="gpt-4", prompt="x"), "gpt-4")
    raises(openai.BadRequestError, lambda: client.completions.create(model=model, prompt="x", n=99), "n:")
    raises(openai.BadRequestError, lambda: client.completions.create(model=model, prompt="word " * 9000), "context")
    tools = [{"type": "function", "function": {"name": "f"}}]
    raises(openai.BadRequestError, lambda: client.chat.completions.create(**asked, tools=tools), "tools")
    print("openai: completions, conversations, streams, probabilities, errors")


def with_harness() -> None:
    """A document of a local task is scored by rolling windows, as the harness does it, and by `snnc eval`."""
    import lm_eval
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    names = [f"local-completions of {BASE}"]
    model = LocalCompletionsAPI(
        base_url=f"{BASE}/v1/completions", model=openai.OpenAI(base_url=f"{BASE}/v1", api_key="none").models.list().data[0].id,
        tokenizer_backend="remote", batch_size=2,
    )
    text = " ".join(Path(TEXT).read_text(encoding="utf-8").split()[:150])
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        document = place / "documents.jsonl"
        rows = [{"head": text[: len(text) // 3], "tail": text[len(text) // 3 :]}]
        document.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        (place / "continue.yaml").write_text(
            "task: continue\ndataset_path: json\ndataset_kwargs:\n  data_files:\n    test: " + str(document) + "\n"
            "test_split: test\noutput_type: loglikelihood\n"
            "doc_to_text: '{{head}}'\ndoc_to_target: '{{tail}}'\ntarget_delimiter: ''\n"
            "metric_list:\n  - metric: perplexity\n    aggregation: perplexity\n    higher_is_better: false\n"
            "  - metric: acc\n    aggregation: mean\n    higher_is_better: true\n",
            encoding="utf-8",
        )
        tasks = lm_eval.tasks.TaskManager(include_path=str(place), include_defaults=False)
        results = lm_eval.simple_evaluate(model=model, tasks=["continue"], task_manager=tasks, bootstrap_iters=0)
        found = math.log(results["results"]["continue"]["perplexity,none"])

    # The harness scores the tail behind the head: the same tokens by the logits of `snnc logits`.
    import numpy

    head, whole = model.tok_encode(rows[0]["head"]), model.tok_encode(text)
    head, tail = head, whole[len(head) :]
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "logits.npy"
        command("logits", PROGRAM, "--tokens", ",".join(map(str, head + tail)), "-o", str(output))
        logits = numpy.load(output).astype(numpy.float64)
    logits -= logits.max(axis=-1, keepdims=True)
    logprobs = logits - numpy.log(numpy.exp(logits).sum(axis=-1, keepdims=True))
    expected = -sum(logprobs[len(head) - 1 + i, id] for i, id in enumerate(tail))
    assert abs(found / expected - 1) < 1e-5, (found, expected)
    print(f"lm-evaluation-harness: {names[0]}: {found:.6f} nats, by `snnc logits` {expected:.6f}")


with_openai()
with_harness()
