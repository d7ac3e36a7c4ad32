"""Running artefacts: the only module of the exporter that imports onnxruntime."""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # again here: it must be set before the import

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from elman_export.artefacts.artefact import Artefact
from elman_export.errors import ArtefactError
from elman_format.layout import LAYOUTS

Array = NDArray[np.floating[Any]]


class Runtime:
    """An artefact under onnxruntime.

    Attributes:
        layout: How rows are laid into a batch, one of LAYOUTS.

    Raises:
        ArtefactError: onnxruntime refuses a graph.
    """

    def __init__(self, artefact: Artefact, num_threads: int = 1) -> None:
        self._step = _session(artefact.data, num_threads)
        self._prefill = artefact.prefill and _session(artefact.prefill, num_threads)
        self._artefact = artefact
        self.layout = LAYOUTS[0]

    @property
    def can_read(self) -> bool:
        """Whether the artefact has a prefill graph."""
        return bool(self._prefill)

    def initial_state(self, batch: int) -> list[Array]:
        """The initial state of a new session in every row: [batch, ...] float32 for each state."""
        shapes = self._artefact.state_shapes
        zeros = tuple(np.zeros(shape, np.float32).tobytes() for shape in shapes)
        rows = self._artefact.metadata.initial_states.get("default", zeros)
        return [
            np.tile(np.frombuffer(row, "<f4").reshape(1, *shape), (batch, *(1 for _ in shape)))
            for row, shape in zip(rows, shapes, strict=True)
        ]

    def step(self, char: NDArray[np.int64], state: Sequence[Array]) -> tuple[Array, list[Array]]:
        """One character a row: char [B] to logits [B, V] and the next states."""
        return self._run(self._step, char, state)

    def read(self, chars: NDArray[np.int64], state: Sequence[Array]) -> tuple[Array, list[Array]]:
        """Many characters a row: chars [T, B] to logits [T, B, V] and the last states."""
        return self._run(self._prefill, chars, state)

    def advance(self, chars: NDArray[np.int64], state: Sequence[Array]) -> tuple[Array, list[Array]]:
        """The same, by the prefill graph if there is one and step by step if not."""
        if self.can_read:
            return self.read(chars, state)
        logits: list[Array] = []
        after = list(state)
        for char in chars:
            scores, after = self.step(char, after)
            logits.append(scores)
        return np.stack(logits), after

    def _run(
        self, session: ort.InferenceSession, char: NDArray[np.int64], state: Sequence[Array]
    ) -> tuple[Array, list[Array]]:
        if self.layout == LAYOUTS[0]:
            return _run(session, char, state)
        batch = char.shape[-1]
        sources, taken = self.layout.sources(batch), self.layout.places(batch)
        logits, after = _run(session, char.take(sources, -1), [part.take(sources, 0) for part in state])
        return logits[..., taken, :], [part[taken] for part in after]


def _session(graph: bytes, num_threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # errors are raised as exceptions
    try:
        return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no common public class
        reason = str(error).partition("\n")[0]
        raise ArtefactError(f"onnxruntime cannot load the artefact: {reason}") from error


def _run(session: ort.InferenceSession, char: NDArray[np.int64], state: Sequence[Array]) -> tuple[Array, list[Array]]:
    feeds = {"char": char, **{f"state_{i}": part for i, part in enumerate(state)}}
    try:
        logits, *after = session.run(None, feeds)
    except Exception as error:  # onnxruntime's exceptions have no common public class
        reason = str(error).partition("\n")[0]
        raise ArtefactError(f"onnxruntime cannot run the artefact on char {char.shape}: {reason}") from error
    return logits, after
