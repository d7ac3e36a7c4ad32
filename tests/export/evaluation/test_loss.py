import math

import numpy as np
import pytest

from elman_export.evaluation.loss import WINDOW, Loss


def test_a_mean_has_the_error_that_statistics_gives_it():
    """Of independent losses the mean errs by sigma / sqrt(N); bits are nats / ln 2."""
    losses = np.random.default_rng(0).normal(1.5, 0.5, 400 * WINDOW + 100)
    loss = Loss.of(losses)
    assert loss.nats == pytest.approx(losses.mean())
    assert loss.standard_error == pytest.approx(0.5 / math.sqrt(len(losses)), rel=0.1)
    assert loss.bits == pytest.approx(loss.nats / math.log(2))
    assert loss.num_characters == len(losses)


def test_losses_that_go_together_are_less_sure():
    """A hard window is hard throughout: its 256 losses tell no more than one."""
    windows = np.random.default_rng(0).normal(1.5, 0.5, 400)
    assert Loss.of(np.repeat(windows, WINDOW)).standard_error == pytest.approx(windows.std(ddof=1) / 20)


def test_bytes_are_counted_by_the_character():
    """The nats of a character's bytes go to the one character that they are."""
    characters = np.tile([True, False, True], 1000)
    loss = Loss.of(np.tile([1.0, 2.0, 3.0], 1000), characters)
    assert loss.nats == pytest.approx(3.0)
    assert loss.num_characters == 2000


def test_a_single_loss_has_no_error():
    """One window tells nothing about how windows differ."""
    assert Loss.of(np.array([2.0])) == Loss(2.0, 0.0, 1)
