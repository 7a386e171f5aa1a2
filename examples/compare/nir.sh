#!/bin/sh
# Runs NIR islands that snnc exported in snnTorch, Norse, sinabs and SpikingJelly, and compares every spike: nir.sh FOLDER ... [options of
# nir_readers.py], or nir.sh --self-test, which needs no export: islands of random numbers must pass, and a wrong rating must fail. Makes two virtual
# environments in target/compare, for sinabs wants another nir; the second uses the first one's torch.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
here=$root/examples/compare
work=$root/target/compare
mkdir -p "$work"
[ -x "$work/venv/bin/python" ] || python3 -m venv "$work/venv"
[ -x "$work/venv-sinabs/bin/python" ] || "$work/venv/bin/python" -m venv "$work/venv-sinabs"
"$work/venv/bin/python" -m pip install --quiet numpy h5py torch==2.15.0 nir==1.0.8 nirtorch==2.6 snntorch==1.0.0 norse==1.1.0 \
    spikingjelly==2.0.0
folder='import sysconfig; print(sysconfig.get_path("purelib"))'
"$work/venv/bin/python" -c "$folder" > "$("$work/venv-sinabs/bin/python" -c "$folder")/torch.pth"
"$work/venv-sinabs/bin/python" -m pip install --quiet sinabs==3.1.3 nir==1.0.4 nirtorch==2.0.2
check() {
    "$work/venv/bin/python" "$here/nir_readers.py" --python "sinabs=$work/venv-sinabs/bin/python" "$@"
}
if [ "${1-}" != --self-test ]; then
    check --markdown "$work/nir.md" --summary "$work/nir-summary.md" --json "$work/nir.json" "$@"
    exit
fi
rm -rf "$work/standin"
"$work/venv/bin/python" "$here/nir_standin.py" "$work/standin/right"
check "$work"/standin/right/*
"$work/venv/bin/python" "$here/nir_standin.py" --wrong "$work/standin/wrong"
if check --readers norse "$work/standin/wrong/norse"; then
    echo "nir.sh: a wrong rating passed" >&2
    exit 1
fi
if check --readers snntorch "$work/standin/right/norse"; then
    echo "nir.sh: a faithful island that was not run passed" >&2
    exit 1
fi
echo "the self-test passed: right ratings pass, a wrong one and one that was not run fail"
