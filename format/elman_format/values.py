"""Values inside the metadata: JSON, and float32 numbers in base64."""

import base64
import json
import math
import struct
from typing import Any

from elman_format.errors import FormatError

_NUMBER = struct.Struct("<f")
FLOAT_BYTES = _NUMBER.size


def load_json(key: str, text: str, kind: type | tuple[type, ...]) -> Any:
    """Return the value of an entry.

    Raises:
        FormatError: It is not JSON, holds NaN or Infinity, or is of another type.
    """
    try:
        value = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{key} is not JSON: export it again.") from error
    if not isinstance(value, kind):
        raise FormatError(f"{key} holds JSON of the wrong type: export it again.")
    return value


def dump_json(key: str, value: Any) -> str:
    """Return the text of an entry.

    Raises:
        FormatError: JSON cannot hold the value.
    """
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise FormatError(f"{key} cannot be stored as JSON: {error}. Use finite numbers, strings and lists.") from error


def load_floats(what: str, encoded: Any) -> bytes:
    """Return the float32 numbers of a base64 string, little-endian.

    Raises:
        FormatError: They are something else, or not finite.
    """
    try:
        numbers = base64.b64decode(encoded, validate=True)
    except (TypeError, ValueError) as error:
        raise FormatError(f"{what} is not base64 of float32: export it again.") from error
    check_floats(what, numbers)
    return numbers


def dump_floats(numbers: bytes) -> str:
    """Return float32 numbers as base64."""
    return base64.b64encode(numbers).decode()


def check_floats(what: str, numbers: bytes) -> None:
    """Refuse bytes that are not finite float32 numbers; raises FormatError."""
    if len(numbers) % FLOAT_BYTES:
        raise FormatError(f"{what} is not base64 of float32: export it again.")
    if not all(math.isfinite(number) for (number,) in _NUMBER.iter_unpack(numbers)):
        raise FormatError(f"{what} is not finite: use finite numbers.")


def _refuse(constant: str) -> None:
    raise ValueError(constant)
