"""One generation's life, as a session and its iterator both know it."""

from collections.abc import Callable
from enum import Enum

from elman_client._errors import ElmanError, FailedPreconditionError, InternalError
from elman_client._types import Event, Finished, Started


class TurnState(Enum):
    """Where a turn is in its life."""

    READY = "ready"  # nothing was sent yet
    RUNNING = "running"  # the stream is open
    ENDED = "ended"  # the server said how it ended
    ABANDONED = "abandoned"  # we left it; the server may still be settling it


class Turn:
    """Follows one stream of events. It touches no socket.

    Args:
        on_abandon: Called once if the turn is left while the server may still be at it.
    """

    def __init__(self, on_abandon: Callable[[], None]) -> None:
        self._on_abandon = on_abandon
        self._started: Started | None = None
        self._finished: Finished | None = None
        self.state = TurnState.READY

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
        return self.state in {TurnState.ENDED, TurnState.ABANDONED}

    def take(self, event: Event | None) -> Event:
        """Follow an event; ``None`` is the stream's end."""
        if event is None:
            self.abandon()
            raise InternalError("the stream ended without saying how the turn did; try again")
        if isinstance(event, Started):
            self._started = event
        elif isinstance(event, Finished):
            self._finished = event
            self.state = TurnState.ENDED
        return event

    def fail(self, error: BaseException) -> None:
        """Follow an error. With a reason it is the server's last word on the turn."""
        if isinstance(error, ElmanError) and error.reason:
            self.state = TurnState.ENDED
        else:
            self.abandon()

    def abandon(self) -> None:
        """Leave the turn, unless it is over already or never began."""
        if self.state is TurnState.RUNNING:
            self.state = TurnState.ABANDONED
            self._on_abandon()
        elif self.state is TurnState.READY:
            self.state = TurnState.ENDED
