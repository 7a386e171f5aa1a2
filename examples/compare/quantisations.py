"""What llama.cpp's quantisations lose: perplexity, KL and top-1 agreement beside its own f32, on token ids.

    target/compare/venv/bin/python examples/compare/quantisations.py FOLDER IDS.npy [--kinds Q8_0,Q6_K,Q4_K_M] [--threads 1]

FOLDER is a decoder's Hugging Face folder, IDS.npy holds [texts, tokens]. `compare.sh` makes the virtual environment. The files are
made by llama.cpp's own quantiser, without an importance matrix. Every text runs in a context of its own, and a token's prediction
counts as in `snnc eval --tokens IDS.npy`. Keys and values are kept in f32. A row whose length is no multiple of 256 has no K
quantisation; llama.cpp takes the next simpler kind there, which the table's bits per weight show.
"""

import argparse
import ctypes
import logging
from pathlib import Path

import llama_cpp as api
import numpy as np
from to_gguf import decoder_to_gguf

ROWS = 64
DRAWS = 2000


class Network:
    """A GGUF file, and a context of so many tokens."""

    def __init__(self, path, tokens, threads):
        self.model = api.llama_model_load_from_file(str(path).encode(), api.llama_model_default_params())
        settings = api.llama_context_default_params()
        settings.n_ctx = settings.n_batch = settings.n_ubatch = tokens
        settings.n_threads = settings.n_threads_batch = threads
        settings.type_k = settings.type_v = api.GGML_TYPE_F32
        settings.flash_attn_type = api.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self.context = api.llama_init_from_model(self.model, settings)
        if not self.model or not self.context:
            raise RuntimeError(f"{path}: llama.cpp cannot run it")
        self.vocabulary = api.llama_vocab_n_tokens(api.llama_model_get_vocab(self.model))
        self.parameters = api.llama_model_n_params(self.model)
        self.batch = api.llama_batch_init(tokens, 0, 1)

    def logits(self, ids):
        """Of every token, `[tokens, vocabulary]`; they are gone with the next call."""
        api.llama_memory_clear(api.llama_get_memory(self.context), True)
        self.batch.n_tokens = len(ids)
        for i, token in enumerate(ids):
            self.batch.token[i], self.batch.pos[i], self.batch.logits[i] = int(token), i, 1
            self.batch.n_seq_id[i], self.batch.seq_id[i][0] = 1, 0
        if api.llama_decode(self.context, self.batch) != 0:
            raise RuntimeError("llama_decode failed")
        return np.ctypeslib.as_array(api.llama_get_logits(self.context), (len(ids), self.vocabulary))


def quantised(exact, kind):
    """The file of that kind beside the exact one, made where it is not there."""
    target = exact.with_name(f"{exact.name.removesuffix('.f32.gguf')}.{kind.lower()}.gguf")
    if not target.exists():
        settings = api.llama_model_quantize_default_params()
        settings.ftype = getattr(api, f"LLAMA_FTYPE_MOSTLY_{kind}")
        settings.nthread = 1
        if api.llama_model_quantize(str(exact).encode(), str(target).encode(), ctypes.byref(settings)) != 0:
            raise RuntimeError(f"{kind}: llama.cpp cannot make it")
    return target


def log_softmax(rows):
    rows = rows.astype(np.float64)
    rows -= rows.max(1, keepdims=True)
    return rows - np.log(np.exp(rows).sum(1, keepdims=True))


def scores(dense, other, targets):
    """Negative log likelihood of both, divergence, and whether the likeliest token is the same: `[tokens, 4]`."""
    found = []
    for at in range(0, len(targets), ROWS):
        part = slice(at, at + ROWS)
        p, q = log_softmax(dense[part]), log_softmax(other[part])
        rows = np.arange(len(p))
        same = p.argmax(1) == q.argmax(1)
        found.append(np.stack([-p[rows, targets[part]], -q[rows, targets[part]], (np.exp(p) * (p - q)).sum(1), same], 1))
    return np.concatenate(found)


def row(name, bits, found):
    """`found`: `[texts, tokens, 4]`. Intervals are of a paired bootstrap over texts, as those of `snnc eval`."""
    drawn = np.random.default_rng(0).integers(0, len(found), (DRAWS, len(found)))
    means = found.mean(1)[drawn].mean(1)
    rises, kls = np.expm1(means[:, 1] - means[:, 0]), means[:, 2]
    dense, own, kl, same = found.mean((0, 1))
    (low, high), (kl_low, kl_high) = (np.percentile(x, [2.5, 97.5]) for x in (rises, kls))
    return (
        f"| {name} | {bits:.2f} | {np.exp(own):.4f} | {100 * np.expm1(own - dense):+.2f} % ({100 * low:+.2f} to {100 * high:+.2f}) "
        f"| {kl:.5f} ({kl_low:.5f} to {kl_high:.5f}) | {np.percentile(found[..., 2], 99):.4f} | {same:.4f} |"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a decoder's Hugging Face folder")
    parser.add_argument("ids", type=Path, help="[texts, tokens] as .npy")
    parser.add_argument("--kinds", default="Q8_0,Q6_K,Q5_K_M,Q4_K_M,Q4_0", help="llama.cpp's names of quantisations")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, default=Path(__file__).resolve().parents[2] / "target" / "compare")
    args = parser.parse_args()
    logging.getLogger("llama-cpp-python").setLevel(logging.ERROR)
    api.llama_backend_init()
    args.work.mkdir(parents=True, exist_ok=True)
    exact = args.work / f"{args.folder.resolve().name}.f32.gguf"
    if not exact.exists():
        decoder_to_gguf(args.folder, exact, exact=True)
    ids = np.load(args.ids)
    files = {kind: quantised(exact, kind) for kind in args.kinds.split(",")}
    dense = Network(exact, ids.shape[1], args.threads)
    networks = {kind: Network(path, ids.shape[1], args.threads) for kind, path in files.items()}
    found = {kind: [] for kind in files}
    for text in ids:
        reference = dense.logits(text[:-1])
        for kind, network in networks.items():
            found[kind].append(scores(reference, network.logits(text[:-1]), text[1:]))
    texts = np.stack(next(iter(found.values())))
    print(f"{texts.shape[0]} texts of {texts.shape[1]} predictions; perplexity of f32 {np.exp(texts[..., 0].mean()):.4f}\n")
    print("| quantisation | bits per weight | perplexity | rise (95 %) | KL, nats (95 %) | 99 % of tokens at most | top-1 |")
    print("|---|---|---|---|---|---|---|")
    for kind, network in networks.items():
        bits = 8 * files[kind].stat().st_size / network.parameters
        print(row(kind, bits, np.stack(found[kind])))


if __name__ == "__main__":
    main()
