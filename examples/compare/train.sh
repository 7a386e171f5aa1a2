#!/bin/sh
# Training speed of snnc beside PyTorch's, of the same student: train.sh MODEL.onnx TEXT [--threads N] [--rounds N]. Makes a
# virtual environment in target/compare, where all that is made stays; train.py says the rest.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$root/target/compare
[ -x "$work/venv/bin/python" ] || python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet numpy torch==2.15.0
(cd "$root" && cargo build --release --quiet -p snnc)
exec "$work/venv/bin/python" "$root/examples/compare/train.py" --program "$root/target/release/snnc" "$@"
