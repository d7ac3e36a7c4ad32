"""A clock for tests of things that end."""

from elman_server.process.clock import Clock as SystemClock

START = 1_000_000.0


class Clock(SystemClock):
    """Unix seconds that stand still until a test moves them.

    Attributes:
        now: move it, and as much time has passed.
        ahead: change it, and somebody has set the clock.
    """

    def __init__(self) -> None:
        self.now, self.ahead = START, 0.0
        super().__init__(lambda: self.now + self.ahead, lambda: self.now)
