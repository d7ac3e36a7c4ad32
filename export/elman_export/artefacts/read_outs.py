"""Read-outs: what a model reports about a text in addition to the next character, by labels or by a probe."""

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elman_export.errors import ArtefactError

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
MAX_LABEL_CHARACTERS = 63


def check_labels(what: str, labels: Any) -> tuple[str, ...]:
    """The labels, if they are at least two distinct, short, printable strings.

    Raises:
        ArtefactError: They are not; `what` names their owner in the message.
    """
    if not isinstance(labels, (list, tuple)) or len(labels) < 2:  # noqa: PLR2004  a single label carries no information
        raise ArtefactError(f"{what} must be a list of at least two labels.")
    for index, label in enumerate(labels):
        if not isinstance(label, str) or not label.isprintable() or not 0 < len(label) <= MAX_LABEL_CHARACTERS:
            raise ArtefactError(
                f"{what} hold {label!r:.80}: a label is a printable string of 1 to {MAX_LABEL_CHARACTERS} characters."
            )
        if label in labels[:index]:
            raise ArtefactError(f"{what} hold {label!r} twice: labels must be distinct.")
    return tuple(labels)


def read_labels(path: Path) -> tuple[str, ...]:
    """Read a JSON file with an array of labels.

    Raises:
        ArtefactError: The file cannot be read or holds something else.
    """
    try:
        labels = json.loads(path.read_bytes())
    except OSError as error:
        raise ArtefactError(f"Cannot read the labels {path}: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise ArtefactError(f"The labels {path} are not JSON: write an array of strings.") from error
    return check_labels(f"The labels {path}", labels)


@dataclass(frozen=True, slots=True, eq=False)
class Probe:
    """A linear read-out of the state: softmax(weight state + bias) over labels (multinomial logistic regression).

    The state is one row of each of the graph's states, flat, joined in their order: S numbers.

    Attributes:
        labels: L of them.
        weight: [L, S] float32.
        bias: [L] float32.
        record: How it was fitted and its accuracy; numbers and strings.
    """

    labels: tuple[str, ...]
    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    record: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The JSON value in `elman.probes`."""
        return {
            "labels": list(self.labels),
            "weight": base64.b64encode(self.weight.astype("<f4").tobytes()).decode(),
            "bias": base64.b64encode(self.bias.astype("<f4").tobytes()).decode(),
            "record": dict(self.record),
        }

    @classmethod
    def from_json(cls, name: str, value: Any) -> "Probe":
        """Read and check what `to_json` writes.

        Raises:
            ArtefactError: A field is missing or of another kind, sizes differ, or a number is not finite.
        """
        if not NAME.fullmatch(name):
            raise ArtefactError(f"The probe's name {name!r:.80} must match ^{NAME.pattern}$.")
        if not isinstance(value, dict) or value.keys() != {"labels", "weight", "bias", "record"}:
            raise ArtefactError(f"The probe {name} must hold labels, weight, bias and record: fit it again.")
        if not isinstance(value["record"], dict):
            raise ArtefactError(f"The record of the probe {name} is not a JSON object: fit it again.")
        labels = check_labels(f"The labels of the probe {name}", value["labels"])
        try:
            weight, bias = (
                np.frombuffer(base64.b64decode(value[key], validate=True), "<f4") for key in ("weight", "bias")
            )
        except (TypeError, ValueError) as error:
            raise ArtefactError(f"The weights of the probe {name} are not base64 float32: fit it again.") from error
        if len(bias) != len(labels) or not weight.size or weight.size % len(labels):
            raise ArtefactError(f"The weights of the probe {name} do not fit its {len(labels)} labels: fit it again.")
        if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
            raise ArtefactError(f"The weights of the probe {name} are not finite: fit it again.")
        return cls(labels, weight.reshape(len(labels), -1), bias, value["record"])
