"""When a failed call is repeated, and how long to wait before."""

import logging
import math
import random
import time
from typing import Final

from elman_client._errors import ElmanError, InternalError, SessionBusyError, UnavailableError
from elman_client._shared.connection import Connection

FIRST_SECONDS: Final = 0.05
LAST_SECONDS: Final = 2.0
_LOG: Final = logging.getLogger("elman_client")
_NOTHING_DONE: Final = frozenset({"DRAINING", "OVERLOADED", "STARTING"})


class Attempts:
    """The attempts at one call. From the moment that a loss is noticed they last for the client's ``retry_seconds``.

    Args:
        connection: Of the client.
        timeout: Seconds for all attempts together, beside that.
        is_safe: Whether the call may be made again though it may have been done.
    """

    def __init__(self, connection: Connection, timeout: float | None, *, is_safe: bool) -> None:
        self._connection = connection
        self._timeout = connection.timeout_of(timeout)
        self._is_safe = is_safe
        self._lost_at: float | None = None  # nothing has come since
        self._delay = FIRST_SECONDS
        self._has_failed = False
        self.begin()

    def begin(self) -> None:
        """Count the timeout from now on: the caller waits."""
        self._started = time.monotonic()

    @property
    def time_left(self) -> float:
        """Seconds until the call's deadline; infinity: it has none."""
        if self._timeout is None:
            return math.inf
        return max(0.001, self._timeout - (time.monotonic() - self._started))

    @property
    def can_retry(self) -> bool:
        """Whether the client makes calls again at all."""
        return self._connection.retry_seconds > 0

    def succeeded(self) -> None:
        """Something came: the server is there."""
        self._connection.is_proven = True
        self._lost_at = None
        self._delay = FIRST_SECONDS

    def delay(self, error: ElmanError) -> float | None:
        """Return the seconds to wait before the call is made again; ``None``: it is not."""
        if not self._is_worth_it(error):
            return None
        now = time.monotonic()
        if self._lost_at is None:
            self._lost_at = now
        # Spread, so that the callers of a server that comes back do not all come at once.
        delay = max(self._delay, error.retry_after or 0.0) * random.uniform(1.0, 1.5)  # noqa: S311
        left = min(self._connection.retry_seconds - (now - self._lost_at), self.time_left)
        if delay > left:
            return None
        if self._delay == FIRST_SECONDS:
            what = f"{error.message}; trying again" if error.reason else "lost the server: reconnecting"
            _LOG.info("%s: %s …", self._connection.target, what)
        self._delay = min(2 * self._delay, LAST_SECONDS)
        self._has_failed = True
        return delay

    def _is_worth_it(self, error: ElmanError) -> bool:
        if isinstance(error, SessionBusyError):
            return self._has_failed  # it may be our own turn, on a server that we lost
        if isinstance(error, InternalError):
            is_lost = not error.reason  # the words of the network: a proxy or a broken connection
        elif isinstance(error, UnavailableError):
            if error.reason in _NOTHING_DONE:
                return True
            # A server that never answered is more likely absent than lost.
            is_lost = bool(error.reason) or self._connection.is_proven
        else:
            return False
        return is_lost and self._is_safe
