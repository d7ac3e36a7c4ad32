"""R12: recurrent networks learn programs. One is trained here to match brackets, and counts beyond what it saw."""

import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from elman_client import Client, FinishReason
from elman_export.__main__ import main as exporter
from examples import brackets
from tests.server_process import ServerProcess

ROOT: Final = Path(__file__).parents[2]
RECIPE: Final = ROOT / "examples" / "brackets.toml"
pytestmark = pytest.mark.timeout(900)  # the first test waits for the training


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """The text that is trained on."""
    path: Path = tmp_path_factory.mktemp("brackets") / "brackets.txt"
    brackets.write(str(path))
    return path


@pytest.fixture(scope="module")
def client(corpus) -> Iterator[Client]:
    """A client of the server of a network that was trained on it, by the commands that the example names."""
    run, models = corpus.parent / "run", corpus.parent / "models"
    models.mkdir()
    exporter(["train", str(corpus), "--recipe", str(RECIPE), "-o", str(run)], standalone_mode=False)
    exporter(["trace", str(run), "-o", str(models / "brackets.onnx")], standalone_mode=False)
    with ServerProcess(models) as server, Client(server.address, timeout=100) as client:
        yield client


def depths(word: str) -> list[int]:
    """Return how many brackets are open after each character."""
    depth, found = 0, []
    for character in word:
        depth += 1 if character == "(" else -1
        found.append(depth)
    return found


def ends(client: Client, word: str) -> list[float]:
    """Return how likely the network holds the line's end after each character of a word."""
    details = client.score(f"\n{word}\n", model="brackets", top_n=3).details[2:]  # after the word's first character
    found = []
    for detail in details:
        (end,) = [other.log_probability for other in detail.top if other.text == "\n"]
        found.append(math.exp(end))
    return found


def test_r12_the_training_holds_no_word_as_deep_or_long(corpus: Path):
    """What is asked for below was not there to be learnt by heart."""
    words = corpus.read_text().split()
    assert max(map(brackets.depth, words)) == brackets.DEEPEST == 10
    assert max(map(len, words)) == brackets.LONGEST == 40
    assert {depths(word)[-1] for word in words} == {0}


@pytest.mark.parametrize("number", range(1, 21))
def test_r12_what_was_opened_is_closed(client: Client, number: int):
    """After n brackets come exactly n that close them, to twice the depth that was trained on."""
    turn = client.generate(
        "\n" + "(" * number,
        model="brackets",
        temperature=0,
        banned_characters="(",
        stop_strings="\n",
        max_chars=100,
    )
    assert "".join(turn) == ")" * number
    assert turn.finished.finish_reason is FinishReason.STOP_STRING


@pytest.mark.parametrize("seed", range(5))
def test_r12_the_end_is_expected_where_nothing_is_open_and_nowhere_else(client: Client, seed: int):
    """In words of 60 to 120 brackets the network knows at every one of them whether the word is over."""
    chance = random.Random(seed)
    word = brackets.word(chance, chance.randint(30, 60))

    *within, last = ends(client, word)

    assert len(within) == len(word) - 1
    assert max(within) < 0.5 < last


def test_r12_nothing_is_closed_that_was_not_opened(client: Client):
    """Ten sampled words, drawn freely, match to their last bracket."""
    session = client.create_session("brackets", seed=1)
    text = "".join(session.generate("\n", max_chars=500))
    words = text.split("\n")[:-1]
    assert len(words) >= 10
    assert [word for word in words if depths(word)[-1:] != [0] or 0 in depths(word)[:-1]] == []
