"""Plain words where people read them; see tests/words.py for the list."""

import re
from pathlib import Path

import pytest

from tests import words

DOCUMENTS = ["README.md", *sorted(str(path.relative_to(words.ROOT)) for path in (words.ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("place", words.PLACES)
def test_none_of_the_words_is_used(place: str) -> None:
    """Documents, help texts, messages and comments use none of the words of the list."""
    found = words.findings(place)
    assert not found, "\n".join(map(str, found))


@pytest.mark.parametrize(
    ("sentence", "word"),
    [
        ("The server tells the caller.", "tells"),
        ("Text that was handed over is kept.", "handed over"),
        ("- The turn is handed\n  over at once.", "handed over"),
        ("It goes on with the next server.", "goes on"),
        ("The clients have gone on.", "gone on"),
        ("A session at rest is small.", "at rest"),
        ("The model has not that character.", "has not"),
        ("A character that the model has not.", "has not"),
        ("It draws a character.", "draws"),
        ("Whoever calls it waits.", "Whoever"),
        ("He who asks twice waits.", "He who"),
        ("After so many characters it ends.", "so many"),
        ("The server is gone.", "is gone"),
        ("A session is forgotten after an hour.", "forgotten"),
        ("The engine takes a step.", "takes a step"),
        ("The turn comes to its end.", "comes to its end"),
        ("No detail is to be had.", "to be had"),
        ("The quantised model", "quantised"),
    ],
)
def test_a_planted_sentence_is_found(sentence: str, word: str) -> None:
    """Each kind of word is found on its line, with what to write instead."""
    (found,) = words.findings_in(f"First line.\n\n{sentence}", "some.md")
    assert (found.path, found.line, found.word) == ("some.md", 3, word)
    assert found.instead


@pytest.mark.parametrize(
    "sentence",
    [
        "It has not been read.",
        "The session has not changed.",
        "Run `elman tell` or `draws`.",
        "[a link](https://example.org/tell/draw)",
        "As many as there are.",
        "The rest is intolerable.",
        "One drawing of the house.",
    ],
)
def test_other_words_are_left_alone(sentence: str) -> None:
    """Participles, code, addresses and longer words are not findings."""
    assert not list(words.findings_in(sentence))


def test_every_kind_of_place_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages, events of the log, help texts, docstrings, comments of protos and of the Makefile are all looked at."""
    sources = {
        "server/elman_server/a.py": '"""It draws."""\nlog.info("turn_told")  # drawn\nraise E(f"{x} is told")\n',
        "client/elman_client/cli/b.py": '@click.command()\ndef f() -> None:\n    """Draw it."""\n',
        "proto/elman/v1/c.proto": "// Chunk is handed\n// over.\nmessage Drawn {}\n",
        "Makefile": "a: ## tell it\n\ttell it\n",
        "docs/deep/d.md": "\n```bash\nx  # it goes on\n```\n",
        "SECURITY.md": "It is told.\n",
        "server/healthcheck.sh": "tell  # it\n# draws\n",
        "deploy/a/b.yml": "drawn: 1 # told\n",
        "scripts/e.py": "print('It is drawn.')\n",
    }
    for name, text in sources.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(words, "ROOT", tmp_path)
    found = {place: [(each.line, each.word) for each in words.findings(place)] for place in words.PLACES}
    assert found == {
        "docs": [(1, "told"), (3, "goes on")],
        "protos": [(1, "handed over")],
        "make": [(1, "tell")],
        "scripts": [(2, "draws")],
        "settings": [(1, "told")],
        "messages": [(3, "Draw"), (2, "told"), (3, "told"), (1, "drawn")],
        "docstrings": [(1, "draws")],
        "comments": [(2, "drawn")],
    }


@pytest.mark.parametrize("name", DOCUMENTS)
def test_bit_for_bit_has_its_condition(name: str) -> None:
    """Equal bits are promised for equal arithmetic only: a paragraph that promises them names the fingerprint."""
    items = re.split(r"\n\n|\n(?=- |\d+\. )", (words.ROOT / name).read_text())
    assert [item for item in items if re.search(r"bit\s+for\s+bit", item) and "fingerprint" not in item] == []


def test_requirements_of_ours_are_not_numbered_for_others() -> None:
    """R1 to R13 are rows of the lesson; no other document of users names them."""
    found = [name for name in DOCUMENTS if re.search(r"\bR\d{1,2}\b", (words.ROOT / name).read_text())]
    assert found == ["docs/lesson.md"]
