"""One engine that people run a decoder with, in a process of its own, so that it can fail alone: `compare.py` starts it, writes
questions as lines of JSON to its standard input, and reads the answers.

It runs a GPT-2 of `make_gpt2`, a decoder in a Hugging Face folder, or a GGUF file as it is. Every engine computes the same
thing: logits of the last token only, keys and values kept. Files that it needs begin with the given stem, and are made when they
are not there. A figure is of one run behind one that warms up, as in `snnc bench --repeats 1`.
"""

import json
import logging
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from decoder import CONTEXT


class Onnxruntime:
    """The network of `with_past`. Values stay in the engine's own memory."""

    def __init__(self, source, stem, threads):
        import onnxruntime as ort

        self.value = ort.OrtValue.ortvalue_from_numpy
        self.session = session(self.file(dense_file(source, stem, "onnxruntime"), stem), threads)
        self.past = [i for i in self.session.get_inputs() if "past" in i.name]
        self.outputs = ["logits", *(o.name for o in self.session.get_outputs() if "present" in o.name)]

    def file(self, dense, stem):
        return dense

    def reset(self):
        _, heads, _, head = self.past[0].shape
        self.state = [self.value(np.zeros((1, heads, 0, head), np.float32))] * len(self.past)

    def forward(self, ids, at):
        tokens, places, mask = (self.value(array) for array in inputs(ids, at))
        feeds = {"input_ids": tokens, "position_ids": places, "mask": mask}
        feeds |= {i.name: state for i, state in zip(self.past, self.state)}
        logits, *self.state = self.session.run_with_ort_values(self.outputs, feeds)
        return logits.numpy().reshape(-1)


class OnnxruntimeDecoder(Onnxruntime):
    """The network of `decoder_with_past`. Keys and values grow in place."""

    def reset(self):
        _, heads, _, head = self.past[0].shape
        self.state = [self.value(np.zeros((1, heads, CONTEXT, head), np.float32)) for _ in self.past]

    def forward(self, ids, at):
        whole, binding = at + len(ids), self.session.io_binding()
        feeds = {"input_ids": np.array([ids], np.int64)}
        feeds |= {"seqlens_k": np.array([whole - 1], np.int32), "total": np.array([whole], np.int32)}
        for name, array in feeds.items():
            binding.bind_cpu_input(name, array)
        for value, state in zip(self.past, self.state):
            binding.bind_ortvalue_input(value.name, state)
            binding.bind_ortvalue_output(value.name.replace("past", "present"), state)
        binding.bind_output("logits")
        self.session.run_with_iobinding(binding)
        return binding.get_outputs()[-1].numpy().reshape(-1)


class Int8:
    """The same in dynamic int8."""

    def file(self, dense, stem):
        from onnx import TensorProto
        from onnxruntime.quantization import QuantType, quantize_dynamic

        # It does not know that operators of onnxruntime's own give what they read.
        own = {"DefaultTensorType": TensorProto.FLOAT}
        settings = {"weight_type": QuantType.QInt8, "use_external_data_format": True, "extra_options": own}
        return made(Path(f"{stem}.int8.onnx"), lambda path: quantize_dynamic(dense, path, **settings))


class OnnxruntimeInt8(Int8, Onnxruntime):
    pass


class OnnxruntimeDecoderInt8(Int8, OnnxruntimeDecoder):
    pass


class Tract:
    """The network of `with_past`; the Python package has no setting for threads, it runs on one."""

    def __init__(self, source, stem, threads):
        import tract

        model = tract.onnx().load(dense_file(source, stem, "tract"))
        # Shapes of outputs are inferred: declared ones name sizes in other words.
        for output in range(model.output_count()):
            model.set_output_fact(output, None)
        typed = model.into_model()
        heads, head = (int(typed.input_fact(3).dim(axis)) for axis in (1, 3))
        self.empty = np.zeros((1, heads, 0, head), np.float32)
        self.count = typed.input_count() - 3
        self.model = typed.into_runnable()

    def reset(self):
        self.state = [self.empty] * self.count

    def forward(self, ids, at):
        logits, *self.state = self.model.run([*inputs(ids, at), *self.state])
        return logits.to_numpy().reshape(-1)


class Llama:
    """llama.cpp, Q8_0; or a GGUF file as it is."""

    def __init__(self, source, stem, threads):
        import llama_cpp

        path = self.file(Path(source), stem)
        # It says a line for every input of a graph.
        logging.getLogger("llama-cpp-python").setLevel(logging.ERROR)
        self.api = llama_cpp
        llama_cpp.llama_backend_init()
        self.model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
        settings = llama_cpp.llama_context_default_params()
        settings.n_ctx = settings.n_batch = CONTEXT
        settings.n_threads = settings.n_threads_batch = threads
        self.context = llama_cpp.llama_init_from_model(self.model, settings)
        self.vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))

    def file(self, source, stem):
        from to_gguf import decoder_to_gguf, gpt2_to_gguf

        if source.suffix == ".gguf":
            return str(source)
        convert = decoder_to_gguf if source.is_dir() else gpt2_to_gguf
        return made(Path(f"{stem}.q8_0.gguf"), lambda path: convert(source, path))

    def reset(self):
        self.api.llama_memory_clear(self.api.llama_get_memory(self.context), True)

    def forward(self, ids, at):
        tokens = (self.api.llama_token * len(ids))(*ids)
        if self.api.llama_decode(self.context, self.api.llama_batch_get_one(tokens, len(ids))) != 0:
            raise RuntimeError("llama_decode failed")
        return np.ctypeslib.as_array(self.api.llama_get_logits_ith(self.context, -1), (self.vocabulary,))


# Of an ONNX file that `make_gpt2` wrote; and of a folder or, with llama.cpp, a GGUF file.
GPT2 = {"onnxruntime int8": OnnxruntimeInt8, "onnxruntime f32": Onnxruntime, "tract f32": Tract, "llama.cpp Q8_0": Llama}
DECODER = {"onnxruntime int8": OnnxruntimeDecoderInt8, "onnxruntime f32": OnnxruntimeDecoder, "llama.cpp Q8_0": Llama}


def engine(name, source, stem, threads):
    if Path(source).suffix == ".gguf":
        return Llama(source, stem, threads)
    engines = DECODER if Path(source).is_dir() else GPT2
    if name not in engines:
        raise ValueError(f"no network for {name} is made of {source}")
    return engines[name](source, stem, threads)


def session(path, threads):
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def dense_file(source, stem, kind):
    """The network of `with_past` or `decoder_with_past`. Its weights lie beside it, for protobuf ends at 2 GB."""
    import onnx
    from decoder_with_past import decoder_with_past
    from with_past import with_past

    def save(path):
        model = decoder_with_past(source) if Path(source).is_dir() else with_past(source, power=kind == "onnxruntime")
        onnx.save(model, path, save_as_external_data=True, location=f"{path.name}.data")

    return made(Path(f"{stem}.{kind}.onnx"), save)


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


def greedy(engine, ids, count):
    """So many ids behind these, each the best guess."""
    engine.reset()
    found = [int(np.argmax(engine.forward(ids, 0)))]
    while len(found) < count:
        found.append(int(np.argmax(engine.forward(found[-1:], len(ids) + len(found) - 1))))
    return found


def main():
    name, source, stem, threads = sys.argv[1:]
    asked = engine(name, source, stem, int(threads))
    questions = {"prefill": prefill, "decode": decode, "logits": logits, "greedy": greedy}
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        question, *arguments = json.loads(line)
        print(json.dumps(questions[question](asked, *arguments)), flush=True)


if __name__ == "__main__":
    main()
