"""The texts of emulated processors are those of this one."""

from pathlib import Path

import numpy as np
import pytest

from tests.models import quantized_model
from tests.portability.machines import X86, Block, Comparison, compare, compared, has_emulator
from tests.portability.run import NUM_SETTINGS, STEPS
from tests.services import need

pytestmark = pytest.mark.timeout(400)


def test_every_processor_writes_the_same(tmp_path: Path) -> None:
    """With AVX2 and with SSE alone, by every way of sampling: not one character and not one bit is another."""
    need("qemu-x86_64", is_there=has_emulator())
    model = quantized_model(tmp_path / "small.onnx", "lstm", 2, 32)
    with compared(X86, model, 2 * STEPS, NUM_SETTINGS) as comparisons:
        *_, found = comparisons
    num_chars = 2 * STEPS * NUM_SETTINGS
    assert found == (Comparison(num_chars, 0, are_bits_equal=True),) * len(X86)


def test_a_difference_is_found() -> None:
    """One other character, and other bits behind equal characters."""
    one, two = np.array([1, 2, 3], np.uint16), np.array([1, 2, 4], np.uint16)
    assert [*compare(iter([Block(one, "a"), Block(one, "b")]), iter([Block(two, "a"), Block(one, "c")]))] == [
        Comparison(3, 1, are_bits_equal=True),
        Comparison(6, 1, are_bits_equal=False),
    ]
