"""From a float32 artefact to one with int8 products; a text calibrates the range of each layer's h."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import numpy_helper

from elman_export.artefacts.artefact import Artefact
from elman_export.artefacts.runtime import Array, Runtime
from elman_export.errors import ArtefactError
from elman_export.exporting.cells import GATES
from elman_export.exporting.quantized_cells import QuantizedGraphs
from elman_format import self_check
from elman_format.metadata import QUANTIZATION, STATES, versions
from elman_format.self_check import SETTINGS

SCHEME = "int8-portable"
NUM_STEPS = 127  # of h_q on each side of zero
NUM_STREAMS = 64

Advance = Callable[[int], object]


@dataclass(frozen=True, slots=True)
class Calibration:
    """The range of a network's states on a text.

    Attributes:
        largest: The largest |h| of each layer.
        corpus_sha256: Of the text's whole file.
        num_symbols: The number of symbols read.
    """

    largest: tuple[float, ...]
    corpus_sha256: str
    num_symbols: int


def require_quantizable(source: Artefact) -> None:
    """Return if the artefact can be quantized.

    Raises:
        ArtefactError: The cell is unknown, there is no prefill graph, or it is quantized already.
    """
    metadata = source.metadata
    if metadata.cell not in STATES:
        raise ArtefactError(
            f"The cell of {metadata.name} is {metadata.cell!r}, a traced module: only "
            f"{', '.join(STATES)} can be quantized. Serve it as it is."
        )
    if metadata.is_quantized:
        raise ArtefactError(f"{metadata.name} is int8 already: give the float32 artefact that it was made from.")
    if source.prefill is None:
        raise ArtefactError(f"{metadata.name} lacks a prefill graph: trace its checkpoint again, then quantize.")
    if not all(f"layer_0.{gate}.table" in _initializers(source) for gate in GATES[metadata.cell]):
        raise ArtefactError(f"{metadata.name} was not traced from a checkpoint by this exporter: trace it again.")


def calibrate(
    source: Artefact, ids: NDArray[np.int64], corpus_sha256: str, advance: Advance = lambda _: None
) -> Calibration:
    """Read a text with a float32 artefact, 64 rows in parallel.

    Args:
        source: What `require_quantizable` accepts.
        ids: ``[N]``, at least 64 symbols of the usual kind.
        corpus_sha256: Of the whole file that they are from.
        advance: Called with the number of symbols read since the last call.

    Raises:
        ArtefactError: A state is not finite.
    """
    runtime = Runtime(source)
    kinds = len(STATES[source.metadata.cell])
    state = runtime.initial_state(NUM_STREAMS)
    largest = _largest(state[::kinds])
    length = len(ids) // NUM_STREAMS
    for char in ids[: NUM_STREAMS * length].reshape(NUM_STREAMS, length).T:
        _, state = runtime.step(np.ascontiguousarray(char), state)
        largest = np.maximum(largest, _largest(state[::kinds]))
        advance(NUM_STREAMS)
    if not np.isfinite(largest).all():
        raise ArtefactError(f"The states of {source.metadata.name} are not finite on this text: train it again.")
    return Calibration(tuple(largest.tolist()), corpus_sha256, len(ids))


def build_quantized(
    source: Artefact, calibration: Calibration, *, clip: float = 1.0, name: str, version: str
) -> Artefact:
    """The int8 artefact of a float32 one, without evaluation records: its loss differs from its source's.

    Args:
        source: What `require_quantizable` accepts.
        calibration: Of the same source.
        clip: The part of each largest |h| that is kept, above 0 and at most 1; |h| beyond it is clipped.
        name: The artefact's.
        version: The artefact's.
    """
    # The scale of a layer that is always 0 is arbitrary.
    scales = [float(np.float32(clip * (largest or 1.0) / NUM_STEPS)) for largest in calibration.largest]
    graphs = QuantizedGraphs(source.metadata.cell, _initializers(source), scales)
    record = {
        "scheme": SCHEME,
        "scales": scales,
        "clip": clip,
        "corpus_sha256": calibration.corpus_sha256,
        "num_symbols": calibration.num_symbols,
        "source_digest": source.digest,
    }
    recipe: dict[str, Any] = {**source.metadata.recipe, QUANTIZATION: record}
    metadata = replace(source.metadata, name=name, version=version, recipe=recipe, evaluation=(), exporter=versions())
    return with_self_check(Artefact.build(graphs.step(), metadata, graphs.prefill()))


def with_self_check(artefact: Artefact) -> Artefact:
    """The same artefact with the digest of its self-check, by which every server proves its arithmetic."""
    runtime = Runtime(artefact)
    state = [np.zeros((len(SETTINGS), *shape), np.float32) for shape in artefact.state_shapes]

    def step(chars: list[int]) -> tuple[bytes, list[list[float]]]:
        nonlocal state
        logits, state = runtime.step(np.array(chars), state)
        return b"".join(array.tobytes() for array in (logits, *state)), logits.tolist()

    checked = self_check.digest(artefact.metadata.vocabulary_size, step, self_check.choose)
    return artefact.with_metadata(replace(artefact.metadata, self_check=checked))


def _initializers(source: Artefact) -> dict[str, NDArray[Any]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in source.step.graph.initializer}


def _largest(states: Sequence[Array]) -> NDArray[np.float32]:
    return np.array([np.abs(h).max() for h in states], np.float32)
