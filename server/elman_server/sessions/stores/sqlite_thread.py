"""A connection to a SQLite file and the thread that alone uses it."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final, TypeVar

import structlog

from elman_server.domain.errors import CorruptRecordError, ServerError, StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

    _Job = tuple[Callable[[sqlite3.Connection], Any], Future[Any]]

MAX_GROUP: Final = 256  # calls that share a transaction
RETRY_SECONDS: Final = 1.0
_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})

log = structlog.get_logger(__name__)

_T = TypeVar("_T")


class SqliteThread:
    """Runs work on a connection, in transactions, off the event loop.

    Work that arrives while a transaction is committed joins the next one: one sync to disk serves all that wait.
    Work that refuses, with a ServerError, must do so before its first write, because the transaction continues.

    Args:
        begin: the statement that begins a transaction.
    """

    def __init__(self, connection: sqlite3.Connection, begin: str) -> None:
        self._connection = connection
        self._begin = begin
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._is_closing = self._is_locked = False
        self._thread = threading.Thread(target=self._run, name="elman-sqlite", daemon=True)
        self._thread.start()

    async def run(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Return what `work` returns, once that is committed.

        Raises:
            StoreUnavailableError: the file cannot be read or written; nothing has changed.
            CorruptRecordError: it is damaged.
        """
        future: Future[_T] = Future()
        self._jobs.put((work, future))
        return await asyncio.wrap_future(future)

    async def close(self) -> None:
        """Finish the work that waits and close the connection."""
        self._jobs.put(None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        while not self._is_closing:
            group = self._next_group()
            self._is_locked = False
            outcomes = self._transaction([work for work, _ in group])
            if self._is_locked:
                # What has come meanwhile has waited as long for the same file, and must not wait again.
                late = self._next_group(is_awaited=False)
                outcomes += [outcomes[0]] * len(late)
                group += late
            for (_, future), outcome in zip(group, outcomes, strict=True):
                if isinstance(outcome, Exception):
                    future.set_exception(outcome)
                else:
                    future.set_result(outcome)
        self._connection.close()

    def _next_group(self, *, is_awaited: bool = True) -> list[_Job]:
        """Return the jobs that wait, or without `is_awaited` those that have come, all of them."""
        jobs: list[_Job | None] = [self._jobs.get()] if is_awaited else []
        with contextlib.suppress(queue.Empty):
            while None not in jobs[-1:] and (len(jobs) < MAX_GROUP or not is_awaited):
                jobs.append(self._jobs.get_nowait())
        self._is_closing = None in jobs[-1:]
        # What was cancelled while it waited has changed nothing.
        return [job for job in jobs if job is not None and job[1].set_running_or_notify_cancel()]

    def _transaction(self, group: list[Callable[[sqlite3.Connection], Any]]) -> list[Any]:
        """Return what each of `group` returned or raised; all is committed or, after another error, nothing."""
        try:
            self._connection.execute(self._begin)
        except Exception as error:  # noqa: BLE001  its callers get it
            # Another process holds the file: one call after another would wait for it again.
            self._is_locked = True
            return [_translated(error)] * len(group)
        try:
            outcomes = [self._outcome(work) for work in group]
            self._connection.execute("COMMIT")
        except Exception as error:  # noqa: BLE001  its caller gets it
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")  # fails where SQLite has done so by itself
            if len(group) > 1:  # its neighbours may succeed without it
                return [outcome for work in group for outcome in self._transaction([work])]
            return [_translated(error)] * len(group)
        return outcomes

    def _outcome(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        try:
            return work(self._connection)
        except ServerError as refusal:
            return refusal


def _translated(error: Exception) -> Exception:
    """Return the domain's error for one of SQLite's; others are defects, and stay what they are."""
    if not isinstance(error, sqlite3.Error):
        return error
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the primary code
    log.warning("store_failed", error=str(error), code=getattr(error, "sqlite_errorname", ""))
    if code in _DAMAGED:
        return CorruptRecordError("the session file is damaged; restore it from a copy")
    if code == sqlite3.SQLITE_FULL:
        return StoreUnavailableError("the disk of the session store is full", RETRY_SECONDS)
    return StoreUnavailableError(f"the session store failed: {error}", RETRY_SECONDS)
