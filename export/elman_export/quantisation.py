"""From a float32 artefact to one with int8 products, by way of a text that tells how far each layer's h goes."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import numpy_helper

from elman_export._reading import Advance, Ids, Text
from elman_export.artefact import Artefact
from elman_export.errors import ArtefactError
from elman_export.metadata import versions
from elman_export.quantised import QuantisedGraphs
from elman_export.reference import Array
from elman_export.step import GATES, STATES
from elman_export.verify import Runtime

SCHEME = "int8-static"
NUM_STEPS = 127  # of h_q on either side of zero
NUM_STREAMS = 64


def require_quantisable(source: Artefact) -> None:
    """Do nothing if there is a way to int8.

    Raises:
        ArtefactError: The cell is not a known one, has no prefill graph, or is quantised already.
    """
    metadata = source.metadata
    if metadata.cell not in STATES:
        raise ArtefactError(
            f"The cell of {metadata.name} is {metadata.cell!r}, a traced module: only "
            f"{', '.join(STATES)} can be quantised. Serve it as it is."
        )
    if "quantisation" in metadata.recipe:
        raise ArtefactError(f"{metadata.name} is int8 already: give the float32 artefact that it was made from.")
    if source.prefill is None:
        raise ArtefactError(f"{metadata.name} has no prefill graph: trace its checkpoint again, and quantise that.")


def largest_states(source: Artefact, ids: Ids, advance: Advance = lambda _: None) -> list[float]:
    """The largest |h| of each layer over a text, read by 64 rows side by side.

    Args:
        source: A float32 artefact.
        ids: [N] int64, at least 64.
        advance: Told of so many characters that were read.

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
    # A layer that is always 0 may have any scale.
    return [float(maximum) or 1.0 for maximum in largest]


def quantise(source: Artefact, maxima: Sequence[float], text: Text, clip: float, name: str, version: str) -> Artefact:
    """The int8 artefact of a float32 one; its records are the caller's to measure again.

    Args:
        source: What `require_quantisable` accepts.
        maxima: As `largest_states` gives them.
        text: Where they are from.
        clip: The part of each maximum that is kept, above 0 and at most 1; |h| beyond it is clipped.
        name: The artefact's.
        version: The artefact's.
    """
    scales = [float(np.float32(clip * maximum / NUM_STEPS)) for maximum in maxima]
    floats = {tensor.name: numpy_helper.to_array(tensor) for tensor in source.step.graph.initializer}
    graphs = QuantisedGraphs(source.metadata.cell, floats, scales)
    record = {
        "scheme": SCHEME,
        "scales": scales,
        "clip": clip,
        "calibration_sha256": text.sha256,
        "calibration_characters": len(text.ids),
        "source_digest": source.digest,
    }
    recipe: dict[str, Any] = {**source.metadata.recipe, "quantisation": record}
    metadata = replace(source.metadata, name=name, version=version, recipe=recipe, evaluation=(), exporter=versions())
    return Artefact.build(graphs.step(), metadata, graphs.prefill())



def _largest(states: Sequence[Array]) -> NDArray[np.float32]:
    return np.array([np.abs(h).max() for h in states], np.float32)
