"""Progress: what a running turn has read and delivered since it was last durable."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from elman_server.domain.state import SessionState


@dataclass(slots=True)
class Progress:
    """What a turn has read and delivered since it was last durable, and the states that the engine sent.

    Attributes:
        start: the state when it was last durable.
        prompt: ids that were fed after it.
        delivered: ids that were sampled and given to the transport; of four bytes each, a list's would take eight.
    """

    start: SessionState
    prompt: list[int]
    delivered: array[int] = field(default_factory=lambda: array("I"))
    _states: list[tuple[int, SessionState]] = field(default_factory=list)  # few: a deque would take more memory

    def remember(self, num_sampled: int, state: SessionState) -> None:
        """Keep the state after `num_sampled` characters."""
        self._states.append((num_sampled, state))

    def deliver(self, ids: list[int]) -> None:
        """Note that characters were given to the transport."""
        self.delivered.extend(ids)
        while len(self._states) > 1 and self._states[1][0] <= len(self.delivered):
            del self._states[0]

    def last_state(self) -> tuple[int, SessionState] | None:
        """Return the last state known of what was delivered, and after how many characters it is."""
        return self._states[0] if self._states and self._states[0][0] <= len(self.delivered) else None

    def nearest(self) -> tuple[SessionState, list[int]]:
        """Return the last known state not beyond what was delivered, and the ids still to be read after it."""
        if known := self.last_state():
            num_sampled, state = known
            return state, self.delivered[num_sampled:].tolist()
        return self.start, [*self.prompt, *self.delivered]

    def advance(self, num_sampled: int, state: SessionState) -> None:
        """Drop what has become durable."""
        self.start, self.prompt, self.delivered = state, [], self.delivered[num_sampled:]
        self._states = [(number - num_sampled, known) for number, known in self._states if number > num_sampled]
