"""The exactness contract of the API: same model, same seed, same text, whatever happens around it."""

import asyncio
import random
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from elman_server.domain.events import FinishReason
from elman_server.domain.requests import AppendRequest, Detail, SamplingRequest, ScoreRequest, StoppingRequest, Target
from tests.models import CHARACTERS, quantized_model, tiny_model
from tests.server.house import PLAIN, House, Text

CELLS = ("elman", "gru", "lstm")
QUANTISED = ("int8-gru", "int8-lstm")
MODELS = (*CELLS, *QUANTISED)  # they are promised the same
PROMPT = "What is the city but the people?\n"
RANDOM_CANCELS = 1000


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=[1, 2], ids=["1-thread", "2-threads"])
async def house(request, tmp_path_factory) -> AsyncIterator[House]:
    """One engine a cell, with two layers, two that are quantized, and one for a model without a prefill graph."""
    folder = tmp_path_factory.mktemp("models")
    paths = [tiny_model(folder / f"{cell}.onnx", cell, 2, 64, seed=3, name=cell) for cell in CELLS]
    paths += [quantized_model(folder / f"{name}.onnx", name[5:], 2, 64, name=name) for name in QUANTISED]
    paths.append(tiny_model(folder / "stepped.onnx", "gru", 2, 64, seed=3, name="stepped", prefill=False))
    async with House(paths, num_threads=request.param) as house:
        yield house


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def alone(house: House, cell: str, prompt: str = PROMPT, max_chars: int = 300, **kwargs: object) -> Text:
    """Run a turn on a model's beginning."""
    return await house.generate(Target(model=cell), prompt, max_chars, **kwargs)  # type: ignore[arg-type]


async def neighbour(house: House, cell: str, number: int) -> None:
    """Run a turn that has nothing in common with another: joins late, leaves early, filters, is abandoned."""
    chance = random.Random(number)
    await asyncio.sleep(chance.random() * 0.05)
    sampling = SamplingRequest(
        seed=number,
        temperature=chance.choice([0.0, 0.5, 1.5, 1e-300, 1e300]),
        top_k=chance.choice([None, 3]),
        min_p=chance.choice([None, 0.1]),
        repetition_penalty=chance.choice([None, 1.3]),
        banned_characters=chance.choice(["", "abc"]),
    )
    prompt = "".join(chance.choices(CHARACTERS, k=chance.randint(1, 200)))
    stopping = StoppingRequest(max_chars=chance.randint(1, 400), stop_strings=("th",) if number % 3 == 0 else ())
    stop_after = chance.choice([None, None, 3])
    await house.generate(Target(model=cell), prompt, 1, sampling, stopping=stopping, stop_after=stop_after)


@pytest.mark.parametrize("cell", MODELS)
async def test_a_text_is_the_same_alone_and_among_63_neighbours(house, cell):
    """1: neither the batch nor the neighbours show in the text or in the state."""
    expected = await alone(house, cell)
    turn = asyncio.create_task(alone(house, cell))
    await asyncio.gather(turn, *(neighbour(house, cell, n) for n in range(63)))
    actual = turn.result()
    assert actual.text == expected.text
    assert actual.end.state_digest == expected.end.state_digest
    assert len(expected.text) == 300


@pytest.mark.parametrize("cell", MODELS)
async def test_a_short_prompt_is_read_by_the_batch_as_by_the_prefill_graph(house, cell):
    """Step or prefill may read the prompt, on any rows beside it: the text and the state after it are the same."""
    others = [asyncio.create_task(neighbour(house, cell, number)) for number in range(8)]
    for size in range(1, 7):
        names = [(await house.session(cell, seed=size)).name for _ in range(2)]
        for name in names:
            await house.turns.append(AppendRequest(name, PROMPT))
        in_batch, prefilled = await asyncio.gather(
            house.generate(Target(session=names[0]), PROMPT[:size], 40),
            house.generate(Target(session=names[1]), PROMPT[:size], 40, detail=Detail(log_probability=True)),
        )
        assert in_batch.text == prefilled.text
        assert in_batch.end.state_digest == prefilled.end.state_digest
    await asyncio.gather(*others)


async def test_a_prefill_graph_and_stepping_give_the_same_text(house):
    """A model that travels without its prefill graph is fed step by step, with the same result."""
    scanned, stepped = await alone(house, "gru"), await alone(house, "stepped")
    assert stepped.text == scanned.text
    assert stepped.end.state_digest == scanned.end.state_digest


@pytest.mark.parametrize("cell", MODELS)
@pytest.mark.parametrize("pieces", [2, 5, len(PROMPT)])
async def test_a_prompt_may_be_fed_in_pieces(house, cell, pieces):
    """2: whole, by halves or one by one, the state and the text after it are the same."""
    expected = await alone(house, cell)
    session = await house.session(cell)
    size = -(-len(PROMPT) // pieces)
    for at in range(0, len(PROMPT), size):
        await house.turns.append(AppendRequest(session.name, PROMPT[at : at + size]))
    actual = await house.generate(Target(session=session.name), "", 300)
    assert actual.text == expected.text
    assert actual.end.state_digest == expected.end.state_digest


async def test_a_long_prompt_fed_whole_equals_one_fed_by_thousands(house):
    """2: chunks of the prefill do not show either."""
    text = "".join(random.Random(5).choices(CHARACTERS, k=5000))
    whole, pieces = await house.session("lstm"), await house.session("lstm")
    info, _ = await house.turns.append(AppendRequest(whole.name, text))
    for at in range(0, len(text), 1000):
        other, _ = await house.turns.append(AppendRequest(pieces.name, text[at : at + 1000]))
    assert other.state_digest == info.state_digest
    assert other.position == info.position == 5000


@pytest.mark.parametrize("cell", MODELS)
@pytest.mark.parametrize("chunk_chars", [0, 1, 7])
async def test_joined_chunks_are_the_transcript(house, cell, chunk_chars):
    """3 and 4: what was streamed is what is kept, however it was cut."""
    session = await house.session(cell)
    text = await house.generate(Target(session=session.name), PROMPT, 200, chunk_chars=chunk_chars)
    transcript = await house.sessions.transcript(session.name, 0, None)
    assert transcript.text == PROMPT + text.text
    assert [turn.end for turn in transcript.turns] == [text.end.position] == [len(transcript.text)]
    if chunk_chars:
        assert max(len(chunk.text) for chunk in text.chunks) <= chunk_chars


@pytest.mark.parametrize("cell", MODELS)
async def test_scoring_a_generated_text_gives_the_streamed_log_probabilities(house, cell):
    """2: the same bits, sampled or fed."""
    text = await alone(house, cell, detail=Detail(log_probability=True, top_n=3))
    scored = list(await house.turns.score(ScoreRequest(Target(model=cell), PROMPT + text.text, top_n=3)))
    assert scored[len(PROMPT) :] == text.details
    assert scored[0].log_probability is None


async def test_a_turn_closed_by_its_reader_commits_what_was_handed_over(house):
    """4: the position after an abandoned turn is the one after its last chunk."""
    expected = await alone(house, "gru", max_chars=2000)
    session = await house.session("gru")
    cut = await house.generate(Target(session=session.name), PROMPT, 2000, stop_after=4)
    info = await house.at_rest(session.name)
    assert info.position == len(PROMPT) + len(cut.text)
    rest = await house.generate(Target(session=session.name), "", 2000 - len(cut.text))
    assert cut.text + rest.text == expected.text
    assert rest.end.state_digest == expected.end.state_digest


async def test_rollback_commits_nothing(house):
    """4: with ROLLBACK an abandoned turn leaves the session as it was."""
    session = await house.session("gru")
    await house.generate(Target(session=session.name), PROMPT, 2000, stop_after=4, rollback=True)
    info = await house.at_rest(session.name)
    assert (info.position, info.turn_count, info.etag) == (0, 0, session.etag)


async def test_a_stop_string_that_is_not_shown_is_not_remembered(house):
    """The session is exactly what the reader saw, and continues as if it had never sampled the stop string."""
    expected = await alone(house, "lstm", max_chars=400)
    stop = expected.text[150:155]
    session = await house.session("lstm")
    stopping = StoppingRequest(max_chars=400, stop_strings=(stop,))
    first = await house.generate(Target(session=session.name), PROMPT, stopping=stopping)
    assert first.end.reason is FinishReason.STOP_STRING
    assert first.text == expected.text[: expected.text.index(stop)]
    rest = await house.generate(Target(session=session.name), "", 400 - len(first.text))
    assert first.text + rest.text == expected.text
    assert rest.end.state_digest == expected.end.state_digest


async def test_a_penalty_window_reaches_over_turns(house):
    """The repetition penalty sees the transcript, not the turn."""
    sampling = SamplingRequest(seed=4, repetition_penalty=1.5, repetition_window=100)
    expected = await alone(house, "gru", max_chars=200, sampling=sampling)
    session = await house.session("gru")
    texts = [
        await house.generate(Target(session=session.name), prompt, size, sampling)
        for prompt, size in ((PROMPT, 70), ("", 1), ("", 129))
    ]
    assert "".join(text.text for text in texts) == expected.text


async def _cancel_at_random(house: House, cell: str, number: int, rounds: int) -> None:
    """Abandon a session's turns again and again; compare with an undisturbed turn."""
    chance = random.Random(number)
    sampling = SamplingRequest(seed=number, temperature=0.8)
    session = await house.session(cell)
    target, read = Target(session=session.name), ""
    for _ in range(rounds):
        turn = asyncio.create_task(
            house.generate(target, "" if read else PROMPT, 5000, sampling, stop_after=chance.choice([1, 2, 5, None]))
        )
        await asyncio.sleep(chance.random() * 0.03)
        if chance.random() < 0.5:
            turn.cancel()
        else:
            await house.turns.cancel(session.name)
        await asyncio.wait([turn])
        info = await house.at_rest(session.name)
        text = (await house.sessions.transcript(session.name, 0, None)).text
        assert text.startswith(read)
        assert info.position == len(text)
        if not turn.cancelled() and info.turn_count > 0:
            assert text == (read or PROMPT) + turn.result().text
        read = text
    rest = await house.generate(target, "" if read else PROMPT, 50, sampling)
    whole = await alone(house, cell, max_chars=len(read or PROMPT) - len(PROMPT) + 50, sampling=sampling)
    assert (read or PROMPT) + rest.text == PROMPT + whole.text
    assert rest.end.state_digest == whole.end.state_digest


@pytest.mark.timeout(300)
async def test_a_thousand_cancels_at_random_moments_lose_and_double_nothing(house):
    """4: every session is left at what was delivered out, and its continuation is that of an undisturbed run."""
    sessions = 50
    await asyncio.gather(
        *(_cancel_at_random(house, CELLS[n % 3], n, RANDOM_CANCELS // sessions) for n in range(sessions))
    )


async def test_seeds_make_texts(house):
    """R5: one seed, one text; different seeds, different texts."""
    texts = [(await alone(house, "gru", sampling=SamplingRequest(seed=seed))).text for seed in (1, 1, 2, 3)]
    assert texts[0] == texts[1]
    assert len(set(texts)) == 3


async def test_a_session_seed_is_used_where_a_turn_brings_none(house):
    """The effective seed is reported, and gives the same text again."""
    session = await house.session("gru", seed=77)
    text = await house.generate(Target(session=session.name), PROMPT, 50, SamplingRequest())
    assert text.started is not None
    assert text.started.sampling.seed == 77
    again = await alone(house, "gru", max_chars=50, sampling=SamplingRequest(seed=77))
    assert again.text == text.text


async def test_plain_parameters_are_told(house):
    """Started names every effective parameter."""
    text = await alone(house, "gru", max_chars=1)
    assert text.started is not None
    assert text.started.sampling.top_k == PLAIN.top_k
    assert text.started.sampling.repetition_penalty == 1
