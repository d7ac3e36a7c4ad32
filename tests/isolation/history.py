"""Histories: whether an order of their calls explains what many clients saw of a session.

Each call, or each end of a turn, took effect at one moment between its beginning and its end. All orders are followed
at once, as sets of (session, calls under way): linearizability, checked just in time (Lowe, "Testing for
linearizability", 2017).
"""

from collections.abc import Iterable

from tests.isolation.calls import Call
from tests.isolation.plain import Plain, World, steps

Under = frozenset[tuple[Call, int]]  # calls that have begun, and which part of them comes next


def explained(calls: list[Call], beginnings: Iterable[Plain], world: World) -> set[Plain]:
    """Return what a session may be after all calls on it, given what it may have been before.

    Raises:
        AssertionError: nothing explains what a call's caller saw.
    """
    found: set[tuple[Plain, Under]] = {(plain, frozenset()) for plain in beginnings}
    moments = sorted([(call.began, True, call) for call in calls] + [(call.ended, False, call) for call in calls])
    for _, is_begin, call in moments:
        if is_begin:
            found = {(plain, under | {(call, 0)}) for plain, under in found}
            continue
        before, found = found, _with_done(found, call, world)
        assert found, _story(calls, call, before)
    return {plain for plain, _ in found}


def _with_done(found: set[tuple[Plain, Under]], call: Call, world: World) -> set[tuple[Plain, Under]]:
    """Return where it can be once a call is over, letting others that are under way go first."""
    done, known, left = set(), set(found), list(found)
    while left:
        plain, under = left.pop()
        if all(other is not call for other, _ in under):
            done.add((plain, under))
            continue
        for other, part in under:
            for after, following in steps(plain, other, part, world):
                rest = under - {(other, part)}
                new = (after, rest if following is None else rest | {(other, following)})
                if new not in known:
                    known.add(new)
                    left.append(new)
    return done


def _story(calls: list[Call], call: Call, before: set[tuple[Plain, Under]]) -> str:
    past = [str(other) for other in sorted(calls, key=lambda other: other.began) if other.began < call.ended]
    possible = [f"{plain.point.text()!a} " if plain.point else f"{plain.gone} " for plain, _ in list(before)[:5]] + [
        f"{plain.turns} etag={plain.etag} running={plain.runner and plain.runner[0].began}" for plain, _ in before
    ][:5]
    return "\n".join(
        [f"sessions/{call.session}: nothing explains {call}", "it was one of:", *possible, "after:", *past[-12:]]
    )
