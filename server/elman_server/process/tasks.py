"""Background tasks: none dies unseen."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

import structlog

if TYPE_CHECKING:
    from collections.abc import Coroutine

log = structlog.get_logger(__name__)

_T = TypeVar("_T")

_running: set[asyncio.Task[Any]] = set()  # the loop itself holds only weak references


def background(work: Coroutine[Any, Any, _T], name: str) -> asyncio.Task[_T]:
    """Run work that nobody waits for; if it raises, that is an error in the log."""
    task = asyncio.create_task(work, name=name)
    _running.add(task)
    task.add_done_callback(_ended)
    return task


def _ended(task: asyncio.Task[Any]) -> None:
    _running.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("background_task_died", task=task.get_name(), exc_info=error)
