"""What one machine computes of a model: texts, by the engine's own step and sampler, and the bits behind them.

    python -m tests.portability.run MODEL NUM_STEPS NUM_ROWS FIRST_SEED

Writes a line for every block of steps: the ids that all rows sampled, and the SHA-256 of all logits, states and
log-probabilities so far. Only NumPy, onnxruntime and the server are imported, so that it runs wherever the server does.
"""

import base64
import hashlib
import itertools
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elman_server.domain.sampling import Sampling, log_softmax
from elman_server.engine.core.batch import Batch
from elman_server.engine.core.model_runner import ModelRunner
from elman_server.engine.core.scheduler import Stream
from elman_server.engine.job import Job
from elman_server.models.artefact import read_artefact

STEPS = 50  # of a block
_TEMPERATURES = (0.5, 0.8, 1.2)
_PENALTY: dict[str, Any] = {"repetition_penalty": 1.3, "repetition_window": 32}
_BIAS: dict[str, Any] = {"bias": ((5, 1.5), (20, -2.0), (30, -np.inf))}
_FILTERS: tuple[dict[str, Any], ...] = (
    {},
    {"top_k": 10},
    {"top_p": 0.9},
    {"min_p": 0.05},
    _PENALTY,
    _BIAS,
    {"top_k": 20, "top_p": 0.8, "min_p": 0.01, **_PENALTY, **_BIAS},
)
NUM_SETTINGS = len(_TEMPERATURES) * len(_FILTERS)


def settings(first_seed: int) -> Iterator[Sampling]:
    """Return how rows sample, without end: every combination, again and again with other seeds."""
    combinations = itertools.cycle(itertools.product(_TEMPERATURES, _FILTERS))
    for seed, (temperature, filters) in enumerate(combinations, first_seed):
        yield Sampling(seed, temperature=temperature, **filters)


def texts(model: Path, num_steps: int, num_rows: int, first_seed: int) -> Iterator[tuple[NDArray[np.uint16], str]]:
    """Return the ids [STEPS, num_rows] of each block, and the digest of what is behind them."""
    artefact = read_artefact(model)
    size = len(artefact.vocabulary)
    runner, batch = ModelRunner(artefact, capacity=num_rows, num_threads=1), Batch(num_rows, size)
    for row, sampling in zip(range(num_rows), settings(first_seed), strict=False):
        runner.chars[row] = first = row % size
        runner.load_row(row, runner.initial.tensors)
        job = Job(runner.initial, 0, [first], max_chars=num_steps, sampling=sampling)
        batch.load(row, Stream(row, job, runner.initial, deque(), num_steps, None, []))
    sha = hashlib.sha256(runner.fingerprint.encode())
    for _ in range(num_steps // STEPS):
        for _ in range(STEPS):
            logits = runner.step(num_rows)
            sha.update(logits.tobytes())
            runner.chars[:num_rows] = batch.sample(logits)
        sha.update(log_softmax(logits).tobytes())
        for row in range(num_rows):
            sha.update(b"".join(runner.save_row(row)))
        yield np.array(batch.take_all(num_rows), np.uint16).T, sha.hexdigest()


def main(model: str, *numbers: str) -> None:
    """Print the blocks."""
    for ids, digest in texts(Path(model), *map(int, numbers)):
        sys.stdout.write(f"{base64.b64encode(ids.tobytes()).decode()} {digest}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
