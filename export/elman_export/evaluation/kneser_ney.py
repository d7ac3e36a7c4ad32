"""An interpolated, modified Kneser-Ney model of characters: the baseline for networks.

Chen & Goodman, An Empirical Study of Smoothing Techniques for Language Modeling (1998), section 3. After a context the
probability of a symbol w is

    p_k(w | context) = (c(context w) - D(c)) / c(context) + mass(context) / c(context) * p_{k-1}(w | shorter context)

where mass is the sum of the discounts D. The longest grams are counted as they occur in the text; the count of a
shorter one is the number of different symbols that precede it. Below single symbols is the uniform distribution.
"""

import numpy as np
from numpy.typing import NDArray

from elman_export.evaluation.loss import Losses

Ids = NDArray[np.int64]

ORDER = 5


def kneser_ney_losses(training: Ids, text: Ids, vocabulary_size: int, order: int = ORDER) -> Losses:
    """Predict every symbol of a text except the first from the preceding ones of the same text.

    Args:
        training: ``[M]``, the text to count.
        text: ``[N]``, at least two symbols.
        vocabulary_size: The number of different symbols.
        order: Symbols of the longest gram.

    Returns:
        ``[N - 1]`` in nats.
    """
    end = len(training)
    grams = _grams(np.concatenate([training, text]), order)
    context = np.zeros_like(grams[0])  # the gram of k - 1 symbols that ends before each position
    p: NDArray[np.float64] = np.full(len(text), 1 / vocabulary_size)
    for k, gram in enumerate(grams, start=1):
        first = k - 1  # where the first whole gram ends
        _, places = np.unique(gram[first:end], return_index=True)  # one of each gram
        ids, owners = gram[first:end][places], context[first:end][places]
        count = _count(grams, k, end)[ids]
        discount = _discounts(count)[np.minimum(count, 3)]
        kept = np.zeros(gram.max(initial=0) + 1)
        kept[ids] = count - discount
        size = context.max(initial=0) + 1
        total = np.bincount(owners, count, minlength=size)
        mass = np.bincount(owners, discount, minlength=size)
        here, before = gram[end + first :], context[end + first :]
        is_known = total[before] > 0
        mixed = kept[here] + mass[before] * p[first:]
        p[first:] = np.where(is_known, mixed / np.where(is_known, total[before], 1), p[first:])
        context = np.roll(gram, 1)
    return np.asarray(-np.log(p[1:]))


def _grams(symbols: Ids, order: int) -> list[Ids]:
    """For 1 … order: the gram of that length that ends at each position, numbered from 0; ``[M + N]`` each."""
    grams: list[Ids] = []
    gram = np.zeros_like(symbols)
    for back in range(order):
        farthest = np.roll(symbols, back)  # wraps round before the first whole gram, which is not used
        _, gram = np.unique(farthest * (gram.max(initial=0) + 1) + gram, return_inverse=True)
        grams.append(gram)
    return grams


def _count(grams: list[Ids], k: int, end: int) -> Ids:
    """How often each gram of k symbols counts in the first ``end`` positions."""
    gram = grams[k - 1]
    if k == len(grams):
        counted = gram[k - 1 : end]
    else:  # a longer gram is this one and the symbol before it: each counts once
        _, places = np.unique(grams[k][k:end], return_index=True)
        counted = gram[k:end][places]
    return np.bincount(counted, minlength=gram.max(initial=0) + 1)


def _discounts(count: Ids) -> NDArray[np.float64]:
    """D for the counts 0, 1, 2 and 3 or more, never more than the count.

    The estimates come from how many grams count 1, 2, 3 and 4. For single symbols these may be zero.
    """
    n1, n2, n3, n4 = (max(1, int((count == c).sum())) for c in (1, 2, 3, 4))
    y = n1 / (n1 + 2 * n2)
    estimates = [0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3]
    return np.array([min(max(0.0, d), c) for c, d in enumerate(estimates)])
