#!/bin/sh
# snnc's operation counts beside SpikingJelly's, on one small network that both run: energy.sh. Makes a virtual environment in
# target/compare, where all that is made stays; energy.py says the rest.
set -eu
cd "$(dirname "$0")/../.."
work=target/compare
[ -x "$work/venv/bin/python" ] || python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet numpy torch==2.15.0 spikingjelly==2.0.0
cargo build --release --quiet -p snnc-examples --example counts
exec "$work/venv/bin/python" examples/compare/energy.py target/release/examples/counts
