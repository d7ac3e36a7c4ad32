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
        self._jobs: queue.SimpleQueue[tuple[Callable[[sqlite3.Connection], Any], Future[Any]] | None]
        self._jobs = queue.SimpleQueue()
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
        while (first := self._jobs.get()) is not None:
            group, is_last = [first], False
            with contextlib.suppress(queue.Empty):
                while len(group) < MAX_GROUP and not is_last:
                    job = self._jobs.get_nowait()
                    is_last = job is None
                    group += [job] if job is not None else []
            # What was cancelled while it waited has changed nothing.
            group = [(work, future) for work, future in group if future.set_running_or_notify_cancel()]
            outcomes = self._transaction([work for work, _ in group])
            for (_, future), outcome in zip(group, outcomes, strict=True):
                if isinstance(outcome, Exception):
                    future.set_exception(outcome)
                else:
                    future.set_result(outcome)
            if is_last:
                break
        self._connection.close()

    def _transaction(self, group: list[Callable[[sqlite3.Connection], Any]]) -> list[Any]:
        """Return what each of `group` returned or raised; all is committed or, after another error, nothing."""
        try:
            self._connection.execute(self._begin)
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
