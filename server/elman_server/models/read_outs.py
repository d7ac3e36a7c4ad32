"""Read-outs: what a model tells of the characters that it reads, beside or instead of what comes next.

A *tagging model* has labels for output. A *probe* is one matrix that the exporter fitted to the states of any model.
"""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from elman_server.domain.errors import ArtefactError
from elman_server.domain.sampling import log_softmax

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
MAX_LABEL_CHARS: Final = 63
_MIN_LABELS: Final = 2
_FIELDS: Final = frozenset({"labels", "weight", "bias", "record"})


@dataclass(frozen=True, slots=True)
class Probe:
    """softmax(weight state + bias) over labels; the state is all of a row's tensors, flat, in the model's order.

    Attributes:
        weight: [L, S] float64, from float32.
        bias: [L] float64.
        accuracy: on texts held out when it was fitted; 0 if unknown.
        num_held_out: on how many characters; 0 if unknown.
    """

    name: str
    labels: tuple[str, ...]
    weight: NDArray[np.float64] = field(repr=False)
    bias: NDArray[np.float64] = field(repr=False)
    accuracy: float
    num_held_out: int

    def read(self, states: Sequence[NDArray[np.float32]]) -> NDArray[np.float64]:
        """Return log-probabilities in nats, [T, L], given T rows of each state.

        Each position is computed alone and in one order of summing, without BLAS: its bits do not depend on what
        it is read with.
        """
        rows = np.concatenate([state.reshape(len(state), -1) for state in states], axis=1)
        return log_softmax(np.stack([(self.weight * row).sum(axis=1) + self.bias for row in rows]))


def parse_labels(what: str, labels: object) -> tuple[str, ...]:
    """Return the labels of `what`; raises ArtefactError."""
    if not isinstance(labels, list) or len(labels) < _MIN_LABELS:
        raise ArtefactError(f"{what} has no list of at least {_MIN_LABELS} labels; export it again")
    for label in labels:
        if not isinstance(label, str) or not label.isprintable() or not 0 < len(label) <= MAX_LABEL_CHARS:
            raise ArtefactError(f"{what} has a label that is no printable string of 1 to {MAX_LABEL_CHARS} characters")
    if len(set(labels)) != len(labels):
        raise ArtefactError(f"{what} has a label twice; export it again")
    return tuple(labels)


def parse_probes(text: str) -> tuple[Probe, ...]:
    """Return the probes of an artefact in name order; raises ArtefactError."""
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ArtefactError("elman.probes is not JSON; export it again") from error
    if not isinstance(entries, dict):
        raise ArtefactError("elman.probes is not a JSON dict; export it again")
    return tuple(_probe(name, entries[name]) for name in sorted(entries))


def _probe(name: str, entry: Any) -> Probe:
    what = f"the probe {name[:80]!a}"
    if not NAME.fullmatch(name):
        raise ArtefactError(f"{what} has a name that does not match ^{NAME.pattern}$")
    if not isinstance(entry, dict) or set(entry) != _FIELDS or not isinstance(entry["record"], dict):
        raise ArtefactError(f"{what} is not of {', '.join(sorted(_FIELDS))}; fit it again")
    labels = parse_labels(what, entry["labels"])
    try:
        weight, bias = (np.frombuffer(base64.b64decode(entry[key], validate=True), "<f4") for key in ("weight", "bias"))
    except (TypeError, ValueError) as error:
        raise ArtefactError(f"{what} has weights that are not base64 of float32; fit it again") from error
    if len(bias) != len(labels) or not len(weight) or len(weight) % len(labels):
        raise ArtefactError(f"{what} has weights of other sizes than its labels; fit it again")
    if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
        raise ArtefactError(f"{what} has weights that are not finite; fit it again")
    accuracy, num_held_out = (entry["record"].get(key, 0) for key in ("accuracy", "num_held_out"))
    if not isinstance(accuracy, int | float) or not 0 <= accuracy <= 1 or not isinstance(num_held_out, int):
        raise ArtefactError(f"{what} has a record with an accuracy or num_held_out out of range; fit it again")
    return Probe(
        name=name,
        labels=labels,
        weight=weight.reshape(len(labels), -1).astype(np.float64),
        bias=bias.astype(np.float64),
        accuracy=float(accuracy),
        num_held_out=num_held_out,
    )
