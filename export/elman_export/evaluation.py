"""How well a network predicts a text: the streaming protocol, and the one scale of its logits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from elman_export.model import CharModel

WARM_UP = 256  # characters; what lies further back hardly changes a prediction
SEQUENCE = 256  # positions whose logits are held at a time
WINDOW = 256  # characters; losses further apart than this count as independent
SCALES = (0.5, 1.5)  # of the logits; a fit outside says that something else is wrong


@dataclass(frozen=True)
class Loss:
    """A mean loss and how sure it is, both in nats per character."""

    nats: float
    standard_error: float
    num_characters: int


@torch.no_grad()
def streaming_loss(model: CharModel, ids: Tensor, num_streams: int = 1) -> Loss:
    """Predict every character but the first from all before it, the state carried.

    Args:
        model: The network.
        ids: ``[N]`` int64.
        num_streams: 1 is the protocol. More are many times faster: each reads ``WARM_UP``
            characters before its part, which gives nearly the same figure.
    """
    losses = torch.cat([
        functional.cross_entropy(logits, targets, reduction="none")
        for logits, targets in _predictions(model, ids, num_streams)
    ])
    means = torch.stack([window.mean() for window in losses.split(WINDOW)])
    error = means.std().item() / math.sqrt(len(means)) if len(means) > 1 else math.nan
    return Loss(losses.double().mean().item(), error, len(losses))
