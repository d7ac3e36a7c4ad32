"""The streaming loss of a network, and the scale of its logits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from elman_export.evaluation.loss import Loss

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from elman_export.evaluation.corpus import Ids
    from elman_export.training.model import CharModel

SEQUENCE = 256  # positions read at a time; it affects only the memory used
QUICK_STREAMS = 16  # for intermediate figures; the final one uses one stream
SCALES = (0.5, 1.5)  # the search range of the logit scale; an overfitted network has no optimum
HALVINGS = 12


def streaming_loss(model: CharModel, ids: Ids, num_streams: int = 1) -> Loss:
    """Predict every character but the first from all before it, the state carried.

    Args:
        model: The network.
        ids: ``[N]``, at least three.
        num_streams: 1 is the protocol. More are faster: the text is cut into that many parts that
            start from zeros, which adds a few thousandths of a nat.
    """
    parts = [
        functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view(targets.shape)
        for logits, targets in _predict(model, ids, num_streams)
    ]
    return Loss.of(torch.cat(parts).t().flatten().double().cpu().numpy())  # stream after stream


def fit_logit_scale(model: CharModel, ids: Ids) -> float:
    """The factor on the logits that predicts a text best: below 1 for an over-confident network.

    Args:
        model: The network.
        ids: ``[N]``, text that it was not trained on.
    """
    predicted = list(_predict(model, ids, QUICK_STREAMS))
    logits = torch.cat([part.flatten(0, 1) for part, _ in predicted])  # [M, V]
    targets = torch.cat([part.flatten() for _, part in predicted])  # [M]
    chosen = logits.gather(1, targets[:, None])[:, 0]
    low, high = SCALES
    for _ in range(HALVINGS):  # the loss L(s) = mean(logsumexp(s z) - s z_target) is convex in s
        scale = (low + high) / 2
        expected = (torch.softmax(scale * logits, dim=1) * logits).sum(1)
        if (expected - chosen).mean() > 0:  # L'(s)
            high = scale
        else:
            low = scale
    return (low + high) / 2


@torch.no_grad()
def _predict(model: CharModel, ids: Ids, num_streams: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits ``[T, S, V]`` and the actual characters ``[T, S]``, sequence by sequence."""
    num_streams = min(num_streams, len(ids) - 1)
    length = (len(ids) - 1) // num_streams
    device = model.output.weight.device
    state = model.initial_state(num_streams)
    starts = length * np.arange(num_streams)
    for first in range(0, length, SEQUENCE):
        positions = np.arange(first, min(first + SEQUENCE, length) + 1)[:, None]
        read = torch.from_numpy(ids[starts + positions].astype(np.int64)).to(device)  # [T + 1, S]
        logits, *after = model.read(read[:-1], *state)
        state = tuple(after)
        yield logits, read[1:]
