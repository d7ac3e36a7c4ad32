"""The fake server's model, which says the alphabet, and its sessions."""

import asyncio
import math
from dataclasses import dataclass, field

from elman.v1 import generation_pb2, model_pb2, session_pb2

ALPHABET = "abcdefghijklmnopqrstuvwxyz"
VOCABULARY = "\n !'-:?" + ALPHABET + ALPHABET.upper()
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
class SessionState:
    """A session and what runs on it."""

    info: session_pb2.Session
    text: str = ""
    turns: list[session_pb2.Turn] = field(default_factory=list)
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    rest: asyncio.Event = field(default_factory=asyncio.Event)

    running: str = ""  # the request id of the turn that runs
    asked: dict[str, generation_pb2.GenerateRequest] = field(default_factory=dict)

    def commit(
        self, fed: str, written: str, seed: int = 0, request: generation_pb2.GenerateRequest | None = None
    ) -> None:
        """Add a turn."""
        start, prompt_end = len(self.text), len(self.text) + len(fed)
        self.text += fed + written
        turn = session_pb2.Turn(start=start, prompt_end=prompt_end, end=len(self.text), seed=seed)
        if request is not None and request.request_id:
            turn.request_id = request.request_id
            self.asked[request.request_id] = request
        self.turns.append(turn)
        self._changed()

    def cut(self, position: int) -> None:
        """Forget what comes after a position."""
        self.text = self.text[:position]
        self.turns = [turn for turn in self.turns if turn.end <= position]
        self._changed()

    def shorten(self, position: int) -> None:
        """End the last turn at a position; at its start it was never there."""
        turn = self.turns[-1]
        self.text, turn.end = self.text[:position], position
        if turn.end == turn.start:
            self.turns.pop()
        self._changed()

    def _changed(self) -> None:
        self.info.position, self.info.turn_count = len(self.text), len(self.turns)
        self.info.etag = f"etag-{len(self.text)}-{len(self.turns)}"
        self.info.update_time.GetCurrentTime()
