"""Compares an exported ONNX file with its program: exported_onnx.py MODEL.snn FILE.onnx IDS.npy [SNNC].

IDS.npy holds token ids, [n] or [texts, n]. Prints the share of tokens after which onnxruntime and snnc predict the same token, and the largest
difference of a logit. The exit status is 1 if the share is below 0.999. SNNC is the command, `snnc` without one.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

# A file of this name would shadow the package `onnx`, which onnxruntime looks for.
sys.path.remove(str(Path(__file__).resolve().parent))

import numpy as np
import onnxruntime


def main():
    if len(sys.argv) not in (4, 5):
        sys.exit(__doc__)
    program, file, ids = sys.argv[1:4]
    command = sys.argv[4] if len(sys.argv) == 5 else "snnc"
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "logits.npy"
        subprocess.run([command, "logits", program, "--tokens", ids, "-o", str(out)], check=True, stderr=subprocess.DEVNULL)
        ours = np.load(out)
    rows = np.atleast_2d(np.load(ids))
    ours = ours.reshape(len(rows), *ours.shape[-2:])
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    same = most = 0
    for row, want in zip(rows, ours):
        got = session.run(None, {"input_ids": row[None].astype(np.int64)})[0][0]
        same += int((got.argmax(-1) == want.argmax(-1)).sum())
        most = max(most, float(np.abs(got - want).max()))
    share = same / rows.size
    print(f"onnxruntime {onnxruntime.__version__}: {same} of {rows.size} predictions are the same ({share:.4f}), logits differ by at most {most:g}")
    return 0 if share >= 0.999 else 1


if __name__ == "__main__":
    sys.exit(main())
