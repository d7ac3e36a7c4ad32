"""The tally: what an engine counts between two reports; a step adds one number."""

from __future__ import annotations

import resource
import time
from typing import TYPE_CHECKING

from elman_server.engine.protocol import Report
from elman_server.process.observe.counters import SIZES, Histogram

if TYPE_CHECKING:
    from collections.abc import Iterable


class Tally:
    """Counts steps, their rows and times, and the waits of jobs."""

    def __init__(self, capacity: int) -> None:
        self._sizes = [0] * (capacity + 1)  # steps by their number of rows
        self._num_untimed = 0
        self._cpu_seconds = 0.0
        self._begin()

    def step(self, num_rows: int) -> None:
        """Count a step."""
        self._sizes[num_rows] += 1
        self._num_untimed += 1

    def time_steps(self, seconds: float) -> None:
        """Note how long all steps since the last time took together: many fast ones share one look at the clock."""
        if self._num_untimed:
            self._steps.add(seconds / self._num_untimed, self._num_untimed)
            self._num_untimed = 0

    def time_waits(self, arrivals: Iterable[float]) -> None:
        """Note that jobs that arrived at these moments have a place now."""
        now = time.monotonic()
        for arrived in arrivals:
            self._waits.add(now - arrived)

    def report(self) -> Report:
        """Return what was counted since the last report."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        before, self._cpu_seconds = self._cpu_seconds, usage.ru_utime + usage.ru_stime
        steps, batches, waits = self._steps, Histogram(SIZES), self._waits
        for size, number in enumerate(self._sizes):
            if number:
                batches.add(size, number)
                self._sizes[size] = 0
        self._begin()
        return Report(
            steps.counts,
            steps.total,
            batches.counts,
            batches.total,
            waits.counts,
            waits.total,
            self._cpu_seconds - before,
        )

    def _begin(self) -> None:
        self._steps, self._waits = Histogram(), Histogram()
