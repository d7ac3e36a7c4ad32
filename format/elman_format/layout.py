"""How rows lie in a batch, so that each has the same bits in every batch.

onnxruntime computes four numbers at a time, and those that are left one by one, which rounds differently. At a width
that is not a multiple of 4 some are left in the last row, and where a row begins decides in which order it is summed.
`docs/decisions/0015-threads-and-rows.md` has what was measured.
"""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from elman_format.operators import CUT_SAFE


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the rows of a batch lie.

    Attributes:
        spacing: The distance between two rows; what is between them is computed and not used.
        multiple: The number of computed rows is a multiple of this.
    """

    spacing: int
    multiple: int

    def size(self, batch: int) -> int:
        """How many rows are computed for a batch."""
        return -(-batch * self.spacing // self.multiple) * self.multiple

    def sources(self, batch: int) -> list[int]:
        """Which row of the batch stands at each computed place; the last one fills the end."""
        return [min(place // self.spacing, batch - 1) for place in range(self.size(batch))]

    def places(self, batch: int) -> slice:
        """Where the rows of the batch stand among the computed ones."""
        return slice(0, batch * self.spacing, self.spacing)


LAYOUTS = (Layout(1, 1), Layout(1, 2), Layout(1, 4), Layout(2, 4), Layout(4, 4))
_WITH_THREADS = LAYOUTS[:2]  # what needs more is rare, and checked with one thread only
_FULL_PACKETS = LAYOUTS[2:]  # here no number is left over, whatever the operator
BATCHES = (1, 2, 7, 17, 64)


def layouts(operators: AbstractSet[str], num_threads: int = 1) -> tuple[Layout, ...]:
    """What a model may need, in this order: exporter and server use the first in which all BATCHES agree.

    Args:
        operators: What the model computes with.
        num_threads: More than 1 only if all of them are CUT_SAFE.
    """
    if not operators <= CUT_SAFE:
        return _FULL_PACKETS
    return _WITH_THREADS if num_threads > 1 else LAYOUTS
