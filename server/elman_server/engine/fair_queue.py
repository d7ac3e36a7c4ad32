"""A queue in which owners take turns; what one owner has comes in order. Whatever leaves it costs the same."""

from __future__ import annotations

from collections import OrderedDict
from itertools import chain
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

_Item = TypeVar("_Item")


class FairQueue(Generic[_Item]):
    """Items by owner. With one owner it is a plain queue."""

    def __init__(self) -> None:
        # As dictionaries: an item in the middle leaves in one step. The owner whose turn it is stands first.
        self._queues: OrderedDict[str, OrderedDict[_Item, None]] = OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[_Item]:
        """Return all items, those of the next owner first."""
        return chain.from_iterable(self._queues.values())

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
