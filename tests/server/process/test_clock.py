from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from elman_server.process.clock import Clock

DAY = 86400.0


class System:
    """A machine: seconds that pass, and a clock that somebody sets."""

    def __init__(self) -> None:
        self.elapsed, self.wall = 1000.0, 1e9
        self.clock = Clock(lambda: self.wall, lambda: self.elapsed)

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.elapsed += seconds
        self.wall += seconds


@given(st.lists(st.tuples(st.floats(0, 10 * DAY), st.floats(-DAY, DAY), st.floats(0, 5 * DAY)), max_size=20))
def test_nothing_expires_before_its_time_has_passed(steps):
    """However often the clock is set, forward or back: what lives for some seconds is there for as long."""
    system, lives = System(), []
    for passes, jump, ttl in steps:
        system.wall += jump
        system.clock.expiry()
        lives.append((system.elapsed + ttl, system.clock() + ttl))
        system.wait(passes)
        now = system.clock.expiry()
        for end, expires in lives:
            assert expires > now or system.elapsed > end - 1e-3


def test_time_that_passes_counts():
    """Without a jump the three clocks are one; a jump back is followed, so nothing lives longer by it."""
    system = System()
    system.wait(DAY)
    assert system.clock() == system.clock.expiry() == system.clock.steady() == 1e9 + DAY
    system.wall -= DAY
    system.wait(10)
    assert (system.clock.expiry(), system.clock.steady()) == (1e9 + 10, 1e9 + DAY + 10)


def test_a_jump_is_reported_once():
    """A line says by how much; small corrections are not worth one."""
    system = System()
    with capture_logs() as log:
        for jump in (0.5, DAY, 0, -DAY):
            system.wall += jump
            system.clock.expiry()
            system.clock.expiry()
    assert [(line["event"], line["seconds"]) for line in log] == [("clock_jumped", DAY), ("clock_jumped", -DAY)]
