#!/bin/sh
# Makes a random GPT-2, compiles it, and measures it beside onnxruntime: compare.sh [--size small|medium|large]
# [--threads N] [--rounds N]. What it makes stays in target/compare; the Python packages are in a virtual environment there.
set -eu
cd "$(dirname "$0")/../.."
size=small
[ "${1:-}" = --size ] && size=$2
work=target/compare
mkdir -p "$work"
[ -x "$work/venv/bin/python" ] || python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --requirement examples/compare/requirements.txt
cargo build --release --quiet
if [ ! -f "$work/$size.onnx" ]; then
    cargo run --release --quiet -p snnc-examples --example make_gpt2 -- --size "$size" -o "$work/$size.onnx"
fi
[ -f "$work/$size.snn" ] ||
    target/release/snnc compile "$work/$size.onnx" -o "$work/$size.snn" --calibration-tokens 2048
exec "$work/venv/bin/python" examples/compare/compare.py --program target/release/snnc \
    --model "$work/$size.snn" --onnx "$work/$size.onnx" "$@"
