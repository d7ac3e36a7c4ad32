"""Lifetimes: when sessions expire."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from elman_server.domain.errors import InvalidFieldError

if TYPE_CHECKING:
    from elman_server.sessions.records import Head
    from elman_server.sessions.session import Expiration


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long sessions live, in seconds: idle, and at most."""

    idle: float
    absolute: float

    def expiring(self, prefix: str, head: Head, expiration: Expiration, now: float) -> Head:
        """Return a head with an expiration of its own, or the default; `prefix` stands before the field in errors."""
        if expiration.expire_time is not None:
            if expiration.expire_time <= now:
                raise InvalidFieldError(f"{prefix}expire_time", "is in the past; choose a later time")
            return msgspec.structs.replace(head, ttl=None, expires=min(expiration.expire_time, head.last))
        ttl = self.idle if expiration.ttl is None else expiration.ttl
        if ttl <= 0:
            raise InvalidFieldError(f"{prefix}ttl", f"is {ttl:g} s; it must be positive")
        return msgspec.structs.replace(head, ttl=ttl, expires=min(now + ttl, head.last))


def renewed(head: Head, now: float) -> Head:
    """Return a head whose idle time starts again."""
    expires = head.expires if head.ttl is None else min(now + head.ttl, head.last)
    return msgspec.structs.replace(head, updated=now, expires=expires)
