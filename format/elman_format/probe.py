"""Probes: linear read-outs of the state."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from elman_format.errors import FormatError
from elman_format.names import check_labels, check_name
from elman_format.values import FLOAT_BYTES, dump_floats, load_floats

MAX_COUNT = 2**63 - 1  # what a message of the server can hold
_FIELDS = frozenset({"labels", "weight", "bias", "record"})


@dataclass(frozen=True, slots=True)
class Probe:
    """A linear read-out of the state: softmax(weight state + bias) over labels (multinomial logistic regression).

    The state is one row of each of the graph's states, flat, joined in their order: S numbers.

    Attributes:
        labels: L of them.
        weight: [L, S] little-endian float32, row by row.
        bias: [L] little-endian float32.
        record: How it was fitted and its accuracy; `accuracy` and `num_held_out` are known to servers.
    """

    labels: tuple[str, ...]
    weight: bytes = field(repr=False)
    bias: bytes = field(repr=False)
    record: Mapping[str, Any] = field(default_factory=dict)

    @property
    def num_inputs(self) -> int:
        """S, the numbers of the state."""
        return len(self.weight) // (FLOAT_BYTES * len(self.labels))

    @property
    def accuracy(self) -> float:
        """On texts held out when it was fitted; 0 if unknown."""
        return float(self.record.get("accuracy", 0))

    @property
    def num_held_out(self) -> int:
        """The number of characters of that measurement; 0 if unknown."""
        return int(self.record.get("num_held_out", 0))

    def to_json(self) -> dict[str, Any]:
        """The JSON value in `elman.probes`."""
        return {
            "labels": list(self.labels),
            "weight": dump_floats(self.weight),
            "bias": dump_floats(self.bias),
            "record": dict(self.record),
        }

    @classmethod
    def from_json(cls, name: str, value: Any) -> "Probe":
        """Read and check what `to_json` writes.

        Raises:
            FormatError: A field is missing or of another type, sizes differ, or a number is not finite.
        """
        check_name("The probe's name", name)
        if not isinstance(value, dict) or value.keys() != _FIELDS:
            raise FormatError(f"The probe {name} must hold labels, weight, bias and record: fit it again.")
        labels = check_labels(f"The labels of the probe {name}", value["labels"])
        weight = load_floats(f"The weight of the probe {name}", value["weight"])
        bias = load_floats(f"The bias of the probe {name}", value["bias"])
        row = FLOAT_BYTES * len(labels)
        if len(bias) != row or not weight or len(weight) % row:
            raise FormatError(f"The weights of the probe {name} do not fit its {len(labels)} labels: fit it again.")
        _check_record(name, value["record"])
        return cls(labels, weight, bias, value["record"])


def _check_record(name: str, record: Any) -> None:
    if not isinstance(record, dict):
        raise FormatError(f"The record of the probe {name} is not a JSON object: fit it again.")
    accuracy, num_held_out = (record.get(key, 0) for key in ("accuracy", "num_held_out"))
    if not _is_number(accuracy) or not 0 <= accuracy <= 1:
        raise FormatError(f"The accuracy of the probe {name} must lie between 0 and 1: fit it again.")
    if type(num_held_out) is not int or not 0 <= num_held_out <= MAX_COUNT:
        raise FormatError(f"The num_held_out of the probe {name} must be a count: fit it again.")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
