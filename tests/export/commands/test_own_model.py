"""README's own model, line by line in an empty folder."""

import json
import re
import shlex
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from elman_client import Client
from elman_export.__main__ import main
from tests.models import CHARACTERS
from tests.server_process import ServerProcess

README = (Path(__file__).parents[3] / "README.md").read_text()
SECTION = README.partition("## Your own model")[2].partition("\n## ")[0]
(COMMANDS,) = re.findall(r"```bash\n(.*?)```", SECTION, re.DOTALL)
(PROGRAM,) = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)
LINES = [
    line.partition("#")[0].split("elman_export ", 1)[1] for line in COMMANDS.splitlines() if "elman_export" in line
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a user has: texts, the module, its characters; no folder for runs or models."""
    text = f"{CHARACTERS}\nTo be, or not to be: that is the question.\n"
    (tmp_path / "my.txt").write_text(text * 100)
    (tmp_path / "juliet.txt").write_text("O Romeo, Romeo!\n")
    (tmp_path / "chars.txt").write_text(CHARACTERS)
    labels = (("good", "yes"), ("bad", "no"))
    examples = [{"text": f"It is {word * n}.", "label": label} for word, label in labels for n in range(1, 11)]
    (tmp_path / "labelled.jsonl").write_text("".join(json.dumps(example) + "\n" for example in examples))
    (tmp_path / "my_pkg").mkdir()
    (tmp_path / "my_pkg" / "my_file.py").write_text(PROGRAM)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


@pytest.mark.timeout(600)  # a training of a few hundred steps and two verifications
def test_every_command_of_the_own_model_works_as_written(folder: Path):
    """In the README's order, none of them changed, and one server serves all that they wrote."""
    for line in LINES:
        result = CliRunner().invoke(main, shlex.split(line))
        assert result.exit_code == 0, (line, result.output)
    with ServerProcess(folder / "models") as server, Client(server.address, timeout=60) as client:
        assert sorted(model.name for model in client.list_models()) == [
            "models/mine",
            "models/mine-int8",
            "models/module",
        ]
        session = client.create_session(model="mine", initial_state="juliet")
        assert "".join(session.generate("To be", max_chars=10))
        assert client.score("It is good.", model="mine", read_out="sentiment").details[-1].labels


def test_the_commands_are_those_of_the_readme():
    """The lines above are found, and the last command serves their folder."""
    assert [line.split()[0] for line in LINES] == [
        "train", "trace", "evaluate", "trace", "quantize", "inspect", "probe", "prime",
    ]  # fmt: skip
    assert COMMANDS.splitlines()[-1] == "elman-server --models models"
