"""Python values into protobuf fields, with errors that name the field."""

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from numbers import Real
from typing import Any, Final, cast

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from elman_client._errors import ErrorDetails, FieldViolation, InvalidArgumentError


def fill(message: Message, **values: object) -> None:
    """Set the fields whose value is not ``None``.

    Raises:
        TypeError: A value is of the wrong type.
        InvalidArgumentError: A value cannot be sent: too large a number, half a character.
    """
    for field, value in values.items():
        if value is not None:
            try:
                _set(message, field, value)
            except ValueError as error:
                raise invalid(field, str(error)) from error


def invalid(field: str, description: str) -> InvalidArgumentError:
    """Return the error for a value that the client itself cannot send."""
    violation = FieldViolation(field, description)
    return InvalidArgumentError(f"{field}: {description}", details=ErrorDetails(field_violations=(violation,)))


def number(field: str, value: object) -> float:
    """Return ``value`` as a float: Python's and NumPy's numbers and Decimal are numbers, ``True`` is not.

    Raises:
        TypeError: It is no number.
    """
    if isinstance(value, bool) or not isinstance(value, Real | Decimal):
        raise wrong_type(field, "a number", value)
    try:
        return float(value)
    except OverflowError:  # an int of more than 300 digits
        return math.inf if cast("int", value) > 0 else -math.inf


def wrong_type(field: str, expected: str, value: object) -> TypeError:
    """Return the error for a value of the wrong type."""
    kind = type(value)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    return TypeError(f"{field} is {expected}, not {name}")


def expiration(ttl: timedelta | None, expire_time: datetime | None) -> dict[str, Duration | Timestamp | None]:
    """Return the fields of ``oneof expiration``, of which one at most is set."""
    if ttl is not None and expire_time is not None:
        raise invalid("ttl", "set ttl or expire_time, not both")
    return {
        "ttl": None if ttl is None else _duration(ttl),
        "expire_time": None if expire_time is None else _timestamp(expire_time),
    }


def _duration(ttl: timedelta) -> Duration:
    if not isinstance(ttl, timedelta):
        raise wrong_type("ttl", "a timedelta", ttl)
    message = Duration()
    message.FromTimedelta(ttl)
    return message


def _timestamp(moment: datetime) -> Timestamp:
    if not isinstance(moment, datetime):
        raise wrong_type("expire_time", "a datetime", moment)
    if moment.tzinfo is None:
        raise invalid("expire_time", "say in which time zone, as in datetime.now(UTC)")
    message = Timestamp()
    message.FromDatetime(moment)
    return message


def _integer(field: str, value: object) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise wrong_type(field, "an int", value)
    return operator.index(value)


def _truth(field: str, value: object) -> bool:
    if not isinstance(value, bool) and type(value).__name__ not in {"bool", "bool_"}:  # NumPy's are named so
        raise wrong_type(field, "True or False", value)
    return bool(value)


def _text(field: str, value: object) -> str:
    if not isinstance(value, str):
        raise wrong_type(field, "a str", value)
    return value


def _bytes(field: str, value: object) -> bytes:
    if not isinstance(value, bytes | bytearray | memoryview):
        raise wrong_type(field, "bytes", value)
    return bytes(value)


_CONVERTERS: Final[Mapping[int, Callable[[str, object], Any]]] = {
    FieldDescriptor.TYPE_BOOL: _truth,
    FieldDescriptor.TYPE_BYTES: _bytes,
    FieldDescriptor.TYPE_DOUBLE: number,
    FieldDescriptor.TYPE_ENUM: _integer,
    FieldDescriptor.TYPE_INT32: _integer,
    FieldDescriptor.TYPE_INT64: _integer,
    FieldDescriptor.TYPE_STRING: _text,
    FieldDescriptor.TYPE_UINT64: _integer,
}
"""The types of fields that the contract's requests have; a test compares."""


def _set(message: Message, field: str, value: object) -> None:
    descriptor = message.DESCRIPTOR.fields_by_name[field]
    current = getattr(message, field)
    if descriptor.message_type is not None and descriptor.message_type.GetOptions().map_entry:
        current.update(_texts(field, value))
    elif isinstance(value, Message):
        current.CopyFrom(value)
    elif hasattr(current, "extend"):
        current.extend(value)
    else:
        setattr(message, field, _CONVERTERS[descriptor.type](field, value))


def _texts(field: str, value: object) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise wrong_type(field, "a mapping of str to str", value)
    return {_text(f"a key of {field}", key): _text(f"{field}[{key!r}]", text) for key, text in value.items()}


def biases(field: str, value: object) -> Sequence[tuple[str, float]]:
    """Return the pairs of a mapping of characters to numbers."""
    if not isinstance(value, Mapping):
        raise wrong_type(field, 'a mapping of characters to numbers, as {"e": 1.5}', value)
    return [(_text(f"a key of {field}", key), number(f"{field}[{key!r}]", bias)) for key, bias in value.items()]


def strings(field: str, value: object) -> list[str]:
    """Return one string or several as a list."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, Sequence | set | frozenset) or isinstance(value, bytes | bytearray | memoryview):
        raise wrong_type(field, "a str or a sequence of them", value)
    return [_text(f"each of {field}", each) for each in value]
