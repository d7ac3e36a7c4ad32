"""Ctrl-C, at any moment: no interrupt is lost, none leaves the client dead, and every text is exact."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from elman_client import Client, Generation, Session

_ROOT = Path(__file__).parents[2]
_COUNT = 100
_MOMENTS_BETWEEN = 7


def test_interrupts_leave_the_client_alive(server):
    """A hundred turns are interrupted at random moments; each interrupt arrives, and the next turn works."""
    command = [sys.executable, "-m", "tests.client.interrupted", server.target, str(_COUNT), "program"]

    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, cwd=_ROOT)

    assert (done.returncode, done.stdout, done.stderr) == (0, f"{_COUNT}\n", "")


def _generate(session: Session) -> Iterator[str]:
    generation = session.generate("ab", max_chars=400, timeout=20)
    return (next(generation) for _ in range(2))


def _close(session: Session) -> Iterator[str]:
    """The reader keeps the generation, whose close was interrupted: the next turn closes it."""
    generation = session.generate("ab", max_chars=400, timeout=20)
    yield next(generation)
    try:
        generation.close()
    except KeyboardInterrupt:
        if not generation._turn.is_left:  # it had not begun
            generation.close()
        _held.append(generation)


def _append(session: Session) -> Iterator[str]:
    session.append("ab", timeout=20)
    yield ""


_held: list[Generation] = []


@pytest.mark.parametrize("read", [_generate, _close, _append])
def test_an_interrupt_may_come_at_any_moment(server, read):
    """After each call of the client's code; the caller has what the session has, and the next turn works."""
    server.servicer.seconds_per_chunk = 0.01
    with Client(server.target, retry_seconds=0) as client:
        for moment in range(0, 10_000, _MOMENTS_BETWEEN):
            session = client.create_session("tiny", session_id=f"at-{moment}")
            next(left := session.generate("a", max_chars=400))
            left.close()
            texts, is_interrupted = _interrupted(read, session, moment)

            assert list(session.generate("!", max_chars=1))
            assert server.servicer.memories[session.name].text[5:-1] == (f"ab{''.join(texts)}!" if texts else "!")
            if not is_interrupted:
                break
        assert moment > 100


def _interrupted(read: Callable[[Session], Iterator[str]], session: Session, moment: int) -> tuple[list[str], bool]:
    """Raise KeyboardInterrupt where Python may, at a function's beginning or after a call; return what was read."""
    num_moments, texts = 0, []

    def profile(frame: Any, event: str, _: object) -> None:
        nonlocal num_moments
        if event in {"call", "c_return"} and "elman_client" in frame.f_code.co_filename:
            num_moments += 1
            if num_moments == moment + 1:
                raise KeyboardInterrupt

    sys.setprofile(profile)
    try:
        for text in read(session):
            texts += [text]
    except KeyboardInterrupt:
        pass
    finally:
        sys.setprofile(None)
    return texts, num_moments > moment
