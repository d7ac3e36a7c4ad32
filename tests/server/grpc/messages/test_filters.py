import pytest

from elman_server.domain.errors import InvalidFieldError
from elman_server.grpc.messages.filters import parse_filter
from elman_server.sessions.session import Filter, SessionStatus


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Filter()),
        ("  ", Filter()),
        ('model = "models/tiny"', Filter(model="tiny")),
        ('model="models/tiny"', Filter(model="tiny")),
        ('labels.team = "a b"', Filter(labels={"team": "a b"})),
        ("*", Filter()),
        ('model = "models/tiny/versions/1.0-b"', Filter(model="tiny", version="1.0-b")),
        ('state = "GENERATING"', Filter(status=SessionStatus.GENERATING)),
        (
            'labels.a = "1" AND model = "models/x" AND state="EXPIRED" AND labels.b-c_1 = ""',
            Filter("x", status=SessionStatus.EXPIRED, labels={"a": "1", "b-c_1": ""}),
        ),
        (r'labels.a = "say \"AND\" \\ "', Filter(labels={"a": r'say "AND" \ '})),
        ('labels.model = "x"', Filter(labels={"model": "x"})),
    ],
)
def test_filters_are_read(text: str, expected: Filter):
    """Terms of every kind, joined by AND; a blank filter and `*` keep all."""
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
        'state = "STATE_ACTIVE"',
        'state = "active"',
        "state = ACTIVE",
        '* AND state = "ACTIVE"',
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


@pytest.mark.parametrize("text", ["", " "])
def test_a_filter_that_is_required_says_so(text: str):
    """An empty filter is refused where sessions are deleted; `*` means all of them."""
    with pytest.raises(InvalidFieldError, match=r"filter: is empty; write \* for all sessions"):
        parse_filter(text, is_required=True)
    assert parse_filter("*", is_required=True) == Filter()
