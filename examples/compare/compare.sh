#!/bin/sh
# Speed of snnc beside what a user would run instead: compare.sh [--size small|medium|large] [--folder DIR]
# [--threads N,...] [--rounds N] [--peers NAME,...] [--json FILE] and more (--help). Makes a virtual environment in
# target/compare, where all that is made stays, and hands over to compare.py, which says the rest.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$root/target/compare
[ -x "$work/venv/bin/python" ] || python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --requirement "$root/examples/compare/requirements.txt"
exec "$work/venv/bin/python" "$root/examples/compare/compare.py" "$@"
