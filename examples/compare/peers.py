"""One engine that people run a GPT-2 with, in a process of its own, so that it can fail alone: `compare.py` starts it, writes
questions as lines of JSON to its standard input, and reads the answers.

Every engine computes the same thing: logits of the last token only, keys and values kept. Files that it needs are made from
the ONNX beside it when they are not there. A figure is of one run behind one that warms up, as in `snnc bench --repeats 1`.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

CONTEXT = 1024


class Onnxruntime:
    """The network of `with_past`."""

    def __init__(self, source, heads, threads):
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self.value = ort.OrtValue.ortvalue_from_numpy
        self.session = ort.InferenceSession(self.file(source, heads), options, providers=["CPUExecutionProvider"])
        self.past = [i.name for i in self.session.get_inputs() if "past" in i.name]
        self.outputs = ["logits", *(o.name for o in self.session.get_outputs() if "present" in o.name)]
        self.empty = self.value(np.zeros((1, heads, 0, self.session.get_inputs()[-1].shape[-1]), np.float32))

    def file(self, source, heads):
        return dense_file(source, heads, "onnxruntime")

    def reset(self):
        self.state = [self.empty] * len(self.past)

    def forward(self, ids, at):
        tokens, places, mask = (self.value(array) for array in inputs(ids, at))
        feeds = {"input_ids": tokens, "position_ids": places, "mask": mask} | dict(zip(self.past, self.state))
        # Values stay in the engine's own memory.
        logits, *self.state = self.session.run_with_ort_values(self.outputs, feeds)
        return logits.numpy().reshape(-1)


class OnnxruntimeInt8(Onnxruntime):
    """The same in dynamic int8."""

    def file(self, source, heads):
        from onnxruntime.quantization import QuantType, quantize_dynamic

        dense = dense_file(source, heads, "onnxruntime")
        settings = {"weight_type": QuantType.QInt8, "use_external_data_format": True}
        return made(Path(source).with_suffix(".int8.onnx"), lambda path: quantize_dynamic(dense, path, **settings))


class Tract:
    """The network of `with_past`; the Python package has no setting for threads, it runs on one."""

    def __init__(self, source, heads, threads):
        import tract

        model = tract.onnx().load(dense_file(source, heads, "tract"))
        # Shapes of outputs are inferred: declared ones name sizes in other words.
        for output in range(model.output_count()):
            model.set_output_fact(output, None)
        typed = model.into_model()
        self.empty = np.zeros((1, heads, 0, int(typed.input_fact(3).dim(3))), np.float32)
        self.count = typed.input_count() - 3
        self.model = typed.into_runnable()

    def reset(self):
        self.state = [self.empty] * self.count

    def forward(self, ids, at):
        logits, *self.state = self.model.run([*inputs(ids, at), *self.state])
        return logits.to_numpy().reshape(-1)


class Llama:
    """llama.cpp, Q8_0."""

    def __init__(self, source, heads, threads):
        import llama_cpp
        from to_gguf import to_gguf

        path = made(Path(source).with_suffix(".q8_0.gguf"), lambda path: to_gguf(source, path, heads))
        self.api = llama_cpp
        llama_cpp.llama_backend_init()
        self.model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
        settings = llama_cpp.llama_context_default_params()
        settings.n_ctx = settings.n_batch = CONTEXT
        settings.n_threads = settings.n_threads_batch = threads
        self.context = llama_cpp.llama_init_from_model(self.model, settings)
        self.vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))

    def reset(self):
        self.api.llama_memory_clear(self.api.llama_get_memory(self.context), True)

    def forward(self, ids, at):
        tokens = (self.api.llama_token * len(ids))(*ids)
        if self.api.llama_decode(self.context, self.api.llama_batch_get_one(tokens, len(ids))) != 0:
            raise RuntimeError("llama_decode failed")
        return np.ctypeslib.as_array(self.api.llama_get_logits_ith(self.context, -1), (self.vocabulary,))


ENGINES = {"onnxruntime int8": OnnxruntimeInt8, "onnxruntime f32": Onnxruntime, "tract f32": Tract, "llama.cpp Q8_0": Llama}


def dense_file(source, heads, kind):
    """The network of `with_past`. Its weights lie beside it, for protobuf ends at 2 GB."""
    import onnx
    from with_past import with_past

    def save(path):
        model = with_past(source, heads, power=kind == "onnxruntime")
        onnx.save(model, path, save_as_external_data=True, location=f"{path.name}.data")

    return made(Path(source).with_suffix(f".{kind}.onnx"), save)


def made(path, make):
    """The path, where it is made if nothing is there; elsewhere first, for half a file is no file."""
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            make(Path(folder) / path.name)
            for file in sorted(Path(folder).iterdir(), key=lambda file: file.name == path.name):
                file.rename(path.parent / file.name)
    return str(path)


def inputs(ids, at):
    whole = at + len(ids)
    seen = np.arange(whole)[None] <= np.arange(at, whole)[:, None]
    mask = np.where(seen, np.float32(0), np.float32(-np.inf))
    return np.array([ids], np.int64), np.arange(at, whole, dtype=np.int64)[None], mask


def prefill(engine, ids):
    for _ in range(2):
        engine.reset()
        start = time.perf_counter()
        engine.forward(ids, 0)
        taken = time.perf_counter() - start
    return taken


def decode(engine, ids, depth):
    for _ in range(2):
        engine.reset()
        engine.forward(ids[:depth], 0)
        start = time.perf_counter()
        for at in range(depth, len(ids)):
            engine.forward(ids[at : at + 1], at)
        taken = time.perf_counter() - start
    return taken


def logits(engine, ids):
    """Of the last token, which is decoded behind the others."""
    engine.reset()
    engine.forward(ids[:-1], 0)
    return engine.forward(ids[-1:], len(ids) - 1).tolist()


def main():
    name, source, heads, threads = sys.argv[1:]
    engine = ENGINES[name](source, int(heads), int(threads))
    questions = {"prefill": prefill, "decode": decode, "logits": logits}
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        question, *arguments = json.loads(line)
        print(json.dumps(questions[question](engine, *arguments)), flush=True)


if __name__ == "__main__":
    main()
