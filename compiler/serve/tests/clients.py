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


TASK = """task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {document}
test_split: test
output_type: {kind}
doc_to_text: "{head}"
doc_to_target: "{tail}"
target_delimiter: ""
metric_list:
  - metric: {metric}
"""


def with_harness() -> None:
    """A local document is scored as a whole, as `snnc eval` does it, and its tail behind its head, as `snnc logits` has it."""
    import lm_eval
    import numpy
    from lm_eval.models.openai_completions import LocalCompletionsAPI
    from lm_eval.tasks import TaskManager

    name = openai.OpenAI(base_url=f"{BASE}/v1", api_key="none").models.list().data[0].id
    model = LocalCompletionsAPI(
        base_url=f"{BASE}/v1/completions", model=name, tokenizer_backend="remote", batch_size=2, max_length=256
    )
    text = " ".join(Path(TEXT).read_text(encoding="utf-8").split()[:150])
    cut = text.index(" ", len(text) // 3)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        document = place / "documents.jsonl"
        document.write_text(json.dumps({"text": text, "head": text[:cut], "tail": text[cut:]}) + "\n", encoding="utf-8")
        tail = {"kind": "loglikelihood", "head": "{{head}}", "tail": "{{tail}}", "metric": "perplexity"}
        whole = {"kind": "loglikelihood_rolling", "head": "", "tail": "{{text}}", "metric": "byte_perplexity"}
        for task, words in (("tail", tail), ("whole", whole)):
            yaml = TASK.format(name=task, document=document, **words)
            (place / f"{task}.yaml").write_text(yaml, encoding="utf-8")
        tasks = TaskManager(include_path=str(place), include_defaults=False)
        found = lm_eval.simple_evaluate(model=model, tasks=["tail", "whole"], task_manager=tasks, bootstrap_iters=0)["results"]

        (place / "text.txt").write_text(text, encoding="utf-8")
        evaluated = json.loads(command("eval", PROGRAM, "--text", str(place / "text.txt"), "--json"))
        nats = len(text.encode()) * math.log(found["whole"]["byte_perplexity,none"])
        expected = evaluated["tokens"] * math.log(evaluated["perplexity"])
        assert abs(nats / expected - 1) < 1e-5, (nats, expected)
        print(f"lm-evaluation-harness: a document takes {nats:.6f} nats, by `snnc eval` {expected:.6f}")

        head, ids = len(model.tok_encode(text[:cut])), model.tok_encode(text)
        output = place / "logits.npy"
        command("logits", PROGRAM, "--tokens", ",".join(map(str, ids)), "-o", str(output))
        logits = numpy.load(output).astype(numpy.float64)
    logits -= logits.max(axis=-1, keepdims=True)
    logprobs = logits - numpy.log(numpy.exp(logits).sum(axis=-1, keepdims=True))
    expected = -sum(logprobs[i - 1, ids[i]] for i in range(head, len(ids)))
    nats = math.log(found["tail"]["perplexity,none"])
    assert abs(nats / expected - 1) < 1e-5, (nats, expected)
    print(f"lm-evaluation-harness: its tail takes {nats:.6f} nats, by `snnc logits` {expected:.6f}")


with_openai()
with_harness()
