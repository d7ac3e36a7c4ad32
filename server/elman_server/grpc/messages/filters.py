"""The filter of ListSessions and DeleteSessions: `model = "models/x" AND state = "ACTIVE" AND labels.key = "value"`."""

from __future__ import annotations

import re
from typing import Final

from elman_server.domain.errors import InvalidFieldError
from elman_server.domain.owner import owner
from elman_server.grpc.messages.names import model_version
from elman_server.sessions.session import Filter, SessionStatus

_TERM: Final = re.compile(r'\s*(model|state|labels\.[a-z][a-z0-9_-]{0,62})\s*=\s*"((?:[^"\\]|\\["\\])*)"\s*')
_AND: Final = re.compile(r"AND\s")
_ESCAPE: Final = re.compile(r"\\(.)")
_MAX_CHARS: Final = 4096
_LABEL: Final = "labels."
EVERYTHING: Final = "*"


def parse_filter(text: str, *, is_required: bool = False) -> Filter:
    """Return what a filter keeps; blank and `*` keep all sessions.

    Raises:
        InvalidFieldError: the text is not of the form, names something twice, or is blank though `is_required`.
    """
    if is_required and not text.strip():
        raise InvalidFieldError("filter", f"is empty; write {EVERYTHING} for all sessions")
    if len(text) > _MAX_CHARS:
        raise InvalidFieldError("filter", f"has {len(text)} characters; at most {_MAX_CHARS} are allowed")
    terms = _terms(text) if text.strip() not in {"", EVERYTHING} else {}
    model, state = terms.pop("model", None), terms.pop("state", None)
    name, version = (None, None) if model is None else model_version("filter", model)
    return Filter(
        model=name,
        version=version,
        status=None if state is None else _status(state),
        labels={key.removeprefix(_LABEL): value for key, value in terms.items()},
        owner=owner.get(),
    )


def _status(state: str) -> SessionStatus:
    if state not in SessionStatus.__members__:
        raise InvalidFieldError(
            "filter", f"has the state {state[:80]!a}; use one of {', '.join(SessionStatus.__members__)}"
        )
    return SessionStatus[state]


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
    form = '`model = "models/x"`, `state = "ACTIVE"` and `labels.key = "value"`, joined by AND'
    return InvalidFieldError("filter", f"is not a filter from character {position} on; write {form}")
