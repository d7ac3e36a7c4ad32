"""R10: the state tracks meaning as it reads; examples/sentiment.py from the phrases to the server's read-out."""

import asyncio
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click.testing
import pytest

from elman_client import AsyncClient, CharacterDetail, Client
from elman_export.__main__ import main
from examples.sentiment import write
from tests.server_process import ServerProcess

RECIPE = Path(__file__).parents[2] / "examples" / "sentiment.toml"
TURNING = "The movie was terrible, no, terribly good!"

pytestmark = pytest.mark.timeout(600)  # training takes ten seconds of a core that is not shared


def run(*arguments: str | Path) -> str:
    """Run a command of the exporter in this process; return what it prints."""
    result = click.testing.CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[ServerProcess]:
    """A server of the network that learned to predict phrases, with the probe that was fitted to its states."""
    folder: Path = tmp_path_factory.mktemp("sentiment")
    write(folder)
    model = folder / "models" / "phrases.onnx"
    run("train", folder / "corpus.txt", "-o", folder / "run", "--recipe", RECIPE)
    run("trace", folder / "run", "-o", model)
    assert "read-out sentiment: negative, neutral, positive" in run(
        "probe", model, folder / "labelled.jsonl", "--name", "sentiment"
    )
    with ServerProcess(folder / "models") as process:
        yield process


def likeliest(detail: CharacterDetail) -> str:
    """Return the label with the highest probability."""
    return max(detail.labels, key=lambda label: label.log_probability).label


def test_a_phrase_moves_from_neutral_to_negative_to_positive(server):
    """Three phrases that begin alike, and one that turns: what is read off the state goes with them."""
    with Client(server.address, timeout=100) as client:
        (read_out,) = client.get_model("phrases").read_outs
        ends = {
            text: client.score(text, model="phrases", read_out="sentiment").details[-1]
            for text in ("The movie was", "The movie was terrible", "The movie was terribly good!")
        }
        turning = client.score(TURNING, model="phrases", read_out="sentiment").details

    assert read_out.accuracy > 0.85
    assert [likeliest(end) for end in ends.values()] == ["neutral", "negative", "positive"]
    stops = [TURNING.index(word) + len(word) - 1 for word in ("was", "terrible", "good!")]
    assert [likeliest(turning[stop]) for stop in stops] == ["neutral", "negative", "positive"]
    assert all(sum(math.exp(label.log_probability) for label in d.labels) == pytest.approx(1) for d in turning)


def test_the_asyncio_client_tells_the_same(server):
    """Both clients, with and without a session, give equal numbers."""

    async def ask() -> tuple[CharacterDetail, ...]:
        async with AsyncClient(server.address, timeout=100) as client:
            session = await client.create_session("phrases")
            return (await session.score(TURNING, read_out="sentiment")).details

    with Client(server.address, timeout=100) as client:
        assert asyncio.run(ask()) == client.score(TURNING, model="phrases", read_out="sentiment").details


def test_the_command_shows_it(server):
    """`elman score --read-out` prints a table in a pipe, and names the read-outs that there are."""
    command = [Path(sys.executable).with_name("elman"), "score", "-", "--target", server.address]
    done, refused = (
        subprocess.run(
            [*command, "--read-out", name], input="The movie was", capture_output=True, text=True, check=False
        )
        for name in ("sentiment", "mood")
    )

    assert done.stdout.splitlines()[0] == "character\tlabel\tnegative\tneutral\tpositive"
    assert done.stdout.splitlines()[-1].startswith("s\tneutral\t")
    assert (refused.returncode, "models/phrases/versions/1 has sentiment" in refused.stderr) == (1, True)
