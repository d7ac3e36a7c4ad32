"""Resource names, parsed strictly: a name of another form is an error that names the field."""

from __future__ import annotations

import re
from typing import Final

from elman_server.domain.errors import InvalidFieldError
from elman_server.domain.owner import key_of, owner
from elman_server.process.observe.call import this_call

_MODEL: Final = r"models/(?P<model>[a-z0-9][a-z0-9-]{0,62})"
_VERSION: Final = r"/versions/(?P<version>[a-z0-9][a-z0-9.-]{0,62})"
_SESSION_NAME: Final = re.compile(r"sessions/(?P<session>[a-z0-9-]{4,63})")
_VERSION_NAME: Final = re.compile(f"{_MODEL}(?:{_VERSION})?")
_MAX_SHOWN: Final = 80


def session_key(field: str, name: str) -> str:
    """Return the key of the caller's session `sessions/{session}`; raises InvalidFieldError."""
    found = _match(_SESSION_NAME, field, name, "`sessions/` and 4 to 63 of a-z, 0-9 and -")["session"]
    this_call().session = found
    return key_of(owner.get(), found)


def model_version(field: str, name: str) -> tuple[str, str | None]:
    """Return name and version, if any, in `models/{model}[/versions/{version}]`; raises InvalidFieldError."""
    match = _match(_VERSION_NAME, field, name, "`models/{model}` or `models/{model}/versions/{version}`")
    this_call().model = match["model"]
    return match["model"], match["version"]


def _match(pattern: re.Pattern[str], field: str, name: str, form: str) -> re.Match[str]:
    match = pattern.fullmatch(name)
    if match is None:
        shown = ascii(name[:_MAX_SHOWN]) + ("…" if len(name) > _MAX_SHOWN else "")
        raise InvalidFieldError(field, f"is {shown}; write {form}" if name else f"is empty; write {form}")
    return match
