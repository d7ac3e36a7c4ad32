"""Progress: what a running turn has read and handed over since it was last durable."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from elman_server.domain.state import SessionState


@dataclass(slots=True)
class Progress:
    """What a turn has read and handed over since it was last durable, and the memories that the engine told.

    Attributes:
        start: the memory when it was last durable.
        prompt: ids that were fed after it.
        handed: ids that were drawn and given to the transport; of four bytes each, a list's would take eight.
    """

    start: SessionState
    prompt: list[int]
    handed: array[int] = field(default_factory=lambda: array("I"))
    _memories: list[tuple[int, SessionState]] = field(default_factory=list)  # few: a deque would weigh more than they

    def remember(self, num_drawn: int, memory: SessionState) -> None:
        """Keep the memory after so many drawn characters."""
        self._memories.append((num_drawn, memory))

    def hand(self, ids: list[int]) -> None:
        """Note that characters were given to the transport."""
        self.handed.extend(ids)
        while len(self._memories) > 1 and self._memories[1][0] <= len(self.handed):
            del self._memories[0]

    def told(self) -> tuple[int, SessionState] | None:
        """Return the last memory that the engine told of what was handed over, and after how many characters."""
        return self._memories[0] if self._memories and self._memories[0][0] <= len(self.handed) else None

    def nearest(self) -> tuple[SessionState, list[int]]:
        """Return the last known memory not beyond what was handed over, and the ids still to be read after it."""
        if told := self.told():
            num_drawn, memory = told
            return memory, self.handed[num_drawn:].tolist()
        return self.start, [*self.prompt, *self.handed]

    def advance(self, num_drawn: int, memory: SessionState) -> None:
        """Forget what has become durable."""
        self.start, self.prompt, self.handed = memory, [], self.handed[num_drawn:]
        self._memories = [(number - num_drawn, known) for number, known in self._memories if number > num_drawn]
