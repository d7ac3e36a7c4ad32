"""The texts of emulated processors are those of this one."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from tests.models import quantized_model
from tests.portability.machines import MACHINES, NATIVE, Block, Comparison, blocks, compare, has_emulator
from tests.portability.run import NUM_SETTINGS, STEPS
from tests.services import need

pytestmark = pytest.mark.timeout(400)


def test_every_processor_writes_the_same(tmp_path: Path) -> None:
    """With AVX2 and with SSE alone, by every way of sampling: not one character and not one bit is another."""
    need("qemu-x86_64", is_there=has_emulator())
    model = quantized_model(tmp_path / "small.onnx", "lstm", 2, 32)
    with ExitStack() as stack:  # all at once
        running = {machine: compare_with_own(stack, machine, model) for machine in MACHINES[1:]}
        found = {machine: list(results)[-1] for machine, results in running.items()}
    num_chars = 2 * STEPS * NUM_SETTINGS
    assert found == dict.fromkeys(MACHINES[1:], Comparison(num_chars, 0, are_bits_equal=True))


def compare_with_own(stack: ExitStack, machine: str, model: Path) -> Iterator[Comparison]:
    """Compare a machine with this one."""
    mine, other = (stack.enter_context(blocks(name, model, 2 * STEPS, NUM_SETTINGS)) for name in (NATIVE, machine))
    return compare(mine, other)


def test_a_difference_is_found() -> None:
    """One other character, and other bits behind equal characters."""
    one, two = np.array([1, 2, 3], np.uint16), np.array([1, 2, 4], np.uint16)
    assert [*compare(iter([Block(one, "a"), Block(one, "b")]), iter([Block(two, "a"), Block(one, "c")]))] == [
        Comparison(3, 1, are_bits_equal=True),
        Comparison(6, 1, are_bits_equal=False),
    ]
