"""The filter of ListSessions: `model = "models/x" AND labels.key = "value"`."""

from __future__ import annotations

import re
from typing import Final

from elman_server.domain.errors import InvalidFieldError
from elman_server.grpc.messages.names import model_name
from elman_server.sessions.session import Filter

_TERM: Final = re.compile(r'\s*(model|labels\.[a-z][a-z0-9_-]{0,62})\s*=\s*"((?:[^"\\]|\\["\\])*)"\s*')
_AND: Final = re.compile(r"AND\s")
_ESCAPE: Final = re.compile(r"\\(.)")
_MAX_CHARS: Final = 4096
_LABEL: Final = "labels."


def parse_filter(text: str) -> Filter:
    """Return what a filter asks for; blank asks for all.

    Raises:
        InvalidFieldError: the text is not of the form, or names something twice.
    """
    if len(text) > _MAX_CHARS:
        raise InvalidFieldError("filter", f"has {len(text)} characters; at most {_MAX_CHARS} are allowed")
    terms = _terms(text) if text.strip() else {}
    model = terms.pop("model", None)
    return Filter(
        model=None if model is None else model_name("filter", model),
        labels={key.removeprefix(_LABEL): value for key, value in terms.items()},
    )


def _terms(text: str) -> dict[str, str]:
    terms: dict[str, str] = {}
    position = 0
    while True:
        term = _TERM.match(text, position)
        if term is None:
            raise _misread(position)
        if term[1] in terms:
            raise InvalidFieldError("filter", f"names {term[1]} twice; give each term once")
        terms[term[1]] = _ESCAPE.sub(r"\1", term[2])
        if term.end() == len(text):
            return terms
        join = _AND.match(text, term.end())
        if join is None:
            raise _misread(term.end())
        position = join.end()


def _misread(position: int) -> InvalidFieldError:
    form = '`model = "models/x"` and `labels.key = "value"`, joined by AND'
    return InvalidFieldError("filter", f"cannot be read from character {position} on; write {form}")
