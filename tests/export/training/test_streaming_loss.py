"""The figures by which networks are compared."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from elman_export.training.model import CharModel, ModelConfig
from elman_export.training.streaming_loss import fit_logit_scale, streaming_loss


def make_model() -> CharModel:
    """A small random network over four symbols."""
    model = CharModel(ModelConfig("gru", tuple("abcd"), 1, 8, 0)).requires_grad_(False)
    model.initialise(torch.Generator().manual_seed(0))
    return model


def make_ids(count: int) -> NDArray[np.uint8]:
    """Random symbols."""
    return np.random.default_rng(1).integers(0, 4, count, np.uint8)


def test_a_network_that_knows_nothing_loses_the_logarithm_of_the_vocabulary():
    """Zero weights give ln 4 at every character, with no error."""
    model = make_model()
    for parameter in model.parameters():
        parameter.zero_()
    loss = streaming_loss(model, make_ids(1000))
    assert loss.nats == pytest.approx(math.log(4))
    assert loss.standard_error == pytest.approx(0, abs=1e-6)
    assert loss.num_characters == 999


def test_streaming_is_the_mean_of_single_steps():
    """Every character but the first counts once, predicted from all before it."""
    model, ids = make_model(), make_ids(600)
    state, total = model.initial_state(1), 0.0
    for char, target in pairwise(ids.tolist()):
        logits, *after = model.step(torch.tensor([char]), *state)
        state = tuple(after)
        total -= torch.log_softmax(logits[0], 0)[target].item()
    assert streaming_loss(model, ids).nats == pytest.approx(total / 599, abs=1e-5)


def test_parts_read_side_by_side_give_nearly_the_same():
    """The quick figure stands for the slow one."""
    model, ids = make_model(), make_ids(4000)
    assert streaming_loss(model, ids, 16).nats == pytest.approx(streaming_loss(model, ids).nats, abs=0.01)


def test_the_scale_mends_over_confidence():
    """A network that shouts at random text is told to be quiet."""
    model = make_model()
    model.output.weight.mul_(8)
    ids = make_ids(2000)
    scale = fit_logit_scale(model, ids)
    before = streaming_loss(model, ids).nats
    model.output.weight.mul_(scale)
    assert scale < 1
    assert streaming_loss(model, ids).nats < before
