"""The bare loop: step and sampling in one process, nothing else. What a server is measured against.

As fast as we know how to write it with onnxruntime from Python: IO binding on preallocated arrays, two alternating sets
of states, one sort of packed keys for top-k and top-p, preallocated temporaries, the same parameters in all rows.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnxruntime as ort

import elman_server  # noqa: F401  switches onnxruntime's telemetry off
from elman_server.engine.core.sampler import uniforms
from elman_server.models.artefact import read_artefact

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

TEMPERATURE: Final = 0.8
TOP_K: Final = 40
TOP_P: Final = 0.95
_ID_BITS: Final = np.int64(0xFFFF)
_BLOCK: Final = 256


class BareLoop:
    """Runs steps of `batch` rows of one model and samples them."""

    def __init__(self, path: Path, batch: int, num_threads: int = 1) -> None:
        artefact = read_artefact(path)
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = num_threads, 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "1" if num_threads > 1 else "0")
        self._session = ort.InferenceSession(artefact.step, options, providers=["CPUExecutionProvider"])
        self._batch, size = batch, len(artefact.vocabulary)
        shapes = [(batch, *state.shape[1:]) for state in self._session.get_inputs()[1:]]
        self.chars = np.zeros(batch, np.int64)
        self._logits = np.zeros((batch, size), np.float32)
        self._states = first, second = [[np.zeros(shape, np.float32) for shape in shapes] for _ in range(2)]
        self._bindings = [self._bind(first, second), self._bind(second, first)]
        self._uniforms = np.stack([uniforms(seed, 0).random(_BLOCK) for seed in range(batch)], axis=1)  # [256, B]
        self._make_scratch(batch, size)

    def _bind(self, source: list[NDArray[np.float32]], target: list[NDArray[np.float32]]) -> Any:
        binding = self._session.io_binding()
        binding.bind_input("char", "cpu", 0, np.int64, self.chars.shape, self.chars.ctypes.data)
        binding.bind_output("logits", "cpu", 0, np.float32, self._logits.shape, self._logits.ctypes.data)
        for index, (before, after) in enumerate(zip(source, target, strict=True)):
            binding.bind_input(f"state_{index}", "cpu", 0, np.float32, before.shape, before.ctypes.data)
            binding.bind_output(f"next_state_{index}", "cpu", 0, np.float32, after.shape, after.ctypes.data)
        return binding

    def _make_scratch(self, batch: int, size: int) -> None:
        self._ids = np.arange(size, dtype=np.int64)
        self._distance = np.zeros((batch, size))
        self._keys = self._distance.view(np.int64)
        self._mass = np.zeros((batch, size))
        self._is_past = np.zeros((batch, size), np.bool_)
        self._row = np.arange(batch, dtype=np.int64) * size
        self._of_top_k = self._row + min(TOP_K, size) - 1

    def run(self, seconds: float, *, with_sampling: bool = True) -> float:
        """Run for this long; return characters per second."""
        steps, begin = 0, time.perf_counter()
        end = begin + seconds
        run = self._session.run_with_iobinding
        while (now := time.perf_counter()) < end:
            for step in range(16):  # 16, so that the clock costs nothing
                run(self._bindings[step & 1])
                if with_sampling:
                    self._sample(self._uniforms[(steps + step) % _BLOCK])
            steps += 16
        return steps * self._batch / (now - begin)

    def _sample(self, uniform: NDArray[np.float64]) -> None:
        """Sample the next characters by temperature, top_k and top_p."""
        logits, mass = self._logits, self._mass
        # Sorted by the distance to the largest logit; the low bits, which a float32 leaves free, hold the id.
        np.subtract(logits.max(axis=1, keepdims=True), logits, out=logits)
        self._distance[...] = logits
        np.bitwise_or(self._keys, self._ids, out=self._keys)
        self._keys.sort(axis=1)
        np.multiply(self._distance, -1 / TEMPERATURE, out=mass)
        np.exp(mass, out=mass)
        mass.cumsum(axis=1, out=mass)
        flat = mass.ravel()
        enough = flat.take(self._of_top_k) * TOP_P
        np.greater_equal(mass, enough[:, None], out=self._is_past)
        total = flat.take(self._is_past.argmax(axis=1) + self._row)
        np.greater(mass, (uniform * total)[:, None], out=self._is_past)
        sampled = self._keys.ravel().take(self._is_past.argmax(axis=1) + self._row)
        np.bitwise_and(sampled, _ID_BITS, out=self.chars)
