"""Threads in which gRPC runs, so that an interrupt never finds the main thread inside its locks.

Python raises KeyboardInterrupt, and whatever a signal handler raises, in the main thread between any two
instructions. gRPC's locks are Python objects: one that is interrupted at the wrong instruction stays locked,
and every later call on the channel waits for ever. So the caller's thread only puts into and takes from
``SimpleQueue``, which is written in C, and workers do the rest.
"""

import _thread
import math
import os
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from queue import Empty, SimpleQueue
from threading import Lock
from typing import Final, Generic, Self, TypeVar
from weakref import ReferenceType, ref

Value = TypeVar("Value")

_MAX_IDLE: Final = 8


class Workers:
    """As many threads as there are jobs at a time; a few are kept for the next ones."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._has_begun = False
        self._lock = Lock()  # workers alone take it
        self._num_idle = 0

    def run(self, job: Callable[[], None]) -> None:
        """Let a worker run ``job``, which raises nothing, in the caller's context."""
        context = copy_context()  # tracers keep the current span there
        self._jobs.put(lambda: context.run(job))
        if not self._has_begun:
            self._start()
            self._has_begun = True  # last: an interrupt before it costs a thread, one after it would cost all

    def run_at_end(self, of: object, job: Callable[[], None]) -> ReferenceType[object]:
        """Let a worker run ``job`` once an object ends. What is returned has to live until then."""
        # All of it is written in C by then: an interrupt that comes while Python code of an object's end runs is lost.
        # The reference is put's second argument, which a SimpleQueue ignores.
        return ref(of, partial(self._jobs.put, job))

    def _start(self) -> None:
        # Not a threading.Thread: its start() waits on a lock that an interrupt can break.
        _thread.start_new_thread(self._work, ())

    def _work(self) -> None:
        while self._keeps_worker():
            job = self._jobs.get()
            self._find_successor()
            job()
            del job  # what it holds ends here, not when the next one comes

    def _keeps_worker(self) -> bool:
        with self._lock:
            self._num_idle += 1
            if self._num_idle <= _MAX_IDLE:
                return True
            self._num_idle -= 1
            return False

    def _find_successor(self) -> None:
        """Start the worker that takes the next job, if none is waiting for it."""
        with self._lock:
            self._num_idle -= 1
            is_last = self._num_idle == 0
        if is_last:
            with suppress(RuntimeError):  # the system has no more threads: the next job waits for this one
                self._start()


class Result(Generic[Value]):
    """What a function returns or raises, once a worker has called it. It is called once."""

    def __init__(self, function: Callable[[], Value]) -> None:
        self._function = function
        self._waiters: list[SimpleQueue[None]] = []
        self._has_begun = self._is_done = False
        self._value: Value
        self._error: BaseException | None = None

    def begin(self) -> Self:
        """Let a worker call the function, unless one does or did."""
        run(self._call)
        return self

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it has returned or raised; return whether it has within ``timeout`` seconds."""
        waiter: SimpleQueue[None] = SimpleQueue()
        self._waiters.append(waiter)
        if not self._is_done:
            try:
                waiter.get(timeout=None if timeout == math.inf else timeout)
            except Empty:
                return False
        return True

    def get(self) -> Value:
        """Return or raise what the function did."""
        self.wait()
        try:
            if self._error is not None:
                raise self._error
            return self._value
        finally:
            del self  # an error holds the frames that it came through: they must not hold the error

    def _call(self) -> None:
        if self._has_begun:
            return
        self._has_begun = True
        try:
            self._value = self._function()
        except BaseException as error:  # noqa: BLE001 - it is raised where somebody waits for it
            self._error = error
        self._is_done = True  # first: who comes after this does not wait
        for waiter in self._waiters:
            waiter.put(None)
        del self


_workers = Workers()


def run(job: Callable[[], None]) -> None:
    """Let a worker run ``job``, which raises nothing, in the caller's context."""
    _workers.run(job)


def run_at_end(of: object, job: Callable[[], None]) -> ReferenceType[object]:
    """Let a worker run ``job`` once an object ends. What is returned has to live until then."""
    return _workers.run_at_end(of, job)


def _begin_anew() -> None:
    global _workers  # noqa: PLW0603 - the threads of a process are one thing, and stay behind in its parent
    _workers = Workers()


os.register_at_fork(after_in_child=_begin_anew)
