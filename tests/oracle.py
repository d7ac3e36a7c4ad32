"""What a session must be, worked out without a server.

An artefact is stepped alone, character by character, and the rules of sampling are written out from their documents, a
row at a time, in plain Python. Only the graph is shared with the server, and onnxruntime; there is no batch, no prefill
and no engine.
"""

import hashlib
import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from elman_server.models.artefact import read_artefact

_BEGINNING: Final = -1
_MASK: Final = 2**64 - 1
# Philox 4x64-10: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC11, table 2 and section 3
_MULTIPLIERS: Final = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
_BUMPS: Final = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)


@dataclass(frozen=True)
class Draws:
    """How characters are drawn; fields and defaults are those of `elman.v1.Sampling`."""

    seed: int
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0
    repetition_window: int = 64
    banned_characters: str = ""


@dataclass(eq=False, slots=True)
class Point:
    """A position in a text: the last character before it, and the state that has not read that one.

    Texts that begin alike share their points, so that nothing is worked out twice.

    Attributes:
        char: its id; -1 at the beginning.
        before: the point before that character.
        states: [1, ...] float32 each, after all characters but the last.
    """

    oracle: "Oracle"
    char: int
    before: "Point | None"
    position: int
    states: tuple[NDArray[np.float32], ...]
    _after: tuple[NDArray[np.float32], tuple[NDArray[np.float32], ...]] | None = None
    _following: dict[int, "Point"] = field(default_factory=dict)

    def digest(self) -> str:
        """Return the state's digest as `elman.v1.Session.state_digest` defines it."""
        return hashlib.sha256(struct.pack("<q", self.char) + b"".join(s.tobytes() for s in self.states)).hexdigest()

    def text(self) -> str:
        """Return the text up to here."""
        return "".join(self.oracle.characters[char] for char in self._chars_back())[::-1]

    def at(self, position: int) -> "Point":
        """Return the point of a position at or before this one."""
        point = self
        while point.position > position:
            assert point.before is not None
            point = point.before
        return point

    def read(self, text: str) -> "Point":
        """Return the point after some text."""
        point = self
        for character in text:
            point = point.next(self.oracle.ids[character])
        return point

    def next(self, char: int) -> "Point":
        """Return the point after a character."""
        if char not in self._following:
            states = self.states if self.before is None else self._stepped()[1]
            self._following[char] = Point(self.oracle, char, self, self.position + 1, states)
        return self._following[char]

    def sample(self, draws: Draws) -> Iterator["Point"]:
        """Yield the points after each drawn character, without end."""
        point = self
        while True:
            logits = point._stepped()[0][0]
            recent = list(islice(point._chars_back(), draws.repetition_window if draws.repetition_penalty != 1 else 0))
            point = point.next(draw(logits, draws, recent, point.position, self.oracle.characters))
            yield point

    def _stepped(self) -> tuple[NDArray[np.float32], tuple[NDArray[np.float32], ...]]:
        if self._after is None:
            self._after = self.oracle.step(self.char, self.states)
        return self._after

    def _chars_back(self) -> Iterator[int]:
        point = self
        while point.before is not None:
            yield point.char
            point = point.before


class Oracle:
    """A model's texts.

    Attributes:
        characters: in id order.
        beginning: of every text.
    """

    def __init__(self, path: Path) -> None:
        artefact = read_artefact(path)
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = ort.InferenceSession(artefact.step, options, providers=["CPUExecutionProvider"])
        characters = artefact.vocabulary.characters
        assert characters is not None
        self.characters: Sequence[str] = characters
        self.ids = {character: index for index, character in enumerate(characters)}
        self._names = [value.name for value in self._session.get_inputs()]
        shapes = [value.shape[1:] for value in self._session.get_inputs()[1:]]
        zeros = tuple(np.zeros((1, *shape), np.float32) for shape in shapes)
        self.beginning = Point(self, _BEGINNING, None, 0, zeros)

    @classmethod
    def of(cls, folder: Path, names: Sequence[str]) -> dict[str, Self]:
        """Return the oracles of some models of a folder."""
        return {name: cls(folder / f"{name}.onnx") for name in names}

    def step(self, char: int, states: Sequence[Any]) -> tuple[Any, tuple[Any, ...]]:
        """Return the logits [1, V] after a character, and the states."""
        feeds = dict(zip(self._names, [np.array([char]), *states], strict=True))
        logits, *after = self._session.run(None, feeds)
        return logits, tuple(after)


def draw(
    row: NDArray[np.float32], draws: Draws, recent: Sequence[int], position: int, characters: Sequence[str]
) -> int:
    """Draw the character of a position from its logits [V], as the comments of `elman.v1.Sampling` say."""
    logits = row.copy()
    for character in draws.banned_characters:
        logits[characters.index(character)] = -np.inf
    for seen in set(recent):
        weak = logits[seen] / draws.repetition_penalty if logits[seen] > 0 else logits[seen] * draws.repetition_penalty
        logits[seen] = np.float32(weak)
    values: list[float] = logits.tolist()
    order = sorted(range(len(values)), key=lambda index: (-values[index], index))
    top = values[order[0]]
    if draws.temperature == 0:
        return order[0]
    weights = [math.exp((value - top) / draws.temperature) for value in values]
    if draws.top_k is None and draws.top_p is None and draws.min_p is None:
        order = list(range(len(values)))
    if draws.top_k is not None:
        order = order[: draws.top_k]
    if draws.top_p is not None:
        order = _most(order, weights, draws.top_p)
    if draws.min_p is not None:
        order = [index for index in order if weights[index] >= draws.min_p]
    goal = uniform(draws.seed, position) * math.fsum(weights[index] for index in order)
    mass = 0.0
    for index in order:
        mass += weights[index]
        if mass > goal:
            return index
    return order[-1]  # the sum of fsum may lie a bit above


def _most(order: Sequence[int], weights: Sequence[float], share: float) -> list[int]:
    """Return the fewest likeliest that have so much of the mass of all."""
    goal, mass, kept = share * math.fsum(weights[index] for index in order), 0.0, 0
    while mass < goal and kept < len(order):
        mass += weights[order[kept]]
        kept += 1
    return list(order[:kept])


def uniform(seed: int, position: int) -> float:
    """Return the draw of a position: 53 bits of a word of Philox 4x64-10."""
    words, keys = [position // 4 + 1, 0, 0, 0], [seed, 0]
    for _ in range(10):
        products = [multiplier * words[2 * at] for at, multiplier in enumerate(_MULTIPLIERS)]
        words = [
            (products[1] >> 64) ^ words[1] ^ keys[0],
            products[1] & _MASK,
            (products[0] >> 64) ^ words[3] ^ keys[1],
            products[0] & _MASK,
        ]
        keys = [(key + bump) & _MASK for key, bump in zip(keys, _BUMPS, strict=True)]
    return (words[position % 4] >> 11) * 2.0**-53
