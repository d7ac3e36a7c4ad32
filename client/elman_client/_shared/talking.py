"""What was said in a chat, and how much of the answers the caller has."""

from collections import deque

from elman_client._errors import FailedPreconditionError
from elman_client._shared import turns
from elman_client._types import Chunk, Event, Finished, GenerateOptions, Started


class Talking:
    """Follows the turns of a chat. It touches no socket.

    Attributes:
        taken: The last event that the caller has; set as ``Turn.taken`` is.
        is_left: The caller has left; nothing is delivered any more.
        is_reported: And the running turn's end on the server is taken care of.
    """

    def __init__(self, session: str) -> None:
        self._session = session
        self._received: deque[Event] = deque()
        self._num_turns = 0  # that were said, and of which the caller does not have the end
        self.taken: Event | None = None
        self.is_left = self.is_reported = False

    @property
    def is_running(self) -> bool:
        """Whether the server may be at a turn."""
        return self._num_turns > 0

    @property
    def kept_position(self) -> int:
        """Up to where the caller has the session's text."""
        if isinstance(self.taken, Started):
            return self.taken.start_position
        return self.taken.position if isinstance(self.taken, Chunk | Finished) else 0

    def check_open(self) -> None:
        """Check that the chat is not closed."""
        if self.is_left:
            raise FailedPreconditionError("this chat is closed: begin a new one")

    def say(self, prompt: str, options: GenerateOptions) -> bytes:
        """Return the message that begins a turn."""
        self.check_open()
        message = turns.said(prompt, options, self._session)
        self._num_turns += 1
        return message

    def receive(self, events: tuple[Event, ...]) -> None:
        """Keep the events of one answer for ``next_event``."""
        self._received.extend(events)

    def next_event(self) -> Event | None:
        """Return the event after the one that was taken; ``None``: it is not received yet."""
        if self._received and self._received[0] is self.taken:
            self._received.popleft()
            if isinstance(self.taken, Finished):
                self._num_turns -= 1
        return self._received[0] if self._received else None
