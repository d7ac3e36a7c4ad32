"""Page tokens: where a list continues, opaque to the caller."""

from __future__ import annotations

import base64
import hashlib
from typing import Final

from elman_server.domain.errors import InvalidFieldError, ValueRangeError

DEFAULT_PAGE: Final = 100
MAX_PAGE: Final = 1000
_CHECK_BYTES: Final = 8


def page_limit(page_size: int) -> int:
    """Return how many entries a page of a list has at most; raises InvalidFieldError for a negative number."""
    if page_size < 0:
        raise ValueRangeError("page_size", page_size, "0", "inf", "0 or more")
    return min(page_size or DEFAULT_PAGE, MAX_PAGE)


class PageToken:
    """Names the last session shown, bound to the list's filter; holds nothing that the caller may not know."""

    @staticmethod
    def encode(after: str, scope: str) -> str:
        """Return the token for the page after a name."""
        return base64.urlsafe_b64encode(_check(after, scope) + after.encode()).decode()

    @staticmethod
    def decode(token: str, scope: str) -> str:
        """Return the name; raises InvalidFieldError for a token that `encode` did not make for this filter."""
        if not token:
            return ""
        try:
            data = base64.b64decode(token.encode(), b"-_", validate=True)
            after = data[_CHECK_BYTES:].decode()
        except ValueError:  # neither base64 nor UTF-8
            after, data = "", b""
        if data[:_CHECK_BYTES] != _check(after, scope):
            raise InvalidFieldError("page_token", "was not made for this list; begin with an empty one")
        return after


def _check(after: str, scope: str) -> bytes:
    return hashlib.sha256(f"elman page token 1\0{scope}\0{after}".encode()).digest()[:_CHECK_BYTES]
