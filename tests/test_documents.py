"""What the documents say of the sources: places, modules, commands, links, pictures."""

import contextlib
import pkgutil
import re
import shlex
from itertools import chain
from pathlib import Path
from typing import Final

import click
import pytest

import elman_client.cli
import elman_export.__main__
import elman_server.__main__
import elman_web.__main__
from benchmarks import baseline
from elman_server.process.settings import Settings
from scripts import chart

ROOT: Final = Path(__file__).parent.parent
OURS: Final = "https://github.com/elman-server/elman/"
RAW: Final = "https://raw.githubusercontent.com/elman-server/elman/main/"
DOCUMENTS: Final = [
    *sorted(ROOT.glob("*.md")),
    ROOT / "examples" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
# From where a document may name a path.
BASES: Final = ("", "server", "server/elman_server", "client", "export", "docs")
COMMANDS: Final[dict[str, click.Command]] = {
    "elman": elman_client.cli.cli,
    "elman-export": elman_export.__main__.main,
    "elman-server": elman_server.__main__.main,
    "elman-web": elman_web.__main__.main,
}
SOURCES: Final = ("proto/elman/v1/*.proto", "server/elman_server/**/*.py", "client/elman_client/**/*.py")


def name_of(path: Path) -> str:
    """Return a path as it is seen from the root."""
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_link_leads_somewhere(document: Path) -> None:
    """Files that a document links to exist, whether by a relative link or by the address of this project."""
    links = re.findall(r"\]\(([^)#\s]+)", document.read_text())
    local = [link for link in links if not link.startswith(("http:", "https:"))]
    assert [link for link in local if not (document.parent / link).exists()] == []
    here = [re.sub(rf"^({OURS}(blob|tree)/main/|{RAW})", "", link) for link in links if link.startswith((OURS, RAW))]
    assert [link for link in here if not (ROOT / link).exists()] == []


def test_every_link_of_the_readme_works_on_pypi() -> None:
    """PyPI shows the README alone: all of its links and pictures are absolute."""
    links = re.findall(r"\]\(([^)]+)\)", (ROOT / "README.md").read_text())
    assert [link for link in links if not link.startswith(("https://", "#"))] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_path_exists(document: Path) -> None:
    """A file or folder that a document names in its text is there."""
    paths = re.findall(r"`([\w.-]+/[\w./-]*(?:\.(?:py|proto|toml|yaml|md|json)|/))`", document.read_text())
    known = [path for path in paths if not path.startswith(("runs/", "build/", "my_pkg/"))]
    assert [path for path in known if not any((ROOT / base / path).exists() for base in BASES)] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_module_exists(document: Path) -> None:
    """A module or name of our packages that a document gives in full can be imported."""
    names = re.findall(r"`(elman_(?:server|client|export)\.[\w.]*\w)[`(:]", document.read_text())
    assert [name for name in names if not _is_importable(name)] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_command_is_one(document: Path) -> None:
    """Our commands that a document names have the subcommands and options that it gives them."""
    text = document.read_text()
    blocks = re.findall(r"```(?:bash|sh|console)\n(.*?)```", text, re.DOTALL)
    lines = [line for block in blocks for line in _lines(block)]
    for command in [*lines, *re.findall(r"`([^`\n]+)`", text)]:
        _check_command(command)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_example_of_a_help_text_is_one(name: str) -> None:
    """So do the examples of the help texts. No line that describes a command is cut off."""
    texts = _help_texts(COMMANDS[name], name)
    examples = [line for text in texts for line in _lines(text)]
    assert [line for line in examples if re.search(r"[a-z,]\.\.\.$", line)] == []
    assert [_check_command(line) for line in examples].count(True) >= 1


def test_the_life_of_a_request_has_eight_steps() -> None:
    """docs/architecture.md counts them, has eleven terms, and each step names its files."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    steps = re.findall(r"^\d\. \*\*.*?(?=^\d\. \*\*|\n\n)", page, re.MULTILINE | re.DOTALL)
    assert len(steps) == 8
    assert [step for step in steps if ".py`" not in step] == []
    assert len(re.findall(r"^\| \*\*", page, re.MULTILINE)) == 11


def test_the_example_of_contributing_names_every_place() -> None:
    """A new sampling option goes where `min_p` is: the sources that have that word are those that the example names."""
    section = (ROOT / "CONTRIBUTING.md").read_text().partition("## An example")[2].partition("\n## ")[0]
    named = {path for path in re.findall(r"`([\w/]+/[\w.]+)`", section) if not path.startswith("tests/")}
    files = chain.from_iterable(ROOT.glob(pattern) for pattern in SOURCES)
    assert named == {name_of(path) for path in files if re.search(r"(?<!\w)min[_-]p\b", path.read_text())}


@pytest.mark.parametrize("store", ["memory:", "sqlite:PATH", "redis://"])
def test_sessions_last_as_long_as_the_page_says(store: str) -> None:
    """docs/sessions.md has the default lifetimes of each kind of store."""
    seconds = {"hour": 3600, "day": 86400}
    (row,) = re.findall(rf"^\| `{store}.*$", (ROOT / "docs" / "sessions.md").read_text(), re.MULTILINE)
    idle, oldest = [int(number) * seconds[unit] for number, unit in re.findall(r"(\d+) (hour|day)", row)]
    host = "127.0.0.1" if store == "redis://" else ""
    assert Settings(store=f"{store}{host}").lifetimes == (idle, oldest)


def test_the_chart_is_of_the_baseline() -> None:
    """docs/naive.svg is what `make chart` would draw now."""
    assert (ROOT / "docs" / "naive.svg").read_text() == chart.chart(chart.pairs())


def test_the_figures_of_the_readme_are_of_the_baseline() -> None:
    """The numbers of the README's bullets and limits are those of the committed baseline."""
    readme = (ROOT / "README.md").read_text()
    figures = baseline.read()

    def value(name: str) -> float:
        return figures[name].value

    expected = [
        f"{round(value('streaming c-int8 64'), -2):,.0f} characters a second",
        f"{value('streaming c-int8 64 / bare loop'):.2f} of what the bare",
        f"{value('memory of a new session') / 1000:.1f} KB of memory",
        f"{value('memory of the front for a stream'):.0f} KB each",
        f"{value('memory of gRPC alone for a stream'):.0f} KB are gRPC's own",
        f"{value('first character idle, p50'):.1f} ms",
    ]
    assert [text for text in expected if text not in " ".join(readme.split())] == []


def _is_importable(name: str) -> bool:
    try:
        pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        return False
    return True


def _lines(text: str) -> list[str]:
    """Return the lines of a block; one that ends with a backslash continues."""
    return text.replace("\\\n", " ").splitlines()


def _check_command(line: str) -> bool:
    """Check a command line of ours; whether it is one, after variables, a prompt or a pipe."""
    before, name = r"^|[|] |\$ |^[A-Z_]+=\S+ ", r"elman(?:-\w+)?|python -m elman_\w+"
    match = re.search(rf"(?:{before})((?:{name}) [^|]*)$", line.partition("  #")[0].strip())
    if match is None:
        return False
    name, *words = shlex.split(re.sub(r"\$\(.*?\)", "x", re.sub(r"python -m elman_", "elman-", match[1])))
    if name not in COMMANDS:
        return False
    command = COMMANDS[name]
    while True:
        context = click.Context(command)
        with contextlib.suppress(click.BadOptionUsage):  # a document may name an option without its value
            _, words, _ = command.make_parser(context).parse_args(words)  # raises for an option that is not one
        if not isinstance(command, click.Group) or not words:
            return True
        found = command.get_command(context, words.pop(0))
        assert found is not None, line
        command = found


def _help_texts(command: click.Command, name: str) -> list[str]:
    """Return the help texts of a command and of its subcommands."""
    context = click.Context(command, info_name=name)
    texts = [command.get_help(context)]
    if isinstance(command, click.Group):
        for each in command.list_commands(context):
            found = command.get_command(context, each)
            assert found is not None
            texts += _help_texts(found, f"{name} {each}")
    return texts
