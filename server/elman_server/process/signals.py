"""Signals: the first SIGTERM or SIGINT asks the server to stop, the second ends it at once, SIGHUP reloads."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from typing import TYPE_CHECKING, Final

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_EXIT_BASE: Final = 128  # a shell's exit status of a process that a signal ended
_LOG_SECONDS: Final = 0.2  # for the last line

log = structlog.get_logger(__name__)


class StopSignals:
    """While entered, `stop` is set by the first signal; the second leaves without cleaning up.

    Args:
        limit_seconds: how long a stop may take. Then the process ends without cleaning up.
        hang_up: is called at each SIGHUP. A server outlives the terminal that it was started from.

    Attributes:
        stop: set once the server has to drain.
    """

    def __init__(self, limit_seconds: float, hang_up: Callable[[], None]) -> None:
        self.stop = asyncio.Event()
        self._hang_up = hang_up
        # A thread, because the loop may be what hangs.
        self._limit = threading.Timer(limit_seconds, self._give_up, [limit_seconds])
        self._limit.daemon = True

    def __enter__(self) -> asyncio.Event:
        """Watch the signals of the running loop; return the event."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._hang_up)
        for number in _SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, self._received, number)
        return self.stop

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop watching."""
        self._limit.cancel()
        for number in (*_SIGNALS, signal.SIGHUP):
            asyncio.get_running_loop().remove_signal_handler(number)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # what is left to do is short

    def _received(self, number: int) -> None:
        if self.stop.is_set():
            os._exit(_EXIT_BASE + number)
        self.stop.set()
        self._limit.start()

    def _give_up(self, seconds: float) -> None:
        log.error("stop_took_too_long", seconds=seconds)
        threading.Event().wait(_LOG_SECONDS)
        os._exit(1)
