"""Ctrl-C that is never raised inside gRPC: calls run in a thread of their own, and the main thread waits for them.

A KeyboardInterrupt in the middle of gRPC's own lock handling leaves the channel locked for ever: each later call hangs.
"""

from __future__ import annotations

import signal
from contextlib import contextmanager
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_Value = TypeVar("_Value")
_Answer = tuple[_Value | None, BaseException | None]


class Interrupts:
    """What Ctrl-C does while it is entered: it ends what ``run`` runs, and is ignored between two runs.

    Only the main thread may enter it.
    """

    def __init__(self) -> None:
        self._answers: SimpleQueue[_Answer[object] | None] = SimpleQueue()  # None: Ctrl-C
        self._stop: Callable[[], None] | None = None
        self._is_interrupted = False

    def __enter__(self) -> Self:
        self._previous = signal.getsignal(signal.SIGINT)
        if self._previous is not signal.SIG_IGN:  # a shell starts background jobs so
            # The handler may run at any moment: `put` is the one queue method that allows that.
            signal.signal(signal.SIGINT, lambda *_: self._answers.put(None))
        return self

    def __exit__(self, *_error: object) -> None:
        signal.signal(signal.SIGINT, self._previous)

    @property
    def is_interrupted(self) -> bool:
        """Whether Ctrl-C came during this run."""
        return self._is_interrupted

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
        try:
            yield
        finally:
            self._stop = None

    def run(self, function: Callable[[], _Value]) -> _Value:
        """Return what ``function`` returns, or raise what it raises.

        Raises:
            KeyboardInterrupt: Ctrl-C came. The function has returned, unless nothing could stop it or
                Ctrl-C came twice: its thread is left behind then.
        """
        answers: SimpleQueue[_Answer[_Value] | None] = SimpleQueue()
        self._is_interrupted, self._answers, self._stop = False, answers, None  # type: ignore[assignment]
        Thread(target=_work, args=(function, answers), daemon=True).start()
        while (answer := answers.get()) is None:
            stop = self._stop
            if self._is_interrupted or stop is None:
                raise KeyboardInterrupt
            self._is_interrupted = True
            Thread(target=stop, daemon=True).start()  # it may wait for the server
        if self._is_interrupted:
            raise KeyboardInterrupt
        value, error = answer
        if error is not None:
            raise error
        return value  # type: ignore[return-value] # without an error it is one


def _work(function: Callable[[], _Value], answers: SimpleQueue[_Answer[_Value] | None]) -> None:
    try:
        answers.put((function(), None))
    except BaseException as error:  # noqa: BLE001 - raised again in the main thread
        answers.put((None, error))
