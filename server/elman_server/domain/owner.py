"""Owners: whose a session is. Two owners may use one session id; they never see each other's.

Below the transport a session is known by its *key*, `~OWNER/ID`, which also names it in the store. So a session of
another owner is not found, as one that never was. Without authentication the owner is empty, and the key is the id.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final
from urllib.parse import quote

ANONYMOUS: Final = ""
MARK: Final = "~"  # no id begins with it, and all ids come before it in the order of names

# Whose call this is; the transport sets it, and the tasks of the call inherit it.
owner: Final = ContextVar("owner", default=ANONYMOUS)


def key_of(name: str, session_id: str) -> str:
    """Return the key of an owner's session."""
    return f"{prefix_of(name)}{session_id}"


def prefix_of(name: str) -> str:
    """Return what the keys of an owner begin with; no other owner's do, but that all of ANONYMOUS do."""
    return f"{MARK}{quote(name, safe='')}/" if name else ""


def id_of(key: str) -> str:
    """Return the id in a session's key."""
    return key.rpartition("/")[2]


def is_of(name: str, key: str) -> bool:
    """Whether a key is one of an owner's."""
    return key.startswith(prefix_of(name)) if name else not key.startswith(MARK)
