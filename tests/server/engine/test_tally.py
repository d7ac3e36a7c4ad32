import pytest

from elman_server.engine.tally import Tally
from elman_server.process.observe.counters import SIZES


def test_steps_share_the_time_in_which_they_ran():
    """Three steps in 3 ms took 1 ms each; each is counted under its rows."""
    tally = Tally(capacity=8)
    for num_rows in (1, 8, 8):
        tally.step(num_rows)
    tally.time_steps(0.003)
    report = tally.report()

    assert sum(report.steps) == 3
    assert report.step_seconds == pytest.approx(0.003)
    assert (report.batches[SIZES.index(1)], report.batches[SIZES.index(8)], report.num_rows) == (1, 2, 17)


def test_a_report_begins_anew():
    """What was reported is not reported again; time without a step is none."""
    tally = Tally(capacity=8)
    tally.step(2)
    tally.time_steps(0.001)
    tally.time_waits([0.0])
    first = tally.report()
    tally.time_steps(100)
    second = tally.report()

    assert (sum(first.waits), sum(first.steps)) == (1, 1)
    assert (sum(second.waits), sum(second.steps), second.num_rows) == (0, 0, 0)
    assert second.cpu_seconds < first.cpu_seconds
