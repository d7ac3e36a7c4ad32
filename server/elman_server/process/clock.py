"""The clock: unix seconds, also while somebody sets the system's clock."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable

JUMP_SECONDS: Final = 60.0  # a change that the log reports; servers' clocks may differ by as much

log = structlog.get_logger(__name__)


def _elapsed() -> float:
    """Return seconds since some moment, those of a suspended machine too, where the system has them."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class Clock:
    """Unix seconds as the system has them; beside them two clocks that do not jump as that one may.

    Args:
        wall: the system's unix seconds, which anybody may set.
        elapsed: seconds that only pass.
    """

    def __init__(self, wall: Callable[[], float] = time.time, elapsed: Callable[[], float] = _elapsed) -> None:
        self._wall, self._elapsed = wall, elapsed
        self._begin = self._first = self._last = wall() - elapsed()  # when `elapsed` was 0

    def __call__(self) -> float:
        """Return the time as the system has it, which other servers and callers share."""
        return self._wall()

    def expiry(self) -> float:
        """Return the time with which the expiry of sessions is compared.

        A session never expires before its time to live has really passed: a jump forward is left out, a jump back is
        followed. So sessions that were used before a jump live longer by it, until the server is started again.
        """
        elapsed = self._elapsed()
        begin = self._wall() - elapsed
        if abs(begin - self._last) > JUMP_SECONDS:
            log.warning("clock_jumped", seconds=round(begin - self._last))
            self._last = begin
        self._begin = min(self._begin, begin)
        return self._begin + elapsed

    def steady(self) -> float:
        """Return the time by the system's clock as it was at the start, and what has passed since."""
        return self._first + self._elapsed()


SYSTEM: Final = Clock()
