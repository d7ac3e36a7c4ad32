"""What docs/web.md says, done."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

from elman_client import Client
from elman_web.__main__ import main
from elman_web.dialect.requests import ChatMessage
from elman_web.dialect.template import prompt
from tests.server_process import PATIENCE

PAGE = (Path(__file__).parents[2] / "docs/web.md").read_text()


def blocks(language: str) -> list[str]:
    """Return the blocks of code of a language."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_the_commands_work(web):
    """`elman-web` has the options that are given, and curl streams to the end."""
    start, *_, ask = blocks("bash")
    name, *options = shlex.split(start.splitlines()[1])
    assert name == "elman-web"
    main.make_context(name, options)
    command = (
        ask.replace("localhost:8080", web.url).replace("shakespeare", "lstm").replace("curl", "curl -s --noproxy '*'")
    )
    said = subprocess.check_output(["bash", "-c", command], text=True, timeout=PATIENCE)
    assert said.endswith("data: [DONE]\n\n")


def test_the_program_prints_a_text(web, server_process):
    """The program of the page gets the text that gRPC gives."""
    (program,) = blocks("python")
    program = program.replace("http://localhost:8080", web.url).replace("shakespeare", "lstm")
    command = [sys.executable, "-c", program]
    said = subprocess.check_output(command, text=True, timeout=PATIENCE, env={"NO_PROXY": "*"})
    with Client(server_process.address) as client:
        assert said == "".join(client.generate("ROMEO:", model="lstm", seed=7, max_chars=200)) + "\n"


def test_the_template_is_the_one_of_the_page():
    """The page shows what the network reads."""
    shown = PAGE.partition("ends at an empty line.")[2].split("```")[1].removeprefix("\n")
    messages = [
        ChatMessage(role="system", content="A room in the castle."),
        ChatMessage(role="user", content="Who is there?"),
    ]
    assert prompt(messages, continues=False) == shown
