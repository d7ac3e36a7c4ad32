"""How owners share an engine, as plain data."""

from elman_server.domain.state import SessionState
from elman_server.engine.fairness import BEGUN_CHARS, LINGER_SECONDS, MAX_BEGINNING, SHORT_CHARS, Admission
from elman_server.engine.job import Job
from tests.clock import Clock

START = SessionState((b"\0\0\0\0",))


def job(owner: str, prompt_chars: int = 1) -> Job:
    """Return a job of an owner."""
    return Job(START, 0, [1] * prompt_chars, max_chars=10, owner=owner)


def sent(admission: Admission) -> list[int]:
    """Return the jobs that may be sent now."""
    found = []
    while (admitted := admission.next()) is not None:
        found.append(admitted[0])
    return found


def test_one_owner_waits_for_nothing() -> None:
    """While nobody else has jobs, all are sent in their order."""
    admission = Admission(4)
    for number in range(100):
        admission.add(number, job("one"))
    assert sent(admission) == list(range(100))


def test_a_flood_begins_with_its_share_at_once() -> None:
    """Of short jobs beside another owner's the share is sent; each that has begun or ended lets one follow."""
    clock = Clock()
    admission = Admission(4, clock)
    admission.add(1000, job("few"))
    for number in range(100):
        admission.add(number, job("many"))
    assert sent(admission) == [1000, 0, 1]
    admission.note_output(0, BEGUN_CHARS - 1)
    assert sent(admission) == []
    admission.note_output(0, 1)
    assert sent(admission) == [2]
    assert (admission.remove(1), admission.remove(50)) == (True, False)  # one that was sent, one that waited
    assert sent(admission) == [3]
    admission.add(1001, job("few"))
    assert sent(admission) == [1001]
    for number in (1000, 1001):
        admission.remove(number)
    assert sent(admission) == []  # the other one's next job may be under way
    clock.now += LINGER_SECONDS + 1
    assert sent(admission) == [number for number in range(4, 100) if number != 50]


def test_many_rows_let_no_flood_in() -> None:
    """However many rows a share has, few jobs of an owner begin at once; each owner begins at least one."""
    admission = Admission(1000)
    admission.add(1000, job("few"))
    for number in range(100):
        admission.add(number, job("many"))
    assert len(sent(admission)) == 1 + MAX_BEGINNING
    narrow = Admission(1)
    for number in range(10):
        narrow.add(number, job(str(number % 5)))
    assert sent(narrow) == [0, 1, 2, 3, 4]


def test_long_prompts_do_not_hold_short_ones_back() -> None:
    """A job with a long prompt is never counted: its owner's short ones follow at once, and before it."""
    admission = Admission(4)
    admission.add(1000, job("few"))
    for number in range(10):
        admission.add(number, job("many", SHORT_CHARS + 1))
    admission.add(10, job("many"))
    assert sent(admission) == [1000, 10, *range(10)]
