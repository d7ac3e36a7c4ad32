"""Turns that begin on the head that their server has committed last, while other servers change the session."""

import uuid
from collections.abc import Awaitable, Callable

import pytest

from elman_server.domain.errors import EtagMismatchError, InvalidFieldError, SessionExpiredError, SessionNotFoundError
from elman_server.domain.requests import GenerateRequest, Target
from elman_server.sessions.repository import Latest
from elman_server.sessions.session import Expiration, LabelChange, SessionInfo
from elman_server.sessions.stores import MemoryStore
from elman_server.sessions.transitions import Durability
from tests.server.house import PLAIN, House
from tests.server.replicas import Replica, asked, clock_of_now

Change = Callable[[Replica, SessionInfo], Awaitable[object]]
UNHURRIED = Durability(commit_seconds=3600)  # nothing of a turn is made durable on the way
pytestmark = pytest.mark.asyncio(loop_scope="module")


def turn(session: SessionInfo, prompt: str = "abc", etag: str = "") -> GenerateRequest:
    """Return a request for a short turn that no other has made."""
    return asked(session.name, uuid.uuid4().bytes, prompt, 20, etag=etag)


async def texts(house: House, *prompts: str) -> tuple[list[str], str]:
    """Return what a session of seed 5 says to some prompts, and its last state."""
    alone = await house.session("tiny", seed=5)
    found = [await house.generate(Target(session=alone.name), prompt, 20, PLAIN) for prompt in prompts]
    return [text.text for text in found], found[-1].end.state_digest


async def test_the_store_is_asked_twice_a_turn(house):
    """Both are commits: the head that the turn before has committed is known, also after the clock was set forward."""
    clock, session = clock_of_now(), await house.session("tiny", seed=5)
    one = Replica(house, UNHURRIED, clock)
    await one.generate(turn(session))
    clock.ahead = 86_400
    before = one.way.num_calls, one.way.num_commits
    await one.generate(turn(session))
    assert (one.way.num_calls - before[0], one.way.num_commits - before[1]) == (2, 2)


async def test_two_servers_take_turns(house):
    """Each begins on a head that the other has changed: one text, and never a refusal."""
    prompts = ["abc", "d", "", "ef", "g", ""]
    expected, digest = await texts(house, *prompts)
    session, servers = await house.session("tiny", seed=5), [Replica(house), Replica(house)]
    found = []
    for number, prompt in enumerate(prompts):
        found.append(await servers[(0, 1, 1, 0, 0, 1)[number]].generate(turn(session, prompt)))
    assert [text.text for text in found] == expected
    assert found[-1].end.state_digest == digest


async def cut(other: Replica, session: SessionInfo) -> None:
    """Go back to the beginning."""
    await other.history.rewind(session.name, position=0, etag="")


async def label(other: Replica, session: SessionInfo) -> None:
    """Change what no turn looks at."""
    await other.sessions.update(session.name, etag="", labels=LabelChange({"a": "b"}), expiration=None)


@pytest.mark.parametrize(("change", "prompts"), [(cut, ["d"]), (label, ["abc", "d"])])
async def test_what_another_server_has_changed_is_found(house, change: Change, prompts):
    """The turn continues what is there now."""
    expected, digest = await texts(house, *prompts)
    one, other, session = Replica(house), Replica(house), await house.session("tiny", seed=5)
    await one.generate(turn(session, "abc"))
    await change(other, session)
    found = await one.generate(turn(session, "d"))
    assert (found.text, found.end.state_digest) == (expected[-1], digest)


async def test_nothing_is_refused_by_what_is_past(house):
    """The session was empty, and had another etag; now a turn without a prompt is right, and so is the new etag."""
    one, other, session = Replica(house), Replica(house), await house.session("tiny", seed=5)
    await label(one, session)  # one knows the empty session
    first = await other.generate(turn(session))
    found = await one.generate(turn(session, "", etag=first.end.etag))
    assert found.text == (await texts(house, "abc", ""))[0][1]
    await other.generate(turn(session))
    with pytest.raises(EtagMismatchError):
        await one.generate(turn(session, etag=found.end.etag))
    await cut(other, session)
    with pytest.raises(InvalidFieldError, match="prompt"):
        await one.generate(turn(session, ""))


async def test_a_request_that_another_server_has_run_is_not_run_twice(house):
    """Its text is delivered again."""
    one, other, session = Replica(house), Replica(house), await house.session("tiny", seed=5)
    await one.generate(turn(session))
    request = turn(session, "d")
    first = await other.generate(request)
    assert (await one.generate(request)).text == first.text
    assert (await one.generate(request)).text == first.text  # now it is one of the turns that one knows of
    assert (await one.sessions.get(session.name)).turn_count == 2


async def test_a_session_that_is_gone_is_not_found(house):
    """Another server has deleted it, or it expired: a turn that looks for it would keep it from that."""
    clock = clock_of_now()
    store = MemoryStore(10, 2**20, clock)
    one, other = Replica(house, clock=clock, store=store), Replica(house, clock=clock, store=store)
    store.in_use = one.sessions.leases.is_running
    for error in (SessionNotFoundError, SessionExpiredError):
        session = await one.sessions.create(
            model="tiny", version=None, session_id="", seed=5, expiration=Expiration(), labels={}
        )
        await one.generate(turn(session))
        if error is SessionNotFoundError:
            await other.sessions.delete(session.name, etag="")
        else:
            clock.now += 7200
        with pytest.raises(error):
            await one.generate(turn(session))


async def test_what_is_kept_is_bounded_in_bytes(house):
    """The oldest go first; what is taken is kept no more."""
    loaded = await house.sessions.load((await house.session("tiny")).name)
    latest = Latest(most_bytes=3 * loaded.head.num_bytes)
    for _ in range(2):
        for number in range(8):
            latest.keep(str(number), loaded)
        assert [latest.take(str(number)) is loaded for number in range(8)] == [False] * 5 + [True] * 3
    huge = Latest(most_bytes=loaded.head.num_bytes - 1)
    huge.keep("huge", loaded)
    assert huge.take("huge") is None
