"""One generation's life, as a session and its iterator both know it."""

from collections import deque
from enum import Enum

from elman_client._errors import (
    DeadlineExceededError,
    ElmanError,
    FailedPreconditionError,
    InternalError,
    TurnNotFoundError,
    UnavailableError,
)
from elman_client._shared.leaving import Left
from elman_client._shared.operation import Operation
from elman_client._shared.retrying import Attempts
from elman_client._shared.turns import Asked
from elman_client._types import Chunk, Event, Finished, FinishReason, Started


class TurnState(Enum):
    """Where a turn is in its life."""

    READY = "ready"  # nothing was sent yet
    RUNNING = "running"  # the stream is open, or is about to be opened again
    ENDED = "ended"  # the server said how it ended
    ABANDONED = "abandoned"  # the caller left it; the server may still be at it


class Turn:
    """Follows the events of one turn, over as many streams as it takes. It touches no socket.

    Args:
        asked: What is asked for.
        attempts: Decides whether to continue when a stream breaks.

    Attributes:
        taken: The last event that the caller has. The generation sets it, in the instruction before it returns the
            event: CPython raises an interrupt, and switches threads, at calls and jumps only, so what the caller
            has and what this says are never two things.
        is_left: The caller has left; nothing is delivered any more.
        is_reported: And the turn's end on the server is taken care of.
    """

    def __init__(self, asked: Asked, attempts: Attempts) -> None:
        self._asked = asked
        self._attempts = attempts
        self._started: Started | None = None
        self._finished: Finished | None = None
        self._position: int | None = None  # after the last chunk that was received
        self._is_unknown = False  # the server has nothing of the turn
        self._received: deque[Event] = deque()
        self._next: Event | None = None
        self._state = TurnState.READY
        self.taken: Event | None = None
        self.is_left = self.is_reported = False

    @property
    def started(self) -> Started:
        """The first event."""
        if self._started is None:
            raise FailedPreconditionError("the turn has not started: read from it first")
        return self._started

    @property
    def finished(self) -> Finished:
        """The last event."""
        if self._finished is None:
            raise FailedPreconditionError("the turn has not finished: read it to its end first")
        return self._finished

    @property
    def is_over(self) -> bool:
        """Whether there is nothing more to read."""
        return self._state in {TurnState.ENDED, TurnState.ABANDONED}

    @property
    def time_left(self) -> float:
        """Seconds until the turn's deadline; infinity: it has none."""
        return self._attempts.time_left

    @property
    def position(self) -> int | None:
        """Up to where the caller has the session's text; ``None``: it has nothing of the turn, and not its start."""
        if isinstance(self.taken, Chunk | Finished):
            return self.taken.position
        if self._asked.known_position is None and self._started is not None:
            return self._started.start_position
        return self._asked.known_position

    @property
    def left(self) -> Left:
        """The turn as its caller left it."""
        return self._asked.left(self.position)

    def begin(self) -> None:
        """Count the timeout from now on, if nothing was read before."""
        if self._state is TurnState.READY:
            self._attempts.begin()

    def operation(self) -> Operation[tuple[Event, ...]]:
        """Return the call that begins the turn, or continues it. It is sent now."""
        if not self.is_over:
            self._state = TurnState.RUNNING
        if self._started is None:
            return self._asked.first()
        if self._asked.can_resume and not self._is_unknown:
            return self._asked.resumed(self._position)
        return self._asked.again(self._started.sampling.seed, is_begun=self._position is not None)

    def receive(self, events: tuple[Event, ...] | None) -> None:
        """Keep the events of one answer, ``None`` is the stream's end, for ``next_event``."""
        if events is None:
            raise InternalError("the stream ended without its last event; try again")
        self._attempts.succeeded()
        self._received.extend(events)

    def next_event(self) -> Event | None:
        """Return the event after the one that was taken; ``None``: it is not received yet."""
        while self._next is self.taken and self._received:
            self._next = self._follow(self._received.popleft()) or self._next
        return None if self._next is self.taken else self._next

    def _follow(self, event: Event) -> Event | None:
        """Return ``event``, or ``None`` if it is known already."""
        if isinstance(event, Started):
            return self._follow_started(event)
        if isinstance(event, Chunk):
            if self._position is not None and event.position <= self._position:
                return None
            self._position = event.position
            return event
        drained = event.finish_reason is FinishReason.SERVER_DRAINING
        if drained and self._attempts.can_retry:
            raise UnavailableError("the server is shutting down", reason="DRAINING")
        if event.finish_reason is FinishReason.DEADLINE:
            raise DeadlineExceededError("the turn was ended because its timeout is over")
        self._finished = event
        self._state = TurnState.ENDED
        return event

    def _follow_started(self, event: Started) -> Started | None:
        self._is_unknown = False
        if self._started is None:
            self._started = event
            return event
        if event != self._started:
            self.taken, self._next, self._started = None, None, event  # the caller has nothing of this other turn
            raise FailedPreconditionError("the turn was lost, and the session or its model is another one now")
        return None

    def delay(self, error: BaseException) -> float | None:
        """Return the seconds to wait before the turn is continued after an error; ``None``: it is not."""
        if self.is_over or not isinstance(error, ElmanError):
            return None
        self._received.clear()
        if isinstance(error, TurnNotFoundError) and self._started is not None and not self._is_unknown:
            self._is_unknown = True
            return 0.0
        return self._attempts.delay(error)

    def fail(self, error: BaseException) -> None:
        """Follow an error that ends it. With a reason it is the server's last word on the turn."""
        if isinstance(error, ElmanError) and error.reason:
            self._state = TurnState.ENDED

    def leave(self) -> bool:
        """Deliver nothing more; return whether the server may be at it, until ``is_reported`` says that it knows."""
        if self.is_reported:
            return False
        self.is_left = True  # before anyone asks for the position
        if self._state is TurnState.RUNNING:
            self._state = TurnState.ABANDONED
        elif self._state is TurnState.READY:
            self._state = TurnState.ENDED
        return self._state is TurnState.ABANDONED
