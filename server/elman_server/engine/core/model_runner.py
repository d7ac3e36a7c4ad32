"""A loaded model: one step for a batch, and many characters at once, through onnxruntime.

The only module that imports onnxruntime.
"""

from __future__ import annotations

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # again here: nothing may import onnxruntime before it is set

import hashlib
import platform
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnxruntime as ort

from elman_server.domain.errors import ArtefactError
from elman_server.domain.state import DEFAULT, SessionState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from elman_server.models.artefact import Artefact

    Ids = NDArray[np.int64]
    Logits = NDArray[np.float32]
    States = list[NDArray[np.float32]]

MIN_PARAMETERS_FOR_THREADS: Final = 1_000_000
_CHECK_BATCHES: Final = (1, 2, 7, 64)
_CHECK_STEPS: Final = 6


def choose_threads(num_parameters: int, num_cores: int) -> int:
    """Return how many threads a step shall use.

    A second thread made the step of an LSTM 2x512 (3.4 million weights) 1.9 times faster and a GRU 1x256 slower. Of two
    cores a large model takes both, though the front and its callers need them too: it still drew 1.3 to 1.7 times as
    much (`benchmarks/threads.py`). Of more it takes half.

    `num_cores` are those of one engine: 0 if there are more engines than cores.
    """
    if num_parameters < MIN_PARAMETERS_FOR_THREADS:
        return 1
    return max(1, min(num_cores, 2), num_cores // 2)


def share_threads(num_threads: int) -> None:
    """Let the models that are loaded from now on run on the same threads; once in a process, before the first.

    A step and a chunk of a prompt follow each other. Each graph's own threads would still spin for its next run while
    the other one computes: of two cores one was gone, and a prompt took twice as long.
    """
    ort.set_global_thread_pool_sizes(num_threads, 1)


class ModelRunner:
    """Steps a batch of rows.

    The rows live in preallocated arrays and a batch is always a prefix of them. Two sets of state arrays are
    used in turn: a step reads one and writes the other.

    Args:
        num_threads: of each graph of its own; 0: those of `share_threads`.

    Attributes:
        chars: [capacity] int64, the next character of each row; the caller writes it.
        capacity: the largest batch.
        min_batch: 1, or 2 for graphs whose rows are only alike from two on (the ONNX RNN operator).
        initial_states: what sessions may start from, by name; `default` is always there.
        initial: the one named `default`.
        probes: read-outs of its states, by name.
        fingerprint: names the arithmetic: equal fingerprints gave equal bits on the same test.
    """

    def __init__(self, artefact: Artefact, *, capacity: int, num_threads: int) -> None:
        self._artefact = artefact
        self._step = _session(artefact.step, num_threads)
        self._prefill = None if artefact.prefill is None else _session(artefact.prefill, num_threads)
        self._shapes = artefact.state_shapes
        self.capacity = capacity
        self.min_batch = 1
        self._allocate(max(self.capacity, _CHECK_BATCHES[-1]))
        self.initial_states = self._initial_states()
        self.initial = self.initial_states[DEFAULT]
        self.probes = {probe.name: probe for probe in artefact.probes}
        self.fingerprint = self._self_check()

    def _allocate(self, num_rows: int) -> None:
        self.chars: Ids = np.zeros(num_rows, np.int64)
        self._logits: Logits = np.zeros((num_rows, self._artefact.output_size), np.float32)
        self._states: list[States] = [[np.zeros((num_rows, *s), np.float32) for s in self._shapes] for _ in range(2)]
        self._parity = 0
        self._bindings: dict[tuple[int, int], Any] = {}

    def _initial_states(self) -> dict[str, SessionState]:
        zeros = tuple(np.zeros(shape, np.float32).tobytes() for shape in self._shapes)
        named = {DEFAULT: zeros, **self._artefact.initial_states}
        memories = {name: SessionState(named[name]) for name in sorted(named)}
        for memory in memories.values():
            self.check(memory)
        return memories

    def check(self, memory: SessionState) -> None:
        """Refuse a state that is not this model's: wrong sizes or not finite; raises ArtefactError."""
        sizes = [4 * int(np.prod(shape)) for shape in self._shapes]
        if [len(tensor) for tensor in memory.tensors] != sizes:
            raise ArtefactError("an initial state has another size than the graph's; export it again")
        if not all(np.isfinite(np.frombuffer(tensor, "<f4")).all() for tensor in memory.tensors):
            raise ArtefactError("an initial state is not finite; export it again")

    # The batch

    def step(self, batch: int) -> Logits:
        """Read `chars[:batch]`, advance the states of those rows, return their logits.

        Returns:
            [batch, V] float32, valid until the next step.
        """
        size = max(batch, self.min_batch)
        binding = self._bindings.get((size, self._parity)) or self._bind(size)
        self._step.run_with_iobinding(binding)
        self._parity ^= 1
        return self._logits[:batch]

    def _bind(self, size: int) -> Any:
        binding = self._step.io_binding()
        source, target = self._states[self._parity], self._states[self._parity ^ 1]
        binding.bind_input("char", "cpu", 0, np.int64, [size], self.chars.ctypes.data)
        binding.bind_output("logits", "cpu", 0, np.float32, [size, self._logits.shape[1]], self._logits.ctypes.data)
        for index, shape in enumerate(self._shapes):
            binding.bind_input(f"state_{index}", "cpu", 0, np.float32, [size, *shape], source[index].ctypes.data)
            binding.bind_output(f"next_state_{index}", "cpu", 0, np.float32, [size, *shape], target[index].ctypes.data)
        self._bindings[size, self._parity] = binding
        return binding

    def load_row(self, row: int, tensors: Sequence[bytes]) -> None:
        """Put a state into a row."""
        for state, tensor in zip(self._states[self._parity], tensors, strict=True):
            state[row] = np.frombuffer(tensor, "<f4").reshape(state.shape[1:])

    def save_row(self, row: int) -> tuple[bytes, ...]:
        """Return a row's state."""
        return tuple(state[row].tobytes() for state in self._states[self._parity])

    def move_row(self, source: int, target: int) -> None:
        """Copy a row's state and character over another's."""
        self.chars[target] = self.chars[source]
        for state in self._states[self._parity]:
            state[target] = state[source]

    # Prefill

    def read(self, chars: Ids, states: States) -> tuple[Logits, States]:
        """Read many characters at once, bit for bit as `step` would one by one.

        Args:
            chars: [T, B] int64.
            states: one array a state, [B, ...].

        Returns:
            logits [T, B, V] after each character, and the states after the last.
        """
        if self._prefill is None:
            logits, walked = self.walk(chars, states)
            return logits, [state[-1] for state in walked]
        batch = chars.shape[1]
        logits, states = _run(self._prefill, *self._padded(chars, states))
        return logits[:, :batch], [state[:batch] for state in states]

    def walk(self, chars: Ids, states: States) -> tuple[Logits, States]:
        """Read as `read` does, with the same bits, and keep the states on the way.

        Returns:
            logits [T, B, V] and the states [T, B, ...] after each character.
        """
        batch = chars.shape[1]
        chars, states = self._padded(chars, states)
        steps = []
        for column in chars:
            logits, states = _run(self._step, column, states)
            steps.append((logits[:batch], *(state[:batch] for state in states)))
        logits, *walked = (np.stack(parts) for parts in zip(*steps, strict=True))
        return logits, walked

    def _padded(self, chars: Ids, states: States) -> tuple[Ids, States]:
        """Return them with each row twice, where a row may not be alone."""
        if chars.shape[1] >= self.min_batch:
            return chars, states
        return np.repeat(chars, 2, axis=1), [np.repeat(state, 2, axis=0) for state in states]

    def rows(self, memories: Sequence[SessionState]) -> States:
        """Stack memories into state arrays, [B, ...] each."""
        tensors = zip(*(memory.tensors for memory in memories), strict=True)
        return [
            np.frombuffer(b"".join(rows), "<f4").reshape(len(memories), *shape)
            for rows, shape in zip(tensors, self._shapes, strict=True)
        ]

    # Self-check

    def _self_check(self) -> str:
        """Prove on this machine what the exactness contract rests on; return the fingerprint.

        Raises:
            ArtefactError: rows depend on the batch, prefill differs from stepping, or something is not finite.
        """
        for self.min_batch in (1, 2):
            expected = self._trial(_CHECK_BATCHES[-1], 0)
            if not np.isfinite(expected).all():
                raise ArtefactError("its logits are not finite in the self-test; train or export it again")
            if all(self._alike(expected, batch) for batch in _CHECK_BATCHES):
                break
        else:
            raise ArtefactError(
                "its rows depend on the batch they are in, or its prefill graph differs from its step: "
                "no text could be repeated; take out what mixes rows, and export it again"
            )
        sha = hashlib.sha256(expected.tobytes())
        sha.update(np.exp(expected[:, 0].astype(np.float64)).tobytes())  # the sampler's arithmetic is NumPy's
        return f"onnxruntime-{ort.__version__}/numpy-{np.__version__}/{platform.machine()}/{sha.hexdigest()[:16]}"

    def _trial_chars(self) -> Ids:
        shape = (_CHECK_STEPS, _CHECK_BATCHES[-1])
        return np.arange(np.prod(shape)).reshape(shape) * 7 % len(self._artefact.vocabulary)

    def _trial(self, batch: int, first: int) -> Logits:
        """Return the logits of the trial's rows first … first + batch, [steps, batch, V]."""
        rows = []
        for row in range(max(batch, self.min_batch)):
            self.load_row(row, self.initial.tensors)
        for chars in self._trial_chars():
            self.chars[:batch] = chars[first : first + batch]
            rows.append(self.step(batch).copy())
        return np.stack(rows)

    def _alike(self, expected: Logits, batch: int) -> bool:
        first = _CHECK_BATCHES[-1] - batch  # at another place of the batch, too
        theirs = expected[:, first:]
        chars = self._trial_chars()[:, first:]
        read, _ = self.read(chars, self.rows([self.initial] * batch))
        return np.array_equal(self._trial(batch, first), theirs) and np.array_equal(read, theirs)


def _session(graph: bytes, num_threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    if num_threads:
        options.intra_op_num_threads, options.inter_op_num_threads = num_threads, 1
    else:
        options.use_per_session_threads = False
    options.log_severity_level = 4  # its errors reach us as exceptions
    try:
        return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises plain and private exceptions
        raise ArtefactError(f"onnxruntime cannot load it: {' '.join(str(error).split())[:200]}") from error


def _run(session: ort.InferenceSession, chars: Ids, states: States) -> tuple[Logits, States]:
    feeds = {"char": chars} | {f"state_{index}": state for index, state in enumerate(states)}
    logits, *following = session.run(None, feeds)
    return logits, following
