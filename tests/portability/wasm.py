"""Compare the step graph's logits with those of onnxruntime-web, in Node.

python -m tests.portability.wasm --steps 10000
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from elman_server.engine.core.model_runner import ModelRunner
from elman_server.models.artefact import read_artefact
from tests.portability.machines import BUNDLED
from tests.portability.run import STEPS, texts

FOLDER = Path(__file__).parent / ".wasm"  # git ignores it; remove it to download again
PACKAGE = FOLDER / "node_modules/onnxruntime-web/dist/ort.node.min.mjs"
NUM_ROWS = 2
SCRIPT = Path(__file__).parent / "step.mjs"


def installed() -> Path:
    """Return the package's module for Node; downloads 40 MB from npm if it is not there.

    Raises:
        subprocess.CalledProcessError: npm could not have it.
    """
    if not PACKAGE.exists():
        FOLDER.mkdir(exist_ok=True)
        options = ("--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(FOLDER))
        subprocess.run(["npm", "install", *options, "onnxruntime-web"], check=True)
    return PACKAGE


def native(runner: ModelRunner, chars: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return all logits, and the states after the last, of reading [steps, rows] characters: flat."""
    for row in range(NUM_ROWS):
        runner.load_row(row, [bytes(len(tensor)) for tensor in runner.initial.tensors])
    logits = []
    for column in chars:
        runner.chars[:NUM_ROWS] = column
        logits.append(runner.step(NUM_ROWS).copy())
    states = (
        np.frombuffer(b"".join(parts), "<f4") for parts in zip(*map(runner.save_row, range(NUM_ROWS)), strict=True)
    )
    return np.concatenate([np.ravel(logits), *states])


def webassembly(graph: bytes, chars: NDArray[np.int64], shapes: list[list[int]]) -> NDArray[np.float32]:
    """Return the same as `native`, of onnxruntime-web."""
    with tempfile.TemporaryDirectory() as folder:
        step, read, logits = (Path(folder) / name for name in ("step.onnx", "chars", "logits"))
        step.write_bytes(graph)
        read.write_bytes(chars.tobytes())
        subprocess.run(["node", SCRIPT, installed(), step, read, json.dumps(shapes), logits], check=True)
        return np.fromfile(logits, "<f4")


def report(model: Path, num_steps: int) -> bool:
    """Print what differs of a model that reads its own texts; return whether nothing does."""
    artefact = read_artefact(model)
    ids = [block for block, _ in texts(model, num_steps, NUM_ROWS, first_seed=0)]
    chars = np.concatenate(ids, axis=-1).reshape(NUM_ROWS, -1).T.astype(np.int64)
    runner = ModelRunner(artefact, capacity=NUM_ROWS, num_threads=1)
    mine = native(runner, chars)
    other = webassembly(
        artefact.step, np.ascontiguousarray(chars), [[NUM_ROWS, *shape] for shape in artefact.state_shapes]
    )
    num_different = int((mine.view(np.uint32) != other.view(np.uint32)).sum())
    sys.stdout.write(
        f"{model.stem} in WebAssembly: {num_different:,} of {mine.size:,} logits and states of {len(chars):,} steps of "
        f"{NUM_ROWS} rows differ\n"
    )
    sys.stdout.flush()
    return num_different == 0


def main() -> int:
    """Compare, print, and return 1 if anything differs."""
    parser = argparse.ArgumentParser(prog="python -m tests.portability.wasm", description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", type=Path, default=sorted(BUNDLED.glob("*.onnx")))
    parser.add_argument("--steps", type=int, default=10_000)
    arguments = parser.parse_args()
    if not (shutil.which("node") and shutil.which("npm")):
        sys.exit("This needs Node: apt-get install nodejs npm")
    results = [report(model, -(-arguments.steps // STEPS) * STEPS) for model in arguments.models]  # all, if one differs
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
