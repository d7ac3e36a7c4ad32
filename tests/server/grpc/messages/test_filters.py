import pytest

from elman_server.domain.errors import InvalidFieldError
from elman_server.grpc.messages.filters import parse_filter
from elman_server.sessions.session import Filter


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Filter()),
        ("  ", Filter()),
        ('model = "models/tiny"', Filter(model="tiny")),
        ('model="models/tiny"', Filter(model="tiny")),
        ('labels.team = "a b"', Filter(labels={"team": "a b"})),
        ('labels.a = "1" AND model = "models/x" AND labels.b-c_1 = ""', Filter("x", {"a": "1", "b-c_1": ""})),
        (r'labels.a = "say \"AND\" \\ "', Filter(labels={"a": r'say "AND" \ '})),
        ('labels.model = "x"', Filter(labels={"model": "x"})),
    ],
)
def test_filters_are_read(text: str, expected: Filter):
    """Terms of both kinds, joined by AND, are read; a blank filter keeps all."""
    assert parse_filter(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "model",
        "model = models/tiny",
        'model = "tiny"',
        'model = "models/a" OR model = "models/b"',
        'model = "models/a" model = "models/b"',
        'model = "models/a" AND',
        'model = "models/a" AND model = "models/a"',
        'labels.a = "1" AND labels.a = "2"',
        'labels.A = "1"',
        'labels = "1"',
        'labels.a != "1"',
        'labels.a = "1',
        r'labels.a = "\n"',
        "AND",
        'labels.a = "' + "x" * 5000 + '"',
    ],
)
def test_other_filters_are_refused(text: str):
    """What cannot be honoured in full is refused with the field's name."""
    with pytest.raises(InvalidFieldError) as caught:
        parse_filter(text)

    assert caught.value.field == "filter"
