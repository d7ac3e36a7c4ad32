"""What was said in a chat, and how much of the answers the caller has."""

from collections import deque

from elman_client._errors import FailedPreconditionError
from elman_client._shared import turns
from elman_client._shared.leaving import Left
from elman_client._types import Chunk, Event, Finished, GenerateOptions


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
        self._request_id = ""  # of the last turn
        self._num_turns = 0  # that were said, and of which the caller does not have the end
        self.taken: Event | None = None
        self.is_left = self.is_reported = False

    @property
    def is_running(self) -> bool:
        """Whether the server may be at a turn."""
        return self._num_turns > 0

    @property
    def left(self) -> Left:
        """The running turn as its caller left it."""
        position = None
        if self._num_turns == 1:  # else the caller is still at a turn before it
            if isinstance(self.taken, Chunk | Finished):
                position = self.taken.position
            elif self.taken is not None:
                position = self.taken.start_position
        return Left(self._session, self._request_id, position)

    def check_open(self) -> None:
        """Check that the chat is not closed."""
        if self.is_left:
            raise FailedPreconditionError("this chat is closed: begin a new one")

    def say(self, prompt: str, options: GenerateOptions) -> bytes:
        """Return the message that begins a turn."""
        self.check_open()
        turn = turns.request(prompt, options, session=self._session)
        self._request_id = turn.request_id
        self._num_turns += 1
        return turns.said(turn)

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
