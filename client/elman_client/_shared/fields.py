"""Python values into protobuf fields, with errors that name the field."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from elman_client._errors import ErrorDetails, FieldViolation, InvalidArgumentError


def fill(message: Message, **values: object) -> None:
    """Set the fields whose value is not ``None``.

    Raises:
        TypeError: A value is of the wrong type.
        InvalidArgumentError: A value cannot be carried: too large a number, half a character.
    """
    for field, value in values.items():
        if value is None:
            continue
        try:
            _set(message, field, value)
        except TypeError as error:
            raise TypeError(f"{field} cannot be of type {type(value).__name__}") from error
        except ValueError as error:
            raise invalid(field, str(error)) from error


def invalid(field: str, description: str) -> InvalidArgumentError:
    """Return the error for a value that the client itself cannot send."""
    violation = FieldViolation(field, description)
    return InvalidArgumentError(f"{field}: {description}", details=ErrorDetails(field_violations=(violation,)))


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
        raise TypeError(f"ttl is a timedelta, not {type(ttl).__name__}")
    message = Duration()
    message.FromTimedelta(ttl)
    return message


def _timestamp(moment: datetime) -> Timestamp:
    if not isinstance(moment, datetime):
        raise TypeError(f"expire_time is a datetime, not {type(moment).__name__}")
    if moment.tzinfo is None:
        raise invalid("expire_time", "say in which time zone, as in datetime.now(UTC)")
    message = Timestamp()
    message.FromDatetime(moment)
    return message


def _set(message: Message, field: str, value: object) -> None:
    current = getattr(message, field)
    if isinstance(value, Message):
        current.CopyFrom(value)
    elif isinstance(value, Mapping):
        current.update(value)
    elif isinstance(value, list):
        current.extend(value)
    elif isinstance(value, bool) and message.DESCRIPTOR.fields_by_name[field].type != FieldDescriptor.TYPE_BOOL:
        raise TypeError("protobuf would take a bool for a number")
    else:
        setattr(message, field, value)
