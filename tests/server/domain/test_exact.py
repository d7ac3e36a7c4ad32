"""Exponentials and logarithms, against mpmath and against plain Python."""

import mpmath
import numpy as np
import pytest

from elman_format import self_check
from elman_server.domain import exact

_RANDOM = np.random.default_rng(0)
NUMBERS = -np.concatenate([_RANDOM.uniform(0, 1, 500), _RANDOM.exponential(20, 500), _RANDOM.uniform(0, 708, 500)])
EXTREMES = [0.0, -0.0, -1e-300, -5e-17, -708.5, -744.4, -745.2, -746.0, -1e308, -np.inf]
LARGE = np.concatenate([1 + _RANDOM.exponential(1e-3, 500), _RANDOM.uniform(1, 300, 500), [1.0, 2.0, 1e5]])


@pytest.fixture(autouse=True)
def _forty_digits():
    with mpmath.workdps(40):
        yield


def test_exponentials_are_right():
    """To 4e-16 of the value, down to the smallest normal number; below, to the nearest that there is; then 0."""
    for x, actual in zip(NUMBERS.tolist(), exact.exp(NUMBERS).tolist(), strict=True):
        assert abs(actual / mpmath.exp(x) - 1) < 4e-16
    expected = [float(mpmath.exp(x)) for x in EXTREMES]
    assert exact.exp(np.array(EXTREMES)).tolist() == pytest.approx(expected, rel=4e-16, abs=5e-324)


def test_logarithms_are_right():
    """To 4e-16 of the value, or of 1 where it is smaller."""
    for x, actual in zip(LARGE.tolist(), exact.log(LARGE).tolist(), strict=True):
        expected = mpmath.log(x)
        assert abs(actual - expected) < 4e-16 * max(1, expected)


def test_plain_python_has_the_same_bits():
    """The reference that every machine can run gives every last bit, whatever the processor."""
    numbers = np.concatenate([NUMBERS, EXTREMES])
    assert exact.exp(numbers).tolist() == [self_check.exp(x) for x in numbers.tolist()]
    assert exact.log(LARGE).tolist() == [self_check.log(x) for x in LARGE.tolist()]


def test_a_shape_and_an_output_are_kept():
    """Any shape; written into `out`, which may be the input."""
    numbers = NUMBERS[:12].reshape(3, 4).copy()
    expected = exact.exp(numbers)
    assert exact.exp(numbers, out=numbers) is numbers
    assert np.array_equal(numbers, expected)
