"""The n-gram model against the definition, written out with sets and dictionaries."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable

import numpy as np
import pytest

from elman_export.evaluation.kneser_ney import kneser_ney_losses

ORDER = 5
SYMBOLS = "abcdef"  # f is not in the training text


def make_text(length: int, seed: int, symbols: str = "abcde") -> str:
    """A text with some order in it: a symbol depends on the two before."""
    random = np.random.default_rng(seed)
    text = "ab"
    while len(text) < length:
        weights = np.random.default_rng([ord(char) for char in text[-2:]]).exponential(size=len(symbols)) ** 3
        text += random.choice(list(symbols), p=weights / weights.sum())
    return text


def ids(text: str) -> np.ndarray:
    """Places in SYMBOLS."""
    return np.array([SYMBOLS.index(char) for char in text], np.int64)


def slow(training: str) -> Callable[[str, str], float]:
    """The probability of a symbol after a context, as Chen & Goodman define it."""
    counts: dict[int, Counter[str]] = {}
    for k in range(1, ORDER + 1):
        places = range(len(training) - k + 1)
        if k == ORDER:
            counts[k] = Counter(training[i : i + k] for i in places)
        else:
            before = defaultdict(set)
            for i in places:
                if i > 0:
                    before[training[i : i + k]].add(training[i - 1])
            counts[k] = Counter({gram: len(symbols) for gram, symbols in before.items()})

    def discount(k: int, count: int) -> float:
        n = [max(1, sum(value == c for value in counts[k].values())) for c in range(5)]
        y = n[1] / (n[1] + 2 * n[2])
        c = min(count, 3)
        return min(max(0, c - (c + 1) * y * n[c + 1] / n[c]), c) if c else 0

    def probability(context: str, char: str) -> float:
        k = len(context) + 1
        lower = probability(context[1:], char) if context else 1 / len(SYMBOLS)
        after = {symbol: counts[k][context + symbol] for symbol in SYMBOLS}
        total = sum(after.values())
        if not total:
            return lower
        mass = sum(discount(k, count) for count in after.values())
        return (after[char] - discount(k, after[char]) + mass * lower) / total

    return probability


@pytest.mark.parametrize("length", [3, 50, 3000])
def test_it_is_what_the_definition_says(length: int):
    """Every single loss, in a text that has symbols and contexts which the training text lacks."""
    training, text = make_text(length, 0), make_text(150, 1) + "fabfff" + make_text(50, 2, SYMBOLS)
    probability = slow(training)
    expected = [-math.log(probability(text[max(0, i - ORDER + 1) : i], text[i])) for i in range(1, len(text))]
    actual = kneser_ney_losses(ids(training), ids(text), len(SYMBOLS))
    assert actual == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("context", ["abcd", "fabc", "ff", "e"])
def test_probabilities_sum_to_one(context: str):
    """After contexts that were seen and others."""
    training = ids(make_text(2000, 0))
    losses = [kneser_ney_losses(training, ids(context + char), len(SYMBOLS))[-1] for char in SYMBOLS]
    assert sum(map(math.exp, np.negative(losses))) == pytest.approx(1)
