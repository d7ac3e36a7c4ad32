"""What the twins have in common and users see."""

from elman_client._errors import FailedPreconditionError
from elman_client._shared.turn import Turn
from elman_client._types import Finished, SessionInfo, Started


class BaseSession:
    """A session's name and what is known of it."""

    def __init__(self, name: str, info: SessionInfo | None) -> None:
        self._name = name
        self._info = info

    @property
    def name(self) -> str:
        """``sessions/{session}``."""
        return self._name

    @property
    def info(self) -> SessionInfo:
        """The session as the server last returned it; ``refresh`` reads it again.

        Raises:
            FailedPreconditionError: It was attached by name and not refreshed yet.
        """
        if self._info is None:
            raise FailedPreconditionError(f"{self._name} has no info yet: call refresh() first")
        return self._info

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._name!r})"


class BaseGeneration:
    """How a turn began and ended."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn

    @property
    def started(self) -> Started:
        """What the turn does: the effective parameters and the seed.

        Raises:
            FailedPreconditionError: Nothing was read yet.
        """
        return self._turn.started

    @property
    def finished(self) -> Finished:
        """How the turn ended and where the session now is.

        Raises:
            FailedPreconditionError: It was not read to its end.
        """
        return self._turn.finished
