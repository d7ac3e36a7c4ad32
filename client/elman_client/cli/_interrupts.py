"""Ctrl-C that is never raised inside gRPC: calls run in a thread of their own, and the main thread waits for them.

A KeyboardInterrupt in the middle of gRPC's own lock handling leaves the channel locked for ever: each later call hangs.
"""

from __future__ import annotations

import signal
import socket
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_Value = TypeVar("_Value")


class Interrupts:
    """What Ctrl-C does while it is entered: it ends what ``run`` runs, or will run next.

    Only the main thread may enter it.
    """

    def __init__(self) -> None:
        self._events: SimpleQueue[_Answer | None] = SimpleQueue()  # of the next run; None: Ctrl-C
        self._stop: Callable[[], None] | None = None
        self._is_interrupted = False

    def __enter__(self) -> Self:
        self._previous = signal.getsignal(signal.SIGINT)
        if self._previous is not signal.SIG_IGN:  # a shell starts background jobs so
            # The handler may run at any moment: `put` is the one queue method that allows that.
            signal.signal(signal.SIGINT, lambda *_: self._events.put(None))
        return self

    def __exit__(self, *_error: object) -> None:
        signal.signal(signal.SIGINT, self._previous)

    @property
    def is_interrupted(self) -> bool:
        """Whether Ctrl-C came during this run."""
        return self._is_interrupted

    def forget(self) -> None:
        """Let a Ctrl-C that came after the last run not end the next one."""
        self._events = SimpleQueue()

    def until(self, values: Iterable[_Value]) -> Iterator[_Value]:
        """Iterate until Ctrl-C comes."""
        for value in values:
            if self._is_interrupted:
                return
            yield value

    @contextmanager
    def stopping(self, stop: Callable[[], None]) -> Iterator[None]:
        """Let the first Ctrl-C call ``stop``, after which the run is expected to return soon."""
        self._stop = stop
        if self._is_interrupted:  # it came first
            stop()
        try:
            yield
        finally:
            if self._stop is stop:
                self._stop = None

    def run(self, function: Callable[[], _Value], *, is_patient: bool = False) -> _Value:
        """Return what ``function`` returns, or raise what it raises.

        Args:
            function: Runs in a thread of its own.
            is_patient: Wait after a first Ctrl-C even if nothing can be stopped yet.

        Raises:
            KeyboardInterrupt: Ctrl-C came. The function has returned, unless nothing could stop it or
                Ctrl-C came twice: its thread is left behind then.
        """
        events = self._events
        self._is_interrupted, self._stop = False, None
        results: list[_Value] = []
        with _Bell() as bell:
            Thread(target=_work, args=(lambda: results.append(function()), events, bell), daemon=True).start()
            try:
                while (answer := _next(events, bell)) is None:
                    if self._is_interrupted or not (is_patient or self._stop):
                        raise KeyboardInterrupt
                    self._is_interrupted = True
                    if stop := self._stop:
                        Thread(target=stop, daemon=True).start()  # it may wait for the server
            finally:
                self.forget()
        if self._is_interrupted:
            raise KeyboardInterrupt
        if answer.error is not None:
            raise answer.error
        return results[0]


@dataclass(frozen=True)
class _Answer:
    """A function has ended: how."""

    error: BaseException | None


class _Bell:
    """Wakes the main thread, also for a signal that another thread took or that came just before it began to wait."""

    def __enter__(self) -> Self:
        self._waiting, self._ringing = socket.socketpair()
        self._ringing.setblocking(False)
        self._previous = signal.set_wakeup_fd(self._ringing.fileno(), warn_on_full_buffer=False)
        return self

    def __exit__(self, *_error: object) -> None:
        signal.set_wakeup_fd(self._previous)
        self._waiting.close()
        self._ringing.close()

    def ring(self) -> None:
        """Let one ``wait`` end."""
        with suppress(OSError):  # nobody waits any more
            self._ringing.send(b"\0")

    def wait(self) -> None:
        """Wait for a signal or ``ring``."""
        self._waiting.recv(1)


def _next(events: SimpleQueue[_Answer | None], bell: _Bell) -> _Answer | None:
    while True:
        try:
            return events.get_nowait()
        except Empty:
            bell.wait()


def _work(function: Callable[[], None], events: SimpleQueue[_Answer | None], bell: _Bell) -> None:
    try:
        function()
    except BaseException as error:  # noqa: BLE001 - raised again in the main thread
        events.put(_Answer(error))
    else:
        events.put(_Answer(None))
    bell.ring()
