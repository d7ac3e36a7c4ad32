"""A connection to a SQLite file and the thread that alone uses it."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import structlog

from elman_server.domain.errors import CorruptRecordError, ServerError, StoreFullError, StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from elman_server.sessions.stores.reserve import Reserve

MAX_GROUP: Final = 256  # calls that share a transaction
RETRY_SECONDS: Final = 1.0
_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})

log = structlog.get_logger(__name__)

_T = TypeVar("_T")


class _Job(NamedTuple):
    work: Callable[[sqlite3.Connection], Any]
    future: Future[Any]
    frees: bool


class SqliteThread:
    """Runs work on a connection, in transactions, off the event loop.

    Work that arrives while a transaction is committed joins the next one: one sync to disk serves all that wait.
    Work that refuses, with a ServerError, must do so before its first write, because the transaction continues.

    Args:
        begin: the statement that begins a transaction.
        path: of the file: once another one is there, or none, nothing is read or written any more.
        reserve: space for work that frees some.
    """

    def __init__(self, connection: sqlite3.Connection, begin: str, path: Path, reserve: Reserve | None = None) -> None:
        self._connection = connection
        self._begin = begin
        self._path, self._file = path, _identity(path)
        self._reserve = reserve
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._is_closing = self._is_locked = False
        self._thread = threading.Thread(target=self._run, name="elman-sqlite", daemon=True)
        self._thread.start()

    async def run(self, work: Callable[[sqlite3.Connection], _T], *, frees: bool = False) -> _T:
        """Return what `work` returns, once that is committed; work that `frees` space may use the reserve.

        Raises:
            StoreUnavailableError: the file cannot be read or written, or is another one; nothing has changed.
            CorruptRecordError: it is damaged.
        """
        future: Future[_T] = Future()
        self._jobs.put(_Job(work, future, frees))
        return await asyncio.wrap_future(future)

    async def close(self) -> None:
        """Finish the work that waits and close the connection."""
        self._jobs.put(None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        while not self._is_closing:
            group = self._next_group()
            self._is_locked = False
            outcomes = self._transaction(group)
            if self._is_locked:
                # What has come meanwhile has waited as long for the same file, and must not wait again.
                late = self._next_group(is_awaited=False)
                outcomes += [outcomes[0]] * len(late)
                group += late
            for job, outcome in zip(group, outcomes, strict=True):
                if isinstance(outcome, Exception):
                    job.future.set_exception(outcome)
                else:
                    job.future.set_result(outcome)
        self._connection.close()

    def _next_group(self, *, is_awaited: bool = True) -> list[_Job]:
        """Return the jobs that wait, or without `is_awaited` those that have come, all of them."""
        jobs: list[_Job | None] = [self._jobs.get()] if is_awaited else []
        with contextlib.suppress(queue.Empty):
            while None not in jobs[-1:] and (len(jobs) < MAX_GROUP or not is_awaited):
                jobs.append(self._jobs.get_nowait())
        self._is_closing = None in jobs[-1:]
        # What was cancelled while it waited has changed nothing.
        return [job for job in jobs if job is not None and job.future.set_running_or_notify_cancel()]

    def _transaction(self, group: list[_Job]) -> list[Any]:
        """Return what each of `group` returned or raised; all is committed or, after another error, nothing."""
        if _identity(self._path) != self._file:
            what = "the file of the session store was removed or replaced; restart the server"
            return [StoreUnavailableError(what, RETRY_SECONDS)] * len(group)
        try:
            self._connection.execute(self._begin)
        except Exception as error:  # noqa: BLE001  its callers get it
            # Another process holds the file: one call after another would wait for it again.
            self._is_locked = True
            return [_translated(error)] * len(group)
        try:
            outcomes = [self._outcome(job.work) for job in group]
            self._connection.execute("COMMIT")
        except Exception as error:  # noqa: BLE001  its caller gets it
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")  # fails where SQLite has done so by itself
            if len(group) > 1:  # its neighbours may succeed without it
                return [outcome for job in group for outcome in self._transaction([job])]
            translated = _translated(error)
            if isinstance(translated, StoreFullError) and group[0].frees and self._reserve is not None:
                with self._reserve.lent():
                    return self._transaction([group[0]._replace(frees=False)])
            return [translated]
        return outcomes

    def _outcome(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        try:
            return work(self._connection)
        except ServerError as refusal:
            return refusal


def _identity(path: Path) -> tuple[int, int] | None:
    """Return which file is at a path; None: there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _translated(error: Exception) -> Exception:
    """Return the domain's error for one of SQLite's; others are defects, and stay what they are."""
    if not isinstance(error, sqlite3.Error):
        return error
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the primary code
    log.warning("store_failed", error=str(error), code=getattr(error, "sqlite_errorname", ""))
    if code in _DAMAGED:
        return CorruptRecordError("the session file is damaged; restore it from a copy")
    if code == sqlite3.SQLITE_FULL:
        return StoreFullError("the disk of the session store is full", RETRY_SECONDS)
    return StoreUnavailableError(f"the session store failed: {error}", RETRY_SECONDS)
