"""Exponentials and logarithms with the same bits on every machine.

NumPy's own choose instructions by the processor and differ in the last bits. Here each result is a fixed sequence of
float64 additions, products and conversions, which IEEE 754 defines to the bit. Each is a call of its own, so that no
compiler can fuse them or change their order. `elman_format.self_check` has the same sequences in plain Python. Errors
are below 4e-16 of the result, or of 1 for logarithms below 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from elman_format.self_check import COEFFICIENTS, LN2_HIGH, LN2_LOW, LOG2_E, LOG_TERMS, LOWEST, SQRT_HALF

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


def exp(x: Floats, out: Floats | None = None) -> Floats:
    """Return e to the power of numbers that are at most 0, of any shape."""
    x = np.maximum(x, LOWEST)
    exponent = np.rint(x * LOG2_E)
    rest = x - exponent * LN2_HIGH - exponent * LN2_LOW  # |rest| <= ln(2) / 2; its first product is exact
    result = np.full_like(x, COEFFICIENTS[0])
    for coefficient in COEFFICIENTS[1:]:
        result *= rest
        result += coefficient
    return np.ldexp(result, exponent.astype(np.int32), out=out)


def log(x: Floats) -> Floats:
    """Return the natural logarithm of numbers that are at least 1, of any shape."""
    mantissa, exponent = np.frexp(x)
    is_low = mantissa < SQRT_HALF
    mantissa = np.where(is_low, 2 * mantissa, mantissa)
    power = exponent - is_low.astype(exponent.dtype)
    ratio = (mantissa - 1) / (mantissa + 1)  # log(m) = 2 artanh(ratio), |ratio| < 0.172
    square = ratio * ratio
    series = np.full_like(ratio, LOG_TERMS[0])
    for term in LOG_TERMS[1:]:
        series *= square
        series += term
    result: Floats = (series * ratio + power * LN2_LOW) + power * LN2_HIGH
    return result
