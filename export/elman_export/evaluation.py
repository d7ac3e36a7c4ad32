"""How well a network predicts a text: the streaming protocol, and the one scale of its logits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor

    from elman_export.model import CharModel

SEQUENCE = 256  # positions read at a time; it changes no figure, only the memory it takes
QUICK_STREAMS = 16  # for figures on the way; the last one is taken with one stream
WINDOW = 256  # characters; mean losses of such windows count as independent
SCALES = (0.5, 1.5)  # where the logit scale is looked for; a text that is known by heart has no best one
HALVINGS = 12


@dataclass(frozen=True)
class Loss:
    """A mean loss and how sure it is, both in nats per character."""

    nats: float
    standard_error: float
    num_characters: int


def streaming_loss(model: CharModel, ids: Tensor, num_streams: int = 1) -> Loss:
    """Predict every character but the first from all before it, the state carried.

    Args:
        model: The network.
        ids: ``[N]`` int64, at least three.
        num_streams: 1 is the protocol. More are quicker: the text is cut into so many parts that
            start from zeros, which adds a few thousandths of a nat.
    """
    logits, targets = _predict(model, ids, num_streams)
    losses = functional.cross_entropy(logits, targets, reduction="none").double()
    window = min(WINDOW, len(losses) // 2)
    means = torch.stack([part.mean() for part in torch.split(losses, window)])
    error = means.std().item() / math.sqrt(len(means))
    return Loss(losses.mean().item(), error, len(losses))


def fit_logit_scale(model: CharModel, ids: Tensor) -> float:
    """The factor on the logits that predicts a text best: below 1 for an over-confident network.

    Args:
        model: The network.
        ids: ``[N]`` int64, text that it was not trained on.
    """
    logits, targets = _predict(model, ids, QUICK_STREAMS)
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
def _predict(model: CharModel, ids: Tensor, num_streams: int) -> tuple[Tensor, Tensor]:
    """Logits ``[M, V]`` and the characters that came, ``[M]``, stream after stream."""
    num_streams = min(num_streams, len(ids) - 1)
    length = (len(ids) - 1) // num_streams
    chars = ids[: length * num_streams].view(num_streams, length).t()  # [length, streams]
    targets = ids[1 : length * num_streams + 1]
    state = model.initial_state(num_streams)
    parts: list[Tensor] = []
    for sequence in torch.split(chars, SEQUENCE):
        logits, *after = model.read(sequence, *state)
        state = tuple(after)
        parts.append(logits)
    return torch.cat(parts).transpose(0, 1).flatten(0, 1), targets
