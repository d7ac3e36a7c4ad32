"""R9: an output at every step; examples/quotes.py from the module to the labels that the server tells."""

import json
from collections.abc import Iterator
from pathlib import Path

import click.testing
import pytest

from elman_client import Client, InvalidArgumentError
from elman_export.__main__ import main
from elman_export.artefacts.artefact import read_artefact
from examples.quotes import LABELS, tags
from tests.server_process import ServerProcess

EXAMPLES = Path(__file__).parents[2] / "examples"
TEXT = 'He said "no, not I" and left; "Stay!" cried she. "'

pytestmark = pytest.mark.timeout(300)  # training takes six seconds of a core that is not shared


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[ServerProcess]:
    """A server of the tagging model."""
    folder: Path = tmp_path_factory.mktemp("quotes")
    arguments = ["trace", "--module", "examples.quotes:build", "-o", str(folder / "quotes.onnx")]
    arguments += ["--vocab", str(EXAMPLES / "quotes.vocabulary.json")]
    arguments += ["--labels", str(EXAMPLES / "quotes.labels.json")]
    result = click.testing.CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert list(read_artefact(folder / "quotes.onnx").metadata.labels) == LABELS
    with ServerProcess(folder) as process:
        yield process


def test_every_character_has_its_label(server):
    """What is quoted is told from what is not, though the marks are alike and far away."""
    with Client(server.address, timeout=100) as client:
        told = client.score(TEXT, model="quotes").details

    likeliest = [max(detail.labels, key=lambda label: label.log_probability).label for detail in told]
    assert likeliest == tags(TEXT)


def test_a_session_remembers_that_a_quotation_is_open(server):
    """The memory is carried from text to text."""
    with Client(server.address, timeout=100) as client:
        session = client.create_session("quotes")
        session.append('She said: "')
        (detail,) = session.score("I").details

    assert max(detail.labels, key=lambda label: label.log_probability).label == "quoted"


def test_a_tagging_model_does_not_write(server):
    """Generate is refused with what to do instead."""
    with Client(server.address, timeout=100) as client:
        assert client.get_model("quotes").labels == tuple(LABELS)
        with pytest.raises(InvalidArgumentError, match="returns labels instead of characters; call Score"):
            list(client.generate("a", model="quotes"))


def test_the_files_beside_the_example_are_what_it_reads():
    """Vocabulary and labels are JSON arrays, with no character or label twice."""
    for name in ("quotes.vocabulary.json", "quotes.labels.json"):
        entries = json.loads((EXAMPLES / name).read_text())
        assert len(set(entries)) == len(entries)
