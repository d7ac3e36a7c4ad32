"""The self-check of a portable model, in plain Python: what every machine must compute, to the bit.

Rows start from the model's default state and read what they sample, each in its own way. The SHA-256 of all logits,
states, log-probabilities and ids is in the artefact. Another implementation, in another language too, can compare:
Python's floats are IEEE 754 doubles, and every operation below is one addition, product, quotient or conversion.
"""

import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import accumulate
from math import factorial
from typing import TypeVar

ARITHMETIC = "portable-1"  # the version of all this: what the fingerprint of a portable model is
NUM_STEPS = 128

# exp(x) = 2^k exp(r): the Taylor series of exp(r) from its highest term, and fdlibm's parts of ln 2.
COEFFICIENTS = tuple(1 / factorial(n) for n in range(13, -1, -1))
LOG2_E = 1.4426950408889634
LN2_HIGH, LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
LOWEST = -800.0  # e to this power is 0
# log(m) = 2 (r + r^3/3 + r^5/5 + ...)
LOG_TERMS = tuple(2 / n for n in range(23, 0, -2))
SQRT_HALF = 0.7071067811865476


Logits = TypeVar("Logits")


@dataclass(frozen=True, slots=True)
class Setting:
    """How a row of the self-check samples; as in the server's requests, 0 or 1 is off."""

    temperature: float
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0


SETTINGS = (
    Setting(0.0),
    Setting(0.5),
    Setting(0.8),
    Setting(1.2),
    Setting(0.8, top_k=10),
    Setting(1.0, top_p=0.9),
    Setting(1.2, min_p=0.05),
    Setting(1.5, top_k=20, top_p=0.8, min_p=0.02),
)


def exp(x: float) -> float:
    """Return e to the power of a number that is at most 0."""
    x = max(x, LOWEST)
    exponent = float(round(x * LOG2_E))
    rest = x - exponent * LN2_HIGH - exponent * LN2_LOW
    result = COEFFICIENTS[0]
    for coefficient in COEFFICIENTS[1:]:
        result = result * rest + coefficient
    return math.ldexp(result, int(exponent))


def log(x: float) -> float:
    """Return the natural logarithm of a number that is at least 1."""
    mantissa, exponent = math.frexp(x)
    if mantissa < SQRT_HALF:
        mantissa, exponent = 2 * mantissa, exponent - 1
    ratio = (mantissa - 1) / (mantissa + 1)
    series = LOG_TERMS[0]
    for term in LOG_TERMS[1:]:
        series = series * (ratio * ratio) + term
    return (series * ratio + exponent * LN2_LOW) + exponent * LN2_HIGH


def log_softmax(logits: Sequence[float]) -> list[float]:
    """Return the log-probabilities of one row, in nats."""
    top = max(logits)
    shifted = [logit - top for logit in logits]
    normalizer = log(_sums([exp(x) for x in shifted])[-1])
    return [x - normalizer for x in shifted]


def sample(logits: Sequence[float], setting: Setting, uniform: float) -> int:
    """Return the id that one row samples.

    Args:
        logits: Float32 numbers.
        setting: How to sample.
        uniform: On [0, 1).
    """
    top = max(logits)
    # The distance from the largest; its float32 difference leaves the low bits free, and the id rides there.
    keys = [(_float32(top - logit), index) for index, logit in enumerate(logits)]
    if setting.temperature == 0:
        return min(keys)[1]
    if setting.top_k or setting.top_p < 1 or setting.min_p > 0:
        keys.sort()
    mass = [exp(_with_low_bits(distance, index) * -(1 / setting.temperature)) for distance, index in keys]
    sums = _sums(mass)
    enough = setting.top_p * sums[min(setting.top_k or len(sums), len(sums)) - 1]
    last = next(index for index, total in enumerate(sums) if total >= enough)
    last = min(last, sum(part >= setting.min_p for part in mass) - 1)
    return next(index for (_, index), total in zip(keys, sums, strict=True) if total > sums[last] * uniform)


def uniforms(step: int) -> list[float]:
    """Return the rows' uniforms on [0, 1) of a step: multiples of the golden ratio, 53 bits of them."""
    first = step * len(SETTINGS)
    return [((first + row) * 0x9E3779B97F4A7C15 % 2**64 >> 11) * 2.0**-53 for row in range(len(SETTINGS))]


def first_chars(vocabulary_size: int) -> list[int]:
    """Return what the rows read first."""
    return [7 * row % vocabulary_size for row in range(len(SETTINGS))]


def digest(
    vocabulary_size: int,
    step: Callable[[list[int]], tuple[bytes, Logits]],
    choose: Callable[[Logits, list[float]], tuple[bytes, list[int]]],
) -> str:
    """Return the SHA-256 of a self-check, 64 hex digits.

    Args:
        vocabulary_size: Of the model.
        step: Reads a character of each row. Returns the logits [rows, V] and all states, each [rows, ...], as joined
            little-endian float32; and the logits once more, for `choose`.
        choose: Returns the rows' log-probabilities [rows, V] as little-endian float64, and the ids that they sample by
            `SETTINGS`, given their uniforms.
    """
    sha, chars = sha256(), first_chars(vocabulary_size)
    for index in range(NUM_STEPS):
        encoded, logits = step(chars)
        sha.update(encoded)
        encoded, ids = choose(logits, uniforms(index))
        sha.update(encoded)
        sha.update(struct.pack(f"<{len(ids)}q", *ids))
        chars = [chosen % vocabulary_size for chosen in ids]
    return sha.hexdigest()


def choose(logits: Sequence[Sequence[float]], uniforms: list[float]) -> tuple[bytes, list[int]]:
    """Choose as `digest` expects it: the reference."""
    encoded = b"".join(struct.pack(f"<{len(row)}d", *log_softmax(row)) for row in logits)
    return encoded, [sample(*row) for row in zip(logits, SETTINGS, uniforms, strict=True)]


def _sums(values: Sequence[float]) -> list[float]:
    """The running sums, added one by one."""
    return list(accumulate(values))


def _with_low_bits(distance: float, index: int) -> float:
    (bits,) = struct.unpack("<q", struct.pack("<d", distance))
    (number,) = struct.unpack("<d", struct.pack("<q", bits | index))
    return float(number)


def _float32(x: float) -> float:
    (number,) = struct.unpack("<f", struct.pack("<f", x))
    return float(number)
