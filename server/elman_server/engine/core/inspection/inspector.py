"""Inspections: jobs that read a text and report what the network computes, behind all turns.

They run in pieces of a few milliseconds. Beside turns they get a small share of the engine's time, so that a page that
watches a network slows nobody down; alone they get all of it. A watched one reads no further than its reader allows.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

import numpy as np

from elman_server.domain.events import FinishReason
from elman_server.engine.core.inspection.studies import Comparison, Explanation, Observation, Steps, differ, tables
from elman_server.engine.inspection import Describe, Described, Explain, ReadWeights, Watch
from elman_server.engine.job import Output
from elman_server.models.cells import AbsentError, Cells, read_cells

if TYPE_CHECKING:
    from elman_server.engine.core.inspection.studies import Study
    from elman_server.engine.core.model_runner import ModelRunner
    from elman_server.engine.job import Job

# Times are the process's own: what other processes take of a busy machine must not count as the turns' share.
SHARE: Final = 0.03  # of the time that turns take
BESIDE_SECONDS: Final = 0.002  # of a piece, which a step waits for
ALONE_SECONDS: Final = 0.008  # or a new turn
MIN_ALONE: Final = 8  # characters: fewer cost more for each
MAX_PIECE: Final = 256


class Inspector:
    """Runs the inspections of one model, one piece after another."""

    def __init__(self, model: ModelRunner) -> None:
        self._model = model
        self._ready: OrderedDict[int, _Inspection] = OrderedDict()
        self._waiting: dict[int, _Inspection] = {}  # for their readers
        self._char_seconds = BESIDE_SECONDS  # of the last piece
        self._credit = 0.0
        self._cells: Cells | AbsentError | None = None

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to compute."""
        return not self._ready

    def open(self, identity: int, job: Job) -> list[Output]:
        """Begin an inspection; return what can be reported at once."""
        cells, ask = self.cells, job.inspect
        if isinstance(ask, Describe):
            report = Described(str(cells) if isinstance(cells, AbsentError) else "")
            return [Output(identity, report=report, finished=FinishReason.MAX_CHARS)]
        if isinstance(ask, ReadWeights):
            return [Output(identity, report=tables(cells, ask.hidden), finished=FinishReason.MAX_CHARS)]
        if isinstance(ask, Watch):
            study: Study = Observation(ask, self._model.signals, cells)
        elif isinstance(ask, Explain):
            study = Explanation(ask, self._model.signals, cells, len(job.prompt))
        else:
            assert ask is not None
            study = Comparison(ask)
        self._ready[identity] = _Inspection(identity, job, self._model, study)
        return []

    def close(self, identity: int) -> None:
        """End an inspection, if it is one."""
        self._ready.pop(identity, None)
        self._waiting.pop(identity, None)

    def allow(self, identity: int, num_chars: int) -> None:
        """Let an inspection, if it is one, report more characters."""
        if inspection := self._waiting.pop(identity, None):
            self._ready[identity] = inspection
        if inspection := self._ready.get(identity):
            inspection.allowed += num_chars

    def run_beside(self, seconds: float) -> list[Output]:
        """Run a piece if turns, which have just computed for some seconds, have paid for it."""
        self._credit += SHARE * seconds
        if self._credit < BESIDE_SECONDS:
            return []
        begin = time.process_time()
        outputs = self._run(int(self._credit / self._char_seconds))
        self._credit -= time.process_time() - begin
        return outputs

    def run_alone(self) -> list[Output]:
        """Run a piece while there are no turns."""
        return self._run(max(MIN_ALONE, int(ALONE_SECONDS / self._char_seconds)))

    def _run(self, size: int) -> list[Output]:
        """Run a piece of about that many characters, of the inspection that has waited longest."""
        identity, inspection = self._ready.popitem(last=False)
        begin = time.process_time()
        num_read, output = inspection.advance(min(max(1, size), MAX_PIECE))
        self._char_seconds = max(1e-6, (time.process_time() - begin) / num_read)
        if output is None or not (output.finished or output.not_finite):
            (self._ready if inspection.may_read else self._waiting)[identity] = inspection
        return [] if output is None else [output]

    @property
    def cells(self) -> Cells | AbsentError:
        """The equations of this model, or why they are absent; they are read when they are first asked for."""
        if self._cells is None:
            try:
                self._cells = self._checked(read_cells(self._model.artefact))
            except AbsentError as error:
                self._cells = error
        return self._cells

    def _checked(self, cells: Cells) -> Cells:
        """Compare the equations with a few steps of the graph."""
        chars = np.arange(3, dtype=np.int64)[:, None] % len(self._model.artefact.vocabulary)
        begin = self._model.rows([self._model.initial])
        if differ(cells, Steps.of(chars, *self._model.walk(chars, begin), begin)):
            raise AbsentError(
                f"the graph of {self._model.artefact.name} does not compute the equations of its cell: "
                "its gates and terms are absent"
            )
        return cells


class _Inspection:
    """An inspection under way.

    Attributes:
        allowed: how many characters it may report in all.
    """

    def __init__(self, identity: int, job: Job, model: ModelRunner, study: Study) -> None:
        self._identity = identity
        self._model = model
        self._study = study
        pending = [job.state.pending] if job.position else []
        self._ids = np.array([*pending, *job.prompt], np.int64)[:, None]  # [N, 1]
        self._first = len(pending) + study.start  # of those that are reported
        self._num_read = 0
        self._states = model.rows([job.state])
        self.allowed = job.window if isinstance(job.inspect, Watch) else len(self._ids)

    @property
    def may_read(self) -> bool:
        """Whether it may read now."""
        return self._num_read < self._first + self.allowed

    def advance(self, size: int) -> tuple[int, Output | None]:
        """Read some characters; return how many, and what there is to report."""
        begin, is_skipping = self._states, self._num_read < self._first
        end = self._first if is_skipping else min(self._first + self.allowed, self._num_read + self._study.max_piece)
        chars = self._ids[self._num_read : min(self._num_read + size, end)]
        self._num_read += len(chars)
        report = None
        if is_skipping:
            logits, self._states = self._model.read(chars, begin)
            is_finite = bool(np.isfinite(logits).all())
        else:
            logits, walked = self._model.walk(chars, begin)
            self._states = [state[-1] for state in walked]
            is_finite = all(np.isfinite(array).all() for array in (logits, *walked))
            report = self._study.add(Steps.of(chars, logits, walked, begin)) if is_finite else None
        if not is_finite:
            return len(chars), Output(self._identity, not_finite=True)
        is_done = self._num_read == len(self._ids)
        if report is None and (is_done or not self.may_read):
            report = self._study.flush()
        if is_done:
            return len(chars), Output(self._identity, report=report, finished=FinishReason.MAX_CHARS)
        return len(chars), None if report is None else Output(self._identity, report=report)
