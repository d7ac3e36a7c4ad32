"""The fake server's model, which says the alphabet, and its sessions."""

import asyncio
import math
from dataclasses import dataclass, field

from elman.v1 import generation_pb2, model_pb2, session_pb2

ALPHABET = "abcdefghijklmnopqrstuvwxyz"
VOCABULARY = "\n !:?" + ALPHABET + ALPHABET.upper()
LIMITS = model_pb2.Limits(max_prompt_chars=1000, max_chars=1000, max_stop_strings=4, max_stop_string_chars=16)
MOOD = {"bad": math.log(0.25), "good": math.log(0.75)}  # what its read-out tells of every character
LOG_PROBABILITY = -0.5  # of every character but the first


def drawn(position: int) -> str:
    """Return the character that the model draws at a position."""
    return ALPHABET[position % len(ALPHABET)]


def detailed(text: str, start: int) -> list[generation_pb2.CharacterDetail]:
    """Return what is told of each character of a text that begins at a position."""
    return [
        generation_pb2.CharacterDetail(text=c, log_probability=LOG_PROBABILITY if start + i else None)
        for i, c in enumerate(text)
    ]


@dataclass
class Memory:
    """A session and what runs on it."""

    info: session_pb2.Session
    text: str = ""
    turns: list[session_pb2.Turn] = field(default_factory=list)
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    rest: asyncio.Event = field(default_factory=asyncio.Event)

    def commit(self, fed: str, written: str, seed: int = 0) -> None:
        """Add a turn."""
        start, prompt_end = len(self.text), len(self.text) + len(fed)
        self.text += fed + written
        end = len(self.text)
        self.turns.append(session_pb2.Turn(start=start, prompt_end=prompt_end, end=end, seed=seed))
        self.info.position, self.info.turn_count = end, len(self.turns)
        self.info.etag = f"etag-{end}-{len(self.turns)}"
        self.info.update_time.GetCurrentTime()
