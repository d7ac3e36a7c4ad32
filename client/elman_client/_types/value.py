"""What every value of the client can do."""

from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime
from enum import Enum
from typing import Any


class Value:
    """A frozen dataclass that can be pickled, copied and written as JSON."""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as ``json.dumps`` takes them: lists for tuples, ISO 8601 for times, all the way down."""
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self)}  # type: ignore[arg-type] # each is a dataclass


def _plain(value: Any) -> Any:
    if isinstance(value, Value):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    if isinstance(value, datetime):
        return value.isoformat()
    return value.value if isinstance(value, Enum) else value
