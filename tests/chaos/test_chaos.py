"""5 and 6 (a) to (f), each once. `python -m tests.chaos --rounds 20` does it again and again."""

import random

import pytest

from tests.chaos.load import FEW_STREAMS, LENGTH
from tests.chaos.scenarios import SCENARIOS, cut_network, kill_replicas, lose_engines, pause_replica, run

pytestmark = pytest.mark.timeout(600)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
async def test_every_text_is_what_it_would_have_been(cluster, expected, scenario):
    """Whatever is done to the cluster, 24 readers see the texts of an undisturbed run, and so does the store."""
    report = await run(scenario, cluster, expected, num_streams=FEW_STREAMS, seed=random.randrange(1 << 32))
    assert report.faults
    assert report.characters_compared == report.streams * LENGTH
    assert report.streams >= 2 * FEW_STREAMS
    # What breaks streams has broken some; a drain and a store that is away for a moment need not.
    if scenario in {kill_replicas, pause_replica, lose_engines, cut_network}:
        assert report.resumes > 0
    if scenario is pause_replica:
        assert report.fenced > 0
