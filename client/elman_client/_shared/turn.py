"""One generation's life, as a session and its iterator both know it."""

from collections.abc import Callable
from enum import Enum

from elman_client._errors import (
    ElmanError,
    FailedPreconditionError,
    InternalError,
    TurnNotFoundError,
    UnavailableError,
)
from elman_client._shared.operation import Operation
from elman_client._shared.retrying import Attempts
from elman_client._shared.turns import Asked
from elman_client._types import Chunk, Event, Finished, FinishReason, Started


class TurnState(Enum):
    """Where a turn is in its life."""

    READY = "ready"  # nothing was sent yet
    RUNNING = "running"  # the stream is open, or is about to be opened again
    ENDED = "ended"  # the server said how it ended
    ABANDONED = "abandoned"  # we left it; the server may still be settling it


class Turn:
    """Follows the events of one turn, over as many streams as it takes. It touches no socket.

    Args:
        asked: What is asked for.
        attempts: Decides whether to go on when a stream breaks.
        on_abandon: Called once if the turn is left while the server may still be at it.
    """

    def __init__(self, asked: Asked, attempts: Attempts, on_abandon: Callable[[], None]) -> None:
        self._asked = asked
        self._attempts = attempts
        self._on_abandon = on_abandon
        self._started: Started | None = None
        self._finished: Finished | None = None
        self._position: int | None = None  # after the last chunk
        self._is_unknown = False  # the server has nothing of the turn
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

    @property
    def time_left(self) -> float:
        """Seconds until the turn's deadline; infinity: it has none."""
        return self._attempts.time_left

    def operation(self) -> Operation[Event]:
        """Return the call that begins the turn, or goes on with it."""
        if self._started is None:
            return self._asked.first()
        if self._asked.can_resume and not self._is_unknown:
            return self._asked.resumed(self._position)
        return self._asked.again(self._started.sampling.seed, is_begun=self._position is not None)

    def take(self, event: Event | None) -> Event | None:
        """Follow an event, ``None`` is the stream's end; return it, or ``None`` if it is known already."""
        if event is None:
            raise InternalError("the stream ended without saying how the turn did; try again")
        self._attempts.succeeded()
        if isinstance(event, Started):
            return self._take_started(event)
        if isinstance(event, Chunk):
            if self._position is not None and event.position <= self._position:
                return None
            self._position = event.position
            return event
        drained = event.finish_reason is FinishReason.SERVER_DRAINING
        if drained and self._attempts.can_retry:
            raise UnavailableError("the server is shutting down", reason="DRAINING")
        self._finished = event
        self.state = TurnState.ENDED
        return event

    def _take_started(self, event: Started) -> Started | None:
        self._is_unknown = False
        if self._started is None:
            self._started = event
            return event
        if event != self._started:
            raise FailedPreconditionError("the turn was lost, and the session or its model is another one now")
        return None

    def delay(self, error: BaseException) -> float | None:
        """Return the seconds to wait before the turn is gone on with after an error; ``None``: it is not."""
        if self.is_over or not isinstance(error, ElmanError):
            return None
        if isinstance(error, TurnNotFoundError) and self._started is not None and not self._is_unknown:
            self._is_unknown = True
            return 0.0
        return self._attempts.delay(error)

    def fail(self, error: BaseException) -> None:
        """Follow an error that ends it. With a reason it is the server's last word on the turn."""
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
