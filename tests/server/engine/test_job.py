"""Stop strings against the naive way to find them."""

from hypothesis import given
from hypothesis import strategies as st

from elman_server.domain.requests import Detail
from elman_server.engine.job import StopMatcher

few = st.integers(0, 2)  # an alphabet so small that everything overlaps
stop_lists = st.lists(st.lists(few, min_size=1, max_size=6), min_size=1, max_size=4)


def run(stops: list[str], text: str) -> tuple[int, str, int] | None:
    """Push a text; return where the first stop string ends, which it is, and how much was held before."""
    matcher = StopMatcher([list(map(ord, stop)) for stop in stops])
    for index, character in enumerate(text):
        held = matcher.held
        if (stop := matcher.push(ord(character))) is not None:
            return index + 1, stops[stop], held
    return None


@given(stops=stop_lists, text=st.lists(few, max_size=40))
def test_the_matcher_is_endswith(stops, text):
    """After every character: the longest stop string that the text ends with, and the longest prefix to hold."""
    matcher = StopMatcher(stops)
    for size in range(1, len(text) + 1):
        read = text[:size]
        complete = matcher.push(read[-1])
        ended = [stop for stop in stops if read[-len(stop) :] == stop]
        prefixes = [stop[:n] for stop in stops for n in range(1, len(stop) + 1)]
        assert (stops[complete] if complete is not None else []) == max(ended, key=len, default=[])
        assert matcher.held == max((len(p) for p in prefixes if read[-len(p) :] == p), default=0)


def test_a_stop_string_that_overlaps_itself_is_found():
    """Of "aaaab" it is "aab", of "aababab" it is "abab": at once where they end."""
    assert run(["aab"], "aaaab") == (5, "aab", 2)
    assert run(["abab"], "aababab") == (5, "abab", 3)


def test_the_longest_of_several_wins():
    """Of stop strings that end at the same character the longest is reported; the one that ends first ends the turn."""
    assert run(["b", "ab", "aab"], "xaab") == (4, "aab", 2)
    assert run(["abcd", "bc"], "abcd") == (3, "bc", 2)


def test_only_a_real_prefix_is_held():
    """Characters that can no longer begin a stop string are released."""
    matcher = StopMatcher([[1, 2, 3]])
    held = []
    for character in [1, 2, 1, 2, 2, 1]:
        matcher.push(character)
        held.append(matcher.held)
    assert held == [1, 2, 1, 2, 0, 1]


def test_detail_is_true_if_anything_is_asked():
    """A detail that asks for nothing is false."""
    assert [bool(Detail()), bool(Detail(log_probability=True)), bool(Detail(top_n=1))] == [False, True, True]
