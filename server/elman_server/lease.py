"""The lease: the right to write to a session, held by the one turn that runs on it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from elman_server.generation import FinishReason


@dataclass(slots=True, eq=False)
class Lease:
    """The right to write to a session, held by the one turn that runs on it.

    Attributes:
        task: the task that runs the turn, for a turn whose reader does not take what it is handed.
        born: when the session was created, as soon as the turn has found it: until then it may expire, and one that
            is made later under the same name is another.
        done: set when the turn is committed or given up.
    """

    session_id: str | None
    born: float | None = None
    task: asyncio.Task[object] | None = None
    done: asyncio.Event = field(default_factory=asyncio.Event)
    _end: FinishReason | Exception | None = None
    _on_end: Callable[[FinishReason | Exception], None] | None = None

    def interrupt(self, end: FinishReason | Exception) -> None:
        """End the turn with a reason or an error, now or as soon as it has something that can be ended."""
        self._end = end
        if self._on_end is not None:
            self._on_end(end)

    def watch(self, on_end: Callable[[FinishReason | Exception], None]) -> None:
        """Say what ends the turn; it is called at once if the end came before."""
        self._on_end = on_end
        if self._end is not None:
            on_end(self._end)
