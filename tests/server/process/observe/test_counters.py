import pytest

from elman_server.process.observe.call import Call
from elman_server.process.observe.counters import SECONDS, Counters, Histogram


@pytest.mark.parametrize("bound", [SECONDS[0], SECONDS[7], SECONDS[-1]])
def test_a_value_at_a_bound_belongs_below_it(bound):
    """As Prometheus counts: `le` is less than or equal."""
    histogram = Histogram()
    histogram.add(bound)
    histogram.add(bound * 1.01, 3)
    index = SECONDS.index(bound)

    assert histogram.counts[index : index + 2] == [1, 3]
    assert histogram.total == pytest.approx(bound * 4.03)


def test_histograms_of_two_processes_add_up():
    """What an engine reports is added, bucket by bucket."""
    mine, others = Histogram((1, 2)), Histogram((1, 2))
    mine.add(1)
    others.add(3, 2)
    mine.merge(others.counts, others.total)

    assert (mine.counts, mine.total) == ([1, 0, 2], 7)


def test_a_turn_has_one_first_character_and_each_later_one_an_interval():
    """The first text of a turn counts from its beginning, later texts a character; a chat's next turn begins anew."""
    counters, call = Counters().models["m"], Call()
    for sizes in ([1, 4, 2], [3]):
        call.begin_turn("abcd")
        for size in sizes:
            counters.delivered(size, call)

    assert sum(counters.first_character.counts) == 2
    assert sum(counters.between_characters.counts) == 6
    assert sum(counters.text_size.counts) == 4
    assert counters.num_sampled == call.num_sampled == 10


@pytest.mark.parametrize(
    ("code", "finish", "counted"),
    [("OK", "max_chars", {}), ("CANCELLED", "", {"cancelled": 1}), ("CANCELLED", "max_chars", {})],
)
def test_a_turn_that_its_caller_left_is_counted_once(code, finish, counted):
    """A turn that came to its end was counted there; one that was left is counted when its call ends."""
    counters, call = Counters(), Call("/a/B", code=code, model="m")
    call.begin_turn(None)
    call.finish = finish
    counters.ended(call)

    assert counters.calls == {("/a/B", code): 1}
    assert dict(counters.models["m"].turns) == counted
