"""Labellings: what patterns match, in bounded time."""

import pytest

from elman_server.domain.errors import InvalidFieldError
from elman_server.domain.inspection import TextProperty
from elman_server.history import labelling
from elman_server.history.labelling import labelled, matches


def test_every_character_of_every_match_is_labelled():
    """Matches of any length count; an empty one labels nothing."""
    assert matches("é+|x*", "aééxb") == [0, 1, 1, 1, 0]


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|a)*b", "(.*)*c", "([a-z]+)*!"])
def test_a_catastrophic_pattern_costs_nothing(pattern):
    """RE2 takes linear time where backtracking takes exponential time."""
    assert not any(matches(pattern, "a" * 20_000 + "?"))


def test_a_pattern_that_scans_to_the_end_at_every_character_is_bounded(monkeypatch):
    """A search that is linear for each match, and quadratic in all, is refused after a while."""
    monkeypatch.setattr(labelling, "SEARCH_SECONDS", 0.0)
    with pytest.raises(InvalidFieldError, match="takes more than 0 s"):
        matches("(?s)x.*y|x", "x" * 100)


@pytest.mark.parametrize("pattern", ["(?<=a)b", r"(a)\1", "a{2000}", "\ud800"])
def test_what_re2_does_not_have_is_refused(pattern):
    """Look-around, back-references, huge repetitions and half characters are errors with a sentence."""
    with pytest.raises(InvalidFieldError, match="no regular expression of RE2"):
        matches(pattern, "text")


def test_the_properties_of_a_text():
    """Each property, character by character."""
    text = 'A "b1" c\nd'
    expected = {
        TextProperty.LINE_POSITION: [1, 2, 3, 4, 5, 6, 7, 8, 0, 1],
        TextProperty.INSIDE_QUOTES: [0, 0, 1, 1, 1, 0, 0, 0, 0, 0],
        TextProperty.LINE_START: [0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        TextProperty.INSIDE_WORD: [1, 0, 0, 1, 1, 0, 0, 1, 0, 1],
        TextProperty.WORD_POSITION: [1, 0, 0, 1, 2, 0, 0, 1, 0, 1],
        TextProperty.CAPITAL: [1, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    }
    assert {known: labelled(known, text) for known in TextProperty} == expected
