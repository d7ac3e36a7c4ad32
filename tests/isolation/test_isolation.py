"""Thousands of random operations at once, and each session is what it would be alone."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.isolation.calls import Call
from tests.isolation.trial import MODELS, check, collected, run
from tests.oracle import Oracle

pytestmark = pytest.mark.timeout(600)


def test_operations_leave_every_session_as_it_would_be_alone(models):
    """7: in memory, where some are evicted: every answer, text, state, refusal and replay is that of one alone.

    `python -m tests.isolation` does all ten thousand.
    """
    report = run(models, "memory:", num_operations=1200, seed=1)
    ends = {outcome for _, outcome in report.outcomes}
    assert {"", "SESSION_EVICTED", "SESSION_EXPIRED", "SESSION_NOT_FOUND", "POSITION_OUT_OF_RANGE"} <= ends
    assert report.num_alive > 100


def test_operations_on_a_file_leave_every_session_as_it_would_be_alone(models, tmp_path):
    """7: and in SQLite, where a turn's commit waits for the disk."""
    report = run(models, f"sqlite:{tmp_path / 'sessions.db'}", num_operations=400, seed=2)
    assert report.num_alive > 100


# The check itself


@pytest.fixture(scope="module")
def oracles(models) -> dict[str, Oracle]:
    """Of the models that the crowd uses."""
    return Oracle.of(models, MODELS)


@pytest.fixture(scope="module")
def calls(models) -> list[Call]:
    """What a small crowd saw, which is in order."""
    return collected(models, num_operations=300, num_sessions=50, seed=3)


def other_text(call: Call) -> Call:
    """One other character."""
    return replace(call, text=("b" if call.text[0] == "a" else "a") + call.text[1:])


def lost_text(call: Call) -> Call:
    """A character lost."""
    return replace(call, text=call.text[1:])


def other_state(call: Call) -> Call:
    """Another state after it."""
    assert call.after is not None
    return replace(call, after=(call.after[0], "0" * 64, call.after[2]))


def other_start(call: Call) -> Call:
    """A beginning elsewhere."""
    assert call.start is not None
    return replace(call, start=call.start + 1)


def refused(reason: str) -> Callable[[Call], Call]:
    """Refused for nothing."""
    return lambda call: replace(call, error=reason, text="", start=None, reason="", after=None, info=None)


@pytest.mark.parametrize(
    "change",
    [
        other_text,
        lost_text,
        other_state,
        other_start,
        refused("SESSION_BUSY"),
        refused("SESSION_EXPIRED"),
        refused("SESSION_EVICTED"),
        refused("SESSION_NOT_FOUND"),
        refused("ETAG_MISMATCH"),
        refused("UNAVAILABLE"),
    ],
)
def test_what_no_session_does_is_found(calls, oracles, change):
    """One false answer among hundreds is told, with the calls that led to it."""
    whole = [
        call
        for call in calls
        if call.reason == "MAX_CHARS" and not call.beside and call.session.startswith("s-")  # made by no fork
    ]
    chosen = whole[len(whole) // 2]
    falsified = [change(call) if call is chosen else call for call in calls if call.session == chosen.session]
    with pytest.raises(AssertionError, match=f"sessions/{chosen.session}: nothing explains"):
        check(falsified, [chosen.session], oracles)
