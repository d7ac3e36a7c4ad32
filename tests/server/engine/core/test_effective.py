"""What characters were sampled from, against the sampler and against the rules written out."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elman_server.domain.sampling import Sampling
from elman_server.engine.core.effective import EffectiveTrace, effective
from elman_server.engine.core.sampler import penalize, uniforms
from tests.server.engine.core.test_sampler import distribution, draw_alone, parameters

rows = st.lists(st.sampled_from([-3.0, -1.0, 0.0, 0.5, 0.5, 2.0]), min_size=2, max_size=8)


@given(rows, parameters, st.floats(0, 1, exclude_max=True))
def test_the_uniform_lies_in_the_part_of_the_character_that_the_sampler_chose(logits, sampling, uniform):
    """Whatever the filters, below <= uniform < below + probability, and the kept are those that the rules keep."""
    (character,) = draw_alone(logits, sampling, [uniform])
    found = effective(np.array(logits, np.float32), sampling, uniform, character, len(logits))
    likely = math.exp(found.log_probability)
    assert found.uniform == uniform
    if sampling.temperature > 0:
        assert found.below - 1e-9 <= uniform <= found.below + likely + 1e-9
    assert math.fsum(math.exp(nats) for _, nats in found.top) == pytest.approx(1)
    assert found.num_kept == len(found.top)
    assert dict(found.top)[character] == pytest.approx(found.log_probability)
    if 1e-3 < sampling.temperature < 1e3:
        expected = distribution(logits, sampling)
        assert likely == pytest.approx(expected[character], abs=1e-6)
        assert [nats for _, nats in found.top] == sorted((nats for _, nats in found.top), reverse=True)


def test_bias_and_penalty_come_first():
    """A ban leaves no part, a bias moves the odds, and the penalty sees the text up to the character before."""
    logits = np.array([1.0, 2.0, 3.0, 0.5], np.float32)
    sampling = Sampling(
        seed=5, bias=((0, math.log(2)), (2, -math.inf)), repetition_penalty=2.0, repetition_window=2, temperature=0.5
    )
    trace = EffectiveTrace(sampling, 40, [3, 1])
    source = uniforms(5, 40)
    for window, character in (({3, 1}, 1), ({1}, 0), ({1, 0}, 3)):
        found = trace.next(logits, character, 4)
        biased = logits + np.array([math.log(2), 0, -np.inf, 0], np.float32)
        seen = np.array([[index in window for index in range(4)]])
        adjusted = penalize(biased[None], seen, np.array([[2.0]]))[0]
        plain = dataclasses.replace(sampling, bias=(), repetition_penalty=1.0)
        expected = effective(adjusted, plain, float(source.random()), character, 4)
        assert found == expected
        assert {index for index, _ in found.top} == {0, 1, 3}
        assert found.num_kept == 3
