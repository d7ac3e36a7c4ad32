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

from elman_format import Layout, layouts
from elman_format.layout import BATCHES, LAYOUTS
from elman_format.operators import CUT_SAFE
from elman_format.self_check import ARITHMETIC, SETTINGS
from elman_server.domain.errors import ArtefactError
from elman_server.domain.state import DEFAULT, SessionState
from elman_server.engine.core import self_check
from elman_server.models.signals import state_signals

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from elman_server.models.artefact import Artefact

    Ids = NDArray[np.int64]
    Logits = NDArray[np.float32]
    States = list[NDArray[np.float32]]

MIN_PARAMETERS_FOR_THREADS: Final = 1_000_000
_CHECK_STEPS: Final = 8


class ThreadsError(ArtefactError):
    """A model cannot be served with this many threads."""


def choose_threads(num_parameters: int, num_cores: int) -> int:
    """Return how many threads a step is to use.

    A second thread made the step of an LSTM 2x512 (3.4 million weights) 1.9 times faster and a GRU 1x256 slower. Of two
    cores a large model uses both, though the front and its callers need them too: it still sampled 1.3 to 1.7 times as
    much (`benchmarks/threads.py`). Of more cores it uses half.

    `num_cores` are those of one engine: 0 if there are more engines than cores.
    """
    if num_parameters < MIN_PARAMETERS_FOR_THREADS:
        return 1
    return max(1, min(num_cores, 2), num_cores // 2)


def limit_threads(artefact: Artefact, num_threads: int) -> tuple[int, str]:
    """Return how many of the threads a model may run with, and why not with all; "" if with all."""
    unsafe = sorted(artefact.operators - CUT_SAFE)
    if num_threads == 1 or not unsafe:
        return num_threads, ""
    return 1, f"{', '.join(unsafe)[:80]} may round differently where threads cut the work"


def share_threads(num_threads: int) -> None:
    """Let the models that are loaded from now on run on the same threads; once in a process, before the first.

    A step and a chunk of a prompt follow each other. Each graph's own threads would still spin for its next run while
    the other one computes: one of two cores was lost, and a prompt took twice as long.
    """
    ort.set_global_thread_pool_sizes(num_threads, 1)


class ModelRunner:
    """Steps a batch of rows.

    The rows live in preallocated arrays and a batch is always a prefix of them. Two sets of state arrays are
    used in turn: a step reads one and writes the other.

    Args:
        num_threads: the most threads of a graph.
        shares_threads: they are the `limit_threads` ones of `share_threads`; else each graph has its own.

    Attributes:
        chars: [capacity] int64, the next character of each row; the caller writes it.
        capacity: the largest batch.
        num_threads: how many threads it was proved with.
        limited_by: why they are fewer; "" if they are not.
        layout: how rows are laid into a batch: the first of LAYOUTS that was proved.
        artefact: what was loaded.
        signals: what each state tensor is.
        initial_states: what sessions may start from, by name; `default` is always there.
        initial: the one named `default`.
        probes: read-outs of its states, by name.
        fingerprint: names the arithmetic: equal fingerprints gave equal bits on the same test; that of a portable model
            is equal on all machines.
    """

    def __init__(self, artefact: Artefact, *, capacity: int, num_threads: int, shares_threads: bool = False) -> None:
        self.artefact = artefact
        self.capacity = capacity
        self.num_threads, self.limited_by = limit_threads(artefact, num_threads)
        own_threads = 0 if shares_threads else self.num_threads
        self._step = _session(artefact.step, own_threads)
        self._prefill = None if artefact.prefill is None else _session(artefact.prefill, own_threads)
        self._shapes = artefact.state_shapes
        sizes = [int(np.prod(shape)) for shape in self._shapes]
        self.signals = state_signals(artefact.cell, artefact.num_layers, sizes)
        self.initial_states = self._initial_states()
        self.initial = self.initial_states[DEFAULT]
        self.probes = {probe.name: probe for probe in artefact.probes}
        self.fingerprint = self._prove()

    def _arrange(self, layout: Layout) -> None:
        """Allocate the batch in a layout."""
        self.layout = layout
        size, step = layout.size(max(self.capacity, BATCHES[-1])), layout.spacing
        self.chars: Ids = np.zeros(size, np.int64)[::step]
        self._logits: Logits = np.zeros((size, self.artefact.output_size), np.float32)[::step]
        self._states: list[States] = [
            [np.zeros((size, *s), np.float32)[::step] for s in self._shapes] for _ in range(2)
        ]
        self._parity = 0
        self._bindings: dict[tuple[int, int], Any] = {}

    def _initial_states(self) -> dict[str, SessionState]:
        zeros = tuple(np.zeros(shape, np.float32).tobytes() for shape in self._shapes)
        named = {DEFAULT: zeros, **self.artefact.initial_states}
        states = {name: SessionState(named[name]) for name in sorted(named)}
        for state in states.values():
            self.check(state)
        return states

    def check(self, state: SessionState) -> None:
        """Refuse a state that is not this model's: wrong sizes or not finite; raises ArtefactError."""
        sizes = [4 * int(np.prod(shape)) for shape in self._shapes]
        if [len(tensor) for tensor in state.tensors] != sizes:
            raise ArtefactError("an initial state has another size than the graph's; export it again")
        if not all(np.isfinite(np.frombuffer(tensor, "<f4")).all() for tensor in state.tensors):
            raise ArtefactError("an initial state is not finite; export it again")

    # The batch

    def step(self, batch: int) -> Logits:
        """Read `chars[:batch]`, advance the states of those rows, return their logits.

        Returns:
            [batch, V] float32, valid until the next step.
        """
        binding = self._bindings.get((batch, self._parity)) or self._bind(batch)
        self._step.run_with_iobinding(binding)
        self._parity ^= 1
        return self._logits[:batch]

    def _bind(self, batch: int) -> Any:
        """Bind the arrays' beginnings: of all rows that are computed, whatever lies between those of the batch."""
        binding, size = self._step.io_binding(), self.layout.size(batch)
        source, target = self._states[self._parity], self._states[self._parity ^ 1]
        binding.bind_input("char", "cpu", 0, np.int64, [size], self.chars.ctypes.data)
        binding.bind_output("logits", "cpu", 0, np.float32, [size, self._logits.shape[1]], self._logits.ctypes.data)
        for index, shape in enumerate(self._shapes):
            binding.bind_input(f"state_{index}", "cpu", 0, np.float32, [size, *shape], source[index].ctypes.data)
            binding.bind_output(f"next_state_{index}", "cpu", 0, np.float32, [size, *shape], target[index].ctypes.data)
        self._bindings[batch, self._parity] = binding
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
        taken = self.layout.places(chars.shape[1])
        logits, states = _run(self._prefill, *self._spread(chars, states))
        return logits[:, taken], [state[taken] for state in states]

    def walk(self, chars: Ids, states: States) -> tuple[Logits, States]:
        """Read as `read` does, with the same bits, and keep the states on the way.

        Returns:
            logits [T, B, V] and the states [T, B, ...] after each character.
        """
        taken = self.layout.places(chars.shape[1])
        chars, states = self._spread(chars, states)
        steps = []
        for column in chars:
            logits, states = _run(self._step, column, states)
            steps.append((logits[taken], *(state[taken] for state in states)))
        logits, *walked = (np.stack(parts) for parts in zip(*steps, strict=True))
        return logits, walked

    def _spread(self, chars: Ids, states: States) -> tuple[Ids, States]:
        """Lay rows out as they are computed."""
        if self.layout == LAYOUTS[0]:
            return chars, states
        sources = self.layout.sources(chars.shape[1])
        return chars.take(sources, 1), [state.take(sources, 0) for state in states]

    def rows(self, states: Sequence[SessionState]) -> States:
        """Stack sessions' states into arrays, [B, ...] each."""
        tensors = zip(*(state.tensors for state in states), strict=True)
        return [
            np.frombuffer(b"".join(rows), "<f4").reshape(len(states), *shape)
            for rows, shape in zip(tensors, self._shapes, strict=True)
        ]

    # Self-check

    def _prove(self) -> str:
        """Prove on this machine what the exactness contract rests on; return the fingerprint.

        Raises:
            ArtefactError: rows depend on the batch, prefill differs from stepping, or something is not finite.
            ThreadsError: one thread might prove what more do not.
        """
        for layout in layouts(self.artefact.operators, self.num_threads):
            self._arrange(layout)
            if (fingerprint := self._proof()) is not None:
                return self._proved_portable() if self.artefact.self_check else fingerprint
        if self.num_threads > 1:
            raise ThreadsError(f"with {self.num_threads} threads its rows depend on the batch they are in")
        raise ArtefactError(
            "its rows depend on the batch they are in, or its prefill graph differs from its step: "
            "no text could be repeated; take out what mixes rows, and export it again"
        )

    def _proof(self) -> str | None:
        """Return the fingerprint of the arithmetic; None if a row is another one in another batch.

        64 rows read a text. At each position the last of them step again from the same states in other batches.
        """
        sha, seen = hashlib.sha256(), []
        shape = (_CHECK_STEPS, BATCHES[-1])
        chars = np.arange(np.prod(shape)).reshape(shape) * 7 % len(self.artefact.vocabulary)
        states = start = self.rows([self.initial] * shape[1])
        for column in chars:
            (logits,), following = self.walk(column[None], states)
            following = [state[0] for state in following]
            if not np.isfinite(logits).all():
                raise ArtefactError("its logits are not finite in the self-test; train or export it again")
            if not all(self._is_alike(column, states, [logits, *following], batch) for batch in BATCHES[:-1]):
                return None
            states = following
            seen.append(logits)
            sha.update(logits.tobytes())
        expected = [np.stack(seen), *states]
        for batch in BATCHES:
            logits, after = self.read(chars[:, -batch:], [state[-batch:] for state in start])
            last = [expected[0][:, -batch:], *(state[-batch:] for state in states)]
            if not _are_equal([logits, *after], last):
                return None
        return f"onnxruntime-{ort.__version__}/{platform.machine()}/{sha.hexdigest()[:16]}"

    def _proved_portable(self) -> str:
        """Return the fingerprint of all machines; raises ArtefactError if this one computes otherwise."""

        def step(chars: Ids, states: States) -> tuple[Logits, States]:
            (logits,), walked = self.walk(chars[None], states)
            return logits, [state[0] for state in walked]

        zeros = [np.zeros((len(SETTINGS), *shape), np.float32) for shape in self._shapes]
        if self_check.digest(len(self.artefact.vocabulary), step, zeros) != self.artefact.self_check:
            raise ArtefactError(
                f"this machine does not compute {ARITHMETIC}, which its artefact promises: the self-check differs; "
                "use the onnxruntime of constraints.txt, or quantize the model again"
            )
        return ARITHMETIC

    def _is_alike(self, chars: Ids, states: States, expected: Sequence[Logits], batch: int) -> bool:
        """Return whether the last rows step as they did among all."""
        self.chars[:batch] = chars[-batch:]
        for own, state in zip(self._states[self._parity], states, strict=True):
            own[:batch] = state[-batch:]
        logits = self.step(batch)
        actual = [logits, *(state[:batch] for state in self._states[self._parity])]
        return _are_equal(actual, [array[-batch:] for array in expected])


def _are_equal(actual: Sequence[Logits], expected: Sequence[Logits]) -> bool:
    return all(np.array_equal(mine, other, equal_nan=True) for mine, other in zip(actual, expected, strict=True))


def _session(graph: bytes, num_threads: int) -> ort.InferenceSession:
    """Load a graph with threads of its own, or 0: those that all share."""
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
