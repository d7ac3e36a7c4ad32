"""The state of a recurrent network between two turns, and the character that it has yet to read."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import Final

NO_CHARACTER: Final = -1
DEFAULT: Final = "default"  # the initial state that every model has


@dataclass(frozen=True, slots=True)
class SessionState:
    """What a session is between two turns.

    The last character of the transcript is *pending*: it was sampled or read from a prompt, and the step that
    reads it runs together with what comes next. So a sampled character costs no second step, and a text that is read
    in pieces runs the same steps as in one.

    Attributes:
        tensors: the recurrent state after all characters but the pending one, a row of each state tensor as
            little-endian float32 bytes, in the model's order.
        pending: id of the last character of the transcript, or NO_CHARACTER at position 0.
    """

    tensors: tuple[bytes, ...]
    pending: int = NO_CHARACTER

    @property
    def num_bytes(self) -> int:
        """Size of the state in bytes."""
        return sum(len(tensor) for tensor in self.tensors)

    def digest(self) -> str:
        """Return the SHA-256 of the pending character and the state, 64 hex digits."""
        sha = hashlib.sha256(struct.pack("<q", self.pending))
        for tensor in self.tensors:
            sha.update(tensor)
        return sha.hexdigest()
