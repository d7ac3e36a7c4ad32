"""Evaluation records: one for each measurement of a model's loss."""

from collections.abc import Mapping
from typing import Any

from elman_format.errors import FormatError
from elman_format.names import shown

MAX_COUNT = 2**63 - 1  # what a message of the server can hold
FIELDS = ("corpus_sha256", "protocol", "nats_per_character", "standard_error", "num_characters")
_STRINGS, _NUMBERS = FIELDS[:2], FIELDS[2:4]


def check_evaluation(records: Any) -> tuple[Mapping[str, Any], ...]:
    """Return the records if each holds exactly `FIELDS`, of their types.

    Raises:
        FormatError: One does not; the message names the field.
    """
    for record in records:
        if not isinstance(record, Mapping) or set(record) != set(FIELDS):
            raise FormatError(f"An evaluation record must hold exactly {', '.join(FIELDS)}: evaluate it again.")
        for key in FIELDS:
            if not _is_valid(key, record[key]):
                raise FormatError(f"An evaluation record holds {shown(record[key])} as its {key}: evaluate it again.")
    return tuple(records)


def _is_valid(key: str, value: Any) -> bool:
    if key in _STRINGS:
        return isinstance(value, str) and value.isprintable()
    if key in _NUMBERS:
        return type(value) in (int, float) and abs(value) < float("inf")
    return type(value) is int and 0 <= value <= MAX_COUNT
