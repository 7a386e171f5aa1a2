#!/bin/sh
# A small spiking network on SANA-FE's model of Loihi, its spikes compared one by one: sana_fe.sh [options of sana_fe.py]. Makes a virtual
# environment in target/compare, where all that is made stays; sana_fe.py says the rest.
set -eu
cd "$(dirname "$0")/../.."
work=target/compare
mkdir -p "$work"
[ -x "$work/venv-sana-fe/bin/python" ] || python3 -m venv "$work/venv-sana-fe"
"$work/venv-sana-fe/bin/python" -m pip install --quiet numpy sanafe==2.2.9
exec "$work/venv-sana-fe/bin/python" examples/compare/sana_fe.py "$@"
