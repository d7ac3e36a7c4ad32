"""The words that this project does not use where people read it, and what to write instead.

`python -m tests.words` lists every place that still has one; `python -m tests.words docs` those of one kind of place.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).parent.parent

# Pattern of a word or phrase, and what to write instead.
INSTEAD: Final = {
    r"tells?|told|telling": "report, return, send, show",
    r"hand(s|ed|ing)? over|handed (to|from)|over-?handed": "deliver, delivered",
    r"(go|goes|going|gone|went) on": "continue, resume",
    r"at rest": "idle",
    r"(has|have|had) not(?=[.,;:)]|$| (a|an|any|the|that|this|one)\b)": "lacks, does not have",
    r"draws?|drew|drawn": "sample, generate (a character); plot, write (a picture)",
    r"(take|takes|taken|took|taking) (a |one |no |the |its |their |the same )?(steps?|turns? again)": "run, rerun",
    r"forg(et|ets|ot|otten|etting)": "expire, delete, drop",
    r"whoever|whosoever|he who|who hears": "anyone who, the caller",
    r"so many|so long": "N characters, for that long",
    r"(is|are|was|were) gone": "is down, was removed, has stopped",
    r"(come|comes|came|coming) to (its|an|the|their|his) end": "finish, end",
    r"to be had": "available",
    r"in the midst": "during",
    r"anew": "again",
    r"mends?|mended|mending": "fix",
    r"knows? no|knows? nothing": "does not know, does not have",
    r"what is no|which is no|that is no|that are no": "is not a",
    r"ask whoever": "contact the operator",
    r"of old|hitherto|thereof|wherein|whence": "plain English",
    r"quantis(e|es|ed|ing|ation)": "quantize, quantized, quantization",
    r"source\.md": "docs/lesson.md",
}
_PATTERN: Final = re.compile(
    "|".join(rf"(?<![\w-])(?P<w{n}>{text.replace(' ', chr(92) + 's+')})(?![\w-])" for n, text in enumerate(INSTEAD)),
    re.IGNORECASE,
)
_NAMES: Final = re.compile(r"`[^`]*`|https?://\S+|\]\([^)]*\)")  # code, addresses, the targets of links

_PROGRAMS: Final = ("scripts/*.py", "examples/*.py", "benchmarks/**/*.py")

# Kinds of places, and the files that each is in.
PLACES: Final = {
    "docs": ("*.md", "docs/**/*.md", "examples/README.md"),
    "protos": ("proto/elman/v1/*.proto",),
    "make": ("Makefile",),
    "scripts": ("scripts/*.sh", "server/*.sh", "server/Dockerfile", "proto/*.sh", ".ci/run"),
    "settings": ("docker-compose.yml", "deploy/**/*.y*ml", "server/envoy/*.yaml", "pyproject.toml", ".importlinter"),
    "messages": ("*/elman_*/**/*.py", *_PROGRAMS),
    "docstrings": ("*/elman_*/**/*.py", *_PROGRAMS),
    "comments": ("*/elman_*/**/*.py", *_PROGRAMS),
}
_COMMENTS: Final = {
    "protos": "//",
    "make": "##",
    "scripts": "#",
    "settings": "#",
}  # kinds of which only the comments are read, and how these begin


class Finding(NamedTuple):
    """A word, where it is, and what to write instead."""

    path: str
    line: int
    word: str
    instead: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.word!r}; write: {self.instead}"


def findings_in(text: str, path: str = "", line: int = 1) -> Iterator[Finding]:
    """Find the words in a text that begins on a line of a file; code and addresses are left out."""
    readable = _NAMES.sub(lambda code: re.sub(r"[^\n]", "\0", code[0]), text.replace("```", "\0\0\0"))
    for match in _PATTERN.finditer(readable):
        instead = list(INSTEAD.values())[int(str(match.lastgroup)[1:])]
        yield Finding(path, line + text.count("\n", 0, match.start()), " ".join(match[0].split()), instead)


def findings(place: str) -> list[Finding]:
    """Return all findings of a kind of place, by file and line."""
    found: list[Finding] = []
    for pattern in PLACES[place]:
        for path in sorted(ROOT.glob(pattern)):
            name = str(path.relative_to(ROOT))
            for line, text in _texts(place, path):
                found.extend(findings_in(text, name, line))
    return found


def _texts(place: str, path: Path) -> Iterator[tuple[int, str]]:
    """Yield what people read of a file, with the line on which it begins."""
    text = path.read_text(encoding="utf-8")
    if place in {"messages", "docstrings"}:
        yield from _strings(ast.parse(text), place)
    elif place == "comments":
        tokens = tokenize.generate_tokens(io.StringIO(text).readline)
        yield from ((token.start[0], token.string) for token in tokens if token.type == tokenize.COMMENT)
    elif place in _COMMENTS:
        yield 1, "\n".join(line.partition(_COMMENTS[place])[2].strip() for line in text.splitlines())
    else:
        yield 1, text


def _strings(tree: ast.Module, place: str) -> Iterator[tuple[int, str]]:
    """Yield the strings of a program or, for `docstrings`, its docstrings; the help text of a command is a message."""
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    docstrings -= {id(node.body[0].value) for node in ast.walk(tree) if _is_command(node)}  # type: ignore[attr-defined]
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = node.value.replace("_", " ") if node.value.isidentifier() else node.value  # an event of the log
            if " " in text and (id(node) in docstrings) == (place == "docstrings"):
                yield node.lineno, text


def _is_command(node: ast.AST) -> bool:
    """Whether a node is a function whose docstring is the help text of a command."""
    return (
        isinstance(node, ast.FunctionDef)
        and isinstance(node.body[0], ast.Expr)
        and any(re.search(r"\b(command|group)\b", ast.unparse(each)) for each in node.decorator_list)
    )


if __name__ == "__main__":
    for kind in sys.argv[1:] or PLACES:
        for each in findings(kind):
            sys.stdout.write(f"{kind}: {each}\n")
