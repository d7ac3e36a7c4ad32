"""Signals: the first SIGTERM or SIGINT asks the server to stop, the second ends it at once."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from types import TracebackType

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_EXIT_BASE: Final = 128  # a shell's exit status of a process that a signal ended


class StopSignals:
    """While entered, `stop` is set by the first signal; the second leaves without cleaning up.

    Attributes:
        stop: set once the server shall drain.
    """

    def __init__(self) -> None:
        self.stop = asyncio.Event()

    def __enter__(self) -> asyncio.Event:
        """Watch the signals of the running loop; return the event."""
        for number in _SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, self._received, number)
        return self.stop

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the signals back."""
        for number in _SIGNALS:
            asyncio.get_running_loop().remove_signal_handler(number)

    def _received(self, number: int) -> None:
        if self.stop.is_set():
            os._exit(_EXIT_BASE + number)
        self.stop.set()
