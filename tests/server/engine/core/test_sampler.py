"""Sampling against the same rules written out a row at a time."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from elman_format import self_check
from elman_server.domain import exact
from elman_server.domain.sampling import Sampling, log_softmax
from elman_server.engine.core import sampler as sampler_module
from elman_server.engine.core.sampler import Sampler, penalize, uniforms

LESSON = [2.0, 1.0, 0.1]  # logits, docs/lesson.md R3 and R4
NUM_DRAWS = 100_000
VOCABULARY = 65
BATCHES = (1, 2, 7, 64, 256)

parameters = st.builds(
    Sampling,
    seed=st.just(0),
    temperature=st.sampled_from([0.0, 5e-324, 1e-300, 0.2, 0.7, 1.0, 2.0, 1e300]) | st.floats(0.05, 5),
    top_k=st.integers(0, 9),
    top_p=st.just(1.0) | st.floats(0.01, 1),
    min_p=st.just(0.0) | st.floats(0, 1),
)
# Few values, so that there are ties; -inf is a banned character.
logit_rows = st.lists(st.sampled_from([-math.inf, -3.0, -1.0, 0.0, 0.5, 0.5, 2.0]), min_size=2, max_size=8).filter(
    lambda row: max(row) > -math.inf
)


def sampler_of(samplings: Sequence[Sampling], vocabulary_size: int) -> Sampler:
    """Return a sampler with a row for each of the parameters."""
    sampler = Sampler(len(samplings), vocabulary_size)
    for row, sampling in enumerate(samplings):
        sampler.load(row, sampling)
    return sampler


def draw_alone(logits: list[float], sampling: Sampling, uniform: list[float]) -> list[int]:
    """Sample once for each uniform, all from one distribution."""
    if -math.inf in logits:  # only a bias bans
        sampling = dataclasses.replace(sampling, bias=((0, -math.inf),))
    batch = np.tile(np.array(logits, np.float32), (len(uniform), 1))
    sampled: list[int] = sampler_of([sampling] * len(uniform), len(logits)).sample(batch, np.array(uniform)).tolist()
    return sampled


def distribution(logits: list[float], sampling: Sampling) -> list[float]:
    """Sort, keep, renormalise: what the documents say, in plain Python."""
    order = sorted(range(len(logits)), key=lambda index: (-logits[index], index))
    top = logits[order[0]]
    if sampling.temperature == 0:
        return [float(index == order[0]) for index in range(len(logits))]
    weights = {index: math.exp((logits[index] - top) / sampling.temperature) for index in order}
    if sampling.top_k:
        order = order[: sampling.top_k]
    if sampling.top_p < 1:
        share = sampling.top_p * math.fsum(weights[index] for index in order)
        mass, kept = 0.0, 0
        while mass < share and kept < len(order):
            mass += weights[order[kept]]
            kept += 1
        order = order[:kept]
    order = [index for index in order if weights[index] >= sampling.min_p]
    total = math.fsum(weights[index] for index in order)
    return [weights[index] / total if index in order else 0.0 for index in range(len(logits))]


def between(expected: list[float], logits: list[float], sampling: Sampling) -> list[tuple[float, int]]:
    """Return a uniform in the middle of each character's share, and that character.

    A row that filters lays the shares in falling order, others in the order of ids.
    """
    order = list(range(len(logits)))
    if sampling.filters:
        order.sort(key=lambda index: -logits[index])
    edges = np.cumsum([0, *(expected[index] for index in order)])
    return [((edges[at] + edges[at + 1]) / 2, index) for at, index in enumerate(order) if expected[index] > 1e-9]


@given(logits=logit_rows, sampling=parameters)
def test_the_filters_are_those_of_the_documents(logits, sampling):
    """Every character has the share of [0, 1) that sorting, keeping and renormalising gives it."""
    # A share on the very edge of top_p or min_p may fall either way in another order of additions.
    expected = distribution(logits, sampling)
    for factor in (1 - 1e-12, 1 + 1e-12):
        near = dataclasses.replace(
            sampling, top_p=min(1.0, sampling.top_p * factor), min_p=min(1.0, sampling.min_p * factor)
        )
        assume(np.allclose(distribution(logits, near), expected, atol=1e-9))
    uniform, ids = zip(*between(expected, logits, sampling), strict=True)
    assert draw_alone(logits, sampling, list(uniform)) == list(ids)


@pytest.mark.parametrize(
    ("sampling", "kept"),
    [
        (Sampling(0, top_k=2), {1, 2}),
        (Sampling(0, top_p=0.5), {1, 2}),
        (Sampling(0, top_k=3, top_p=0.3), {1}),
        (Sampling(0, top_k=2, top_p=0.5), {1}),  # top_p is a share of what top_k left
        (Sampling(0, min_p=1.0), {1, 2, 4}),  # min_p keeps all equals
        (Sampling(0, min_p=1.0, top_k=2), {1, 2}),
    ],
)
def test_the_lower_id_wins_among_equals(sampling, kept):
    """Where a filter cuts through equals, it keeps the first of them."""
    sampled = draw_alone([0.0, 5.0, 5.0, -1.0, 5.0], sampling, np.linspace(0, 1, 1000, endpoint=False).tolist())
    assert set(sampled) == kept


@pytest.mark.parametrize("temperature", [0.0, 5e-324, 1e-300])
def test_cold_takes_the_likeliest(temperature):
    """R4: at and near T = 0 the sample is argmax, the first of equals at 0."""
    assert draw_alone([1.0, 3.0, 2.0], Sampling(0, temperature=temperature), [0.0, 0.5, 1 - 2**-53]) == [1, 1, 1]
    assert draw_alone([1.0, 3.0, 3.0], Sampling(0), [0.999]) == [2]
    assert draw_alone([1.0, 3.0, 3.0], Sampling(0, temperature=0), [0.999]) == [1]


def test_heat_makes_all_alike_but_the_banned():
    """At T = 1e300 every character that is not banned is equally likely."""
    sampled = draw_alone(
        [-math.inf, 50.0, -50.0, -math.inf], Sampling(0, temperature=1e300), [0.0, 0.49, 0.51, 1 - 2**-53]
    )
    assert sampled == [1, 1, 2, 2]


@given(sampling=parameters, uniform=st.sampled_from([0.0, 2**-53, 0.3, 1 - 2**-53]))
def test_a_banned_character_is_never_drawn(sampling, uniform):
    """-inf has no share, at neither end of [0, 1) and with any filter."""
    (sampled,) = draw_alone([-math.inf, -math.inf, 0.25, -math.inf, -7.0, -math.inf], sampling, [uniform])
    assert sampled in {2, 4}


@pytest.mark.parametrize("batch", BATCHES)
def test_a_row_does_not_depend_on_its_neighbours(batch):
    """1: the same rows alone and in batches, whatever the others ask for, give the same characters."""
    random = np.random.default_rng(batch)
    logits = random.normal(0, 4, (256, VOCABULARY)).astype(np.float32)
    logits[random.random(logits.shape) < 0.05] = -np.inf
    temperatures, top_ks, top_ps, min_ps = (
        [0, 1e-300, 0.5, 1, 3],
        [0, 0, 1, 20, 10**6],
        [1, 1, 0.9, 0.2],
        [0, 0, 0.05],
    )
    every = [
        Sampling(
            0,
            bias=((0, -math.inf),),
            temperature=float(random.choice(temperatures)),
            top_k=int(random.choice(top_ks)),
            top_p=float(random.choice(top_ps)),
            min_p=float(random.choice(min_ps)),
        )
        for _ in range(256)
    ]
    uniform = random.random(256)

    def sampled(chosen: list[int]) -> list[int]:
        sampler = sampler_of([every[row] for row in chosen], VOCABULARY)
        result: list[int] = sampler.sample(logits[chosen], uniform[chosen]).tolist()
        return result

    alone = [sampled([row])[0] for row in range(256)]
    order = random.permutation(256).tolist()
    together: dict[int, int] = {}
    for at in range(0, 256, batch):
        chosen = order[at : at + batch]
        together |= dict(zip(chosen, sampled(chosen), strict=True))
    assert [together[i] for i in range(256)] == alone


@given(parameters, st.floats(0, 1, exclude_max=True))
def test_a_row_that_moves_takes_its_parameters_along(sampling, uniform):
    """A row in another's place samples what it did in its own."""
    sampler = sampler_of([Sampling(seed=0), sampling], 5)
    sampler.move(1, 0)
    moved, own = sampler.sample(np.tile(np.array([2, 0.5, 0, -1, -3], np.float32), (2, 1)), np.full(2, uniform))
    assert moved == own


def test_log_probabilities_do_not_depend_on_the_neighbours():
    """The details of a row are the same bits in any batch."""
    logits = np.random.default_rng(3).normal(0, 5, (64, VOCABULARY)).astype(np.float32)
    together = log_softmax(logits)
    assert np.array_equal(together, np.vstack([log_softmax(row[None]) for row in logits]))
    assert np.exp(together).sum(axis=1) == pytest.approx(1)


@pytest.mark.parametrize(
    ("temperature", "expected"),
    [
        pytest.param(1.0, [0.659, 0.242, 0.099], id="R3"),
        pytest.param(0.5, [0.864, 0.117, 0.019], id="R4-sharper"),
        pytest.param(2.0, [0.502, 0.304, 0.194], id="R4-softer"),
    ],
)
def test_the_lesson_numbers(temperature, expected):
    """R3 and R4: logits [2.0, 1.0, 0.1] give the lesson's shares of [0, 1)."""
    uniform = np.linspace(0, 1, NUM_DRAWS, endpoint=False).tolist()
    counts = np.bincount(draw_alone(LESSON, Sampling(0, temperature=temperature), uniform), minlength=3)
    assert (counts / NUM_DRAWS).round(3).tolist() == expected


def test_the_lesson_softmax():
    """R3: the log-probabilities of [2.0, 1.0, 0.1] are those of 0.659, 0.242 and 0.099."""
    assert np.exp(log_softmax(np.array([LESSON], np.float32))).round(3).tolist() == [[0.659, 0.242, 0.099]]


@pytest.mark.parametrize("temperature", [0.2, 1.0, 2.0])
def test_draws_follow_the_distribution(temperature):
    """R4: chi-square over 100,000 samples of one seed against softmax(z / T)."""
    logits = np.random.default_rng(7).normal(0, 1, 12).astype(np.float32)
    uniform = uniforms(20, 0).random(NUM_DRAWS)
    sampled = draw_alone(logits.tolist(), Sampling(0, temperature=temperature), uniform.tolist())
    exponent = logits.astype(np.float64) / temperature
    expected = NUM_DRAWS * np.exp(exponent - exponent.max()) / np.exp(exponent - exponent.max()).sum()
    counts = np.bincount(sampled, minlength=12)
    rare = expected < 5  # too few for chi-square: counted together
    groups = [(counts[~rare], expected[~rare]), (counts[rare].sum(keepdims=True), expected[rare].sum(keepdims=True))]
    statistic = sum(((seen - due) ** 2 / np.maximum(due, 1)).sum() for seen, due in groups)
    assert statistic < 31.26  # chi-square, 11 degrees of freedom, 1 in 1,000


def philox(counter: int, key: int) -> list[int]:
    """Philox 4x64-10 (Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3; SC11)."""
    mask = 2**64 - 1
    x = [counter >> 64 * word & mask for word in range(4)]
    k = [key & mask, key >> 64]
    for _ in range(10):
        low, high = 0xD2E7470EE14C6C93 * x[0], 0xCA5A826395121157 * x[2]
        x = [high >> 64 ^ x[1] ^ k[0], high & mask, low >> 64 ^ x[3] ^ k[1], low & mask]
        k = [(k[0] + 0x9E3779B97F4A7C15) & mask, (k[1] + 0xBB67AE8584CAA73B) & mask]
    return x


def uniform_at(seed: int, position: int) -> float:
    """The uniform number of one position, by the documented formula."""
    return (philox(position // 4 + 1, seed)[position % 4] >> 11) * 2.0**-53


def test_philox_is_the_published_one():
    """The reference here gives the known answers of the authors' own test vectors."""
    assert philox(0, 0) == [0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B]
    everywhere = 2**256 - 1
    assert philox(everywhere, 2**128 - 1) == [
        0x87B092C3013FE90B, 0x438C3C67BE8D0224, 0x9CC7D7C69CD777B6, 0xA09CAEBF594F0BA0,
    ]  # fmt: skip


@pytest.mark.parametrize("seed", [0, 1, 12345678901234567890, 2**64 - 1])
def test_a_draw_is_a_function_of_seed_and_position(seed):
    """5: they may begin anywhere, repeat, and come in pieces; each number is Philox of (seed, position)."""
    for first in (771, 0, 10**12 + 1, 2, 771):
        source = uniforms(seed, first)
        sampled = [*source.random(3).tolist(), *source.random(260).tolist()]
        for offset in (0, 1, 2, 3, 4, 130, 262):
            assert sampled[offset] == uniform_at(seed, first + offset)


def test_uniforms_lie_in_the_half_open_interval():
    """No number reaches 1, and seeds differ."""
    sampled = np.array([uniforms(seed, 0).random(256) for seed in range(100)])
    assert sampled.min() >= 0
    assert sampled.max() < 1
    assert len(np.unique(sampled)) == sampled.size


@given(logits=st.lists(st.floats(-20, 20, width=32), min_size=3, max_size=3), penalty=st.floats(0.01, 100))
def test_a_penalty_weakens_what_was_seen_alone(logits, penalty):
    """Above 0 divided, below multiplied; a character out of the window is untouched."""
    seen = np.array([[True, False, True]])
    (actual,) = penalize(np.array([logits], np.float32), seen, np.array([[penalty]])).tolist()
    expected = [z if not s else z / penalty if z > 0 else z * penalty for z, s in zip(logits, seen[0], strict=True)]
    assert actual == np.array(expected, np.float32).tolist()


def test_a_penalty_row_does_not_depend_on_its_neighbours():
    """Rows without a penalty (1) and rows alone keep their bits."""
    random = np.random.default_rng(2)
    logits = random.normal(0, 4, (64, VOCABULARY)).astype(np.float32)
    seen, penalty = random.random((64, VOCABULARY)) < 0.4, random.choice([1.0, 1.3, 0.7], (64, 1))
    together = penalize(logits, seen, penalty)
    alone = np.vstack([penalize(logits[i : i + 1], seen[i : i + 1], penalty[i : i + 1]) for i in range(64)])
    assert np.array_equal(together, alone)
    untouched = penalty[:, 0] == 1
    assert np.array_equal(together[untouched], logits[untouched])


# One text on every machine


def mixed(num_rows: int) -> list[Sampling]:
    """Every filter and temperature, alone and together."""
    rows = [
        Sampling(0, temperature=0.5),
        Sampling(0, temperature=0.8, top_k=10),
        Sampling(0, temperature=1.2, top_p=0.9),
        Sampling(0, min_p=0.05),
        Sampling(0, temperature=1.5, top_k=20, top_p=0.8, min_p=0.02),
        Sampling(0, temperature=0),
    ]
    return [rows[index % len(rows)] for index in range(num_rows)]


def test_the_exact_weights_choose_as_the_fast_ones(monkeypatch):
    """With NumPy's exponential as a filter and without it, the same ids; each is the id of plain Python."""
    random, samplings = np.random.default_rng(4), mixed(60)
    sampler = sampler_of(samplings, VOCABULARY)
    batches = [random.normal(0, 3, (60, VOCABULARY)).astype(np.float32) for _ in range(20)]
    uniform = random.random((20, 60))
    fast = [sampler.sample(*drawn).tolist() for drawn in zip(batches, uniform, strict=True)]
    monkeypatch.setattr(sampler_module, "_NEAR", np.array([[0.5], [2.0]]))  # nothing is clear
    assert [sampler.sample(*drawn).tolist() for drawn in zip(batches, uniform, strict=True)] == fast
    for logits, own, ids in zip(batches, uniform, fast, strict=True):
        for row, sampling in enumerate(samplings):
            setting = self_check.Setting(sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p)
            assert self_check.sample(logits[row].tolist(), setting, float(own[row])) == ids[row]


@pytest.mark.parametrize("error", [1e-15, 1e-12])
def test_an_exponential_that_is_wrong_in_the_last_digits_changes_no_sample(monkeypatch, error):
    """Uniforms at the very edge between two characters: the exact weights decide, whatever NumPy's are like."""
    logits = np.random.default_rng(5).normal(0, 3, (60, VOCABULARY)).astype(np.float32)
    samplings = mixed(60)
    sampler = sampler_of(samplings, VOCABULARY)
    weights = exact.exp((logits - logits.max(axis=1, keepdims=True)).astype(np.float64) / 0.5)
    edges = np.add.accumulate(weights, axis=1)
    uniform = edges[:, 20] / edges[:, -1]  # for the rows that neither filter nor have another temperature
    expected = sampler.sample(logits, uniform).tolist()
    true = np.exp

    def wrong(x, out):
        true(x, out=out)
        out *= 1 + error * np.random.default_rng(6).uniform(-1, 1, out.shape)

    monkeypatch.setattr(np, "exp", wrong)
    assert sampler.sample(logits, uniform).tolist() == expected


@pytest.mark.parametrize(
    "sampling", [Sampling(0, min_p=1.0), Sampling(0, top_k=2, top_p=0.5), Sampling(0, top_k=3, top_p=1 / 3)]
)
def test_ties_on_a_threshold_are_decided_by_the_exact_weights(sampling):
    """Equal logits put a weight or a sum exactly on min_p or top_p: every machine cuts there."""
    logits = [1.0, 1.0, 1.0, 0.0]
    setting = self_check.Setting(sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p)
    uniform = np.linspace(0, 1, 50, endpoint=False).tolist()
    assert draw_alone(logits, sampling, uniform) == [self_check.sample(logits, setting, own) for own in uniform]


def test_log_probabilities_are_those_of_plain_python():
    """To the last bit, so that Score agrees on every machine."""
    logits = np.random.default_rng(7).normal(0, 5, (40, VOCABULARY)).astype(np.float32)
    assert log_softmax(logits).tolist() == [self_check.log_softmax(row) for row in logits.tolist()]
