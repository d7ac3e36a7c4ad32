"""Owners share an engine: a queue in which they take turns, and how many of an owner's jobs begin at once.

Plain data. Anything that leaves it costs the same.
"""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from itertools import chain
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from elman_server.engine.job import Job

SHORT_CHARS: Final = 256  # of a prompt: jobs with more are few, and cost the engine more than the front
MAX_BEGINNING: Final = 16  # short jobs of an owner, while other owners have jobs: enough to keep the front busy
LINGER_SECONDS: Final = 5.0  # that an owner counts who has no job just now: its next one may be on its way in the front
BEGUN_CHARS: Final = 128  # that a job has given when it has begun: then it shares rows, and costs the front little

_Item = TypeVar("_Item")


class FairQueue(Generic[_Item]):
    """Items by owner; those of one owner come in order. With one owner it is a plain queue."""

    def __init__(self) -> None:
        # As dictionaries: an item in the middle leaves in one step. The owner whose turn it is stands first.
        self._queues: OrderedDict[str, OrderedDict[_Item, None]] = OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[_Item]:
        """Return all items, those of the next owner first."""
        return chain.from_iterable(self._queues.values())

    @property
    def num_owners(self) -> int:
        """How many owners have an item."""
        return len(self._queues)

    def has(self, owner: str) -> bool:
        """Whether an owner has an item."""
        return owner in self._queues

    def owners(self) -> Iterator[tuple[str, int]]:
        """Return owners and how many items they have, the next one first."""
        return ((owner, len(queue)) for owner, queue in self._queues.items())

    def add(self, owner: str, item: _Item, *, is_first: bool = False) -> None:
        """Add an item behind those of its owner, or before them."""
        queue = self._queues.setdefault(owner, OrderedDict())
        queue[item] = None
        if is_first:
            queue.move_to_end(item, last=False)
        self._size += 1

    def remove(self, owner: str, item: _Item) -> None:
        """Remove an item."""
        queue = self._queues[owner]
        del queue[item]
        if not queue:
            del self._queues[owner]
        self._size -= 1

    def pop(self, owner: str) -> _Item:
        """Remove and return the first item of an owner, who is then the last."""
        item = next(iter(self._queues[owner]))
        self.rotate(owner, item)
        self.remove(owner, item)
        return item

    def rotate(self, owner: str, item: _Item) -> None:
        """Move an item behind those of its owner, and the owner behind the others."""
        self._queues[owner].move_to_end(item)
        self._queues.move_to_end(owner)


class Admission:
    """Which jobs the engine's process is sent, and when.

    The front spends its time on turns that begin and end. A flood of short ones would leave it none for others, whose
    rows would then go to the flood as well. So while several owners have jobs, each may have only a few short ones that
    have not begun, or are over and not committed. The others wait here, which costs nothing.

    Args:
        capacity: rows of the engine.
        clock: monotonic seconds.
    """

    def __init__(self, capacity: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._capacity = capacity
        self._clock = clock
        self._left: OrderedDict[str, float] = OrderedDict()  # owners without jobs: since when
        self._owners: dict[int, str] = {}  # of all jobs
        self._num_jobs: Counter[str] = Counter()
        self._waiting: dict[int, Job] = {}
        self._short: FairQueue[int] = FairQueue()
        self._long: FairQueue[int] = FairQueue()
        self._beginning: dict[int, int] = {}  # short jobs: how many characters they still have to give
        self._num_beginning: Counter[str] = Counter()

    def add(self, identity: int, job: Job) -> None:
        """Let a job wait."""
        self._owners[identity] = job.owner
        self._left.pop(job.owner, None)
        self._num_jobs[job.owner] += 1
        self._waiting[identity] = job
        self._queue(job).add(job.owner, identity)

    def next(self) -> tuple[int, Job] | None:
        """Return a job that may be sent now, which then waits no more; None: there is none."""
        identity = self._next_short()
        if identity is None:
            if not self._long:
                return None
            identity = self._long.pop(next(self._long.owners())[0])
        return identity, self._waiting.pop(identity)

    def note_output(self, identity: int, num_chars: int) -> None:
        """See characters of a job."""
        if identity in self._beginning:
            self._beginning[identity] -= num_chars
            if self._beginning[identity] <= 0:
                self._begun(identity)

    def remove(self, identity: int) -> bool:
        """See a job leave; return whether it was sent."""
        if identity not in self._owners:  # it has left before, or its process died
            return True
        if identity in self._beginning:
            self._begun(identity)
        owner = self._owners.pop(identity)
        count_down(self._num_jobs, owner)
        if owner not in self._num_jobs:
            self._left[owner] = self._clock()
        job = self._waiting.pop(identity, None)
        if job is not None:
            self._queue(job).remove(owner, identity)
        return job is None

    def _next_short(self) -> int | None:
        if not self._short:
            return None
        most = self._most
        for owner, _ in self._short.owners():
            if self._num_beginning[owner] < most:
                identity = self._short.pop(owner)
                # No more than its reader lets it give at first.
                self._beginning[identity] = min(BEGUN_CHARS, self._waiting[identity].window)
                self._num_beginning[owner] += 1
                return identity
        return None

    def _queue(self, job: Job) -> FairQueue[int]:
        is_short = len(job.prompt) <= SHORT_CHARS and job.inspect is None
        return self._short if is_short else self._long

    def _begun(self, identity: int) -> None:
        del self._beginning[identity]
        count_down(self._num_beginning, self._owners[identity])

    @property
    def _most(self) -> float:
        """How many short jobs of each owner may begin at once."""
        until = self._clock() - LINGER_SECONDS
        while self._left and next(iter(self._left.values())) < until:
            self._left.popitem(last=False)
        num_owners = len(self._num_jobs) + len(self._left)
        return max(1, min(MAX_BEGINNING, self._capacity // num_owners)) if num_owners > 1 else float("inf")


def count_down(counts: Counter[str], owner: str) -> None:
    """Take one off an owner's count; none is no entry."""
    counts[owner] -= 1
    if not counts[owner]:
        del counts[owner]
