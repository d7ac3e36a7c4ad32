"""The states of an artefact after text."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from elman_export.artefacts.runtime import Array, Runtime
from elman_format.metadata import InitialState

MAX_ROWS = 64
CHUNK_CHARACTERS = 64
_PAIR = 2  # equal rows: some graphs round a single row differently, and the server never runs a single row of those

Ids = NDArray[np.int64]


def state_after(runtime: Runtime, ids: Ids, advance: Callable[[int], object] = lambda _: None) -> InitialState:
    """The state after a whole text, equal bit for bit to the server's on the same kind of processor.

    Args:
        runtime: The artefact; it starts from its own initial state.
        ids: [T] of the text.
        advance: Called with the number of characters read since the last call.

    Returns:
        One row of each state, flat, little-endian float32.
    """
    state = runtime.initial_state(_PAIR)
    for start in range(0, len(ids), CHUNK_CHARACTERS):
        chunk = np.repeat(ids[start : start + CHUNK_CHARACTERS, None], _PAIR, axis=1)  # [T, 2]
        if runtime.can_read:
            _, state = runtime.read(chunk, state)
        else:
            for char in chunk:
                _, state = runtime.step(char, state)
        advance(len(chunk))
    return tuple(part[0].astype("<f4").tobytes() for part in state)


def states_at(
    runtime: Runtime, texts: Sequence[tuple[Ids, Sequence[int]]]
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """The states after chosen characters of many texts, read in parallel, each from the initial state.

    Args:
        runtime: The artefact.
        texts: The ids of each and the ascending indices of the characters after which the state is wanted.

    Yields:
        The index of a text, and its states, [wanted, S]: all states of the graph flat, joined in their order.
    """
    by_length = sorted(range(len(texts)), key=lambda index: len(texts[index][0]))
    for start in range(0, len(texts), MAX_ROWS):
        rows = by_length[start : start + MAX_ROWS]
        yield from zip(rows, _read_together(runtime, [texts[row] for row in rows]), strict=True)


def _read_together(runtime: Runtime, texts: Sequence[tuple[Ids, Sequence[int]]]) -> Iterator[NDArray[np.float32]]:
    length = max(len(ids) for ids, _ in texts)
    chars = np.zeros((length, len(texts)), np.int64)  # after the end of a text its row reads padding, which is ignored
    for row, (ids, _) in enumerate(texts):
        chars[: len(ids), row] = ids
    kept: list[list[NDArray[np.float32]]] = [[] for _ in texts]
    wanted = [frozenset(positions) for _, positions in texts]
    state = runtime.initial_state(len(texts))
    for position, char in enumerate(chars):
        _, state = runtime.step(char, state)
        flat = flatten(state)
        for row, positions in enumerate(wanted):
            if position in positions:
                kept[row].append(flat[row].copy())
    return map(np.stack, kept)


def flatten(state: Sequence[Array]) -> NDArray[np.float32]:
    """States [B, ...] each as [B, S]."""
    return np.concatenate([part.reshape(len(part), -1) for part in state], axis=1, dtype=np.float32)
