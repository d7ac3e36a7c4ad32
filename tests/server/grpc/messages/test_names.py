import pytest

from elman_server.domain.errors import InvalidFieldError
from elman_server.grpc.messages.names import model_version, session_key


def test_names_give_their_ids():
    """A well-formed name gives its parts."""
    assert session_key("name", "sessions/my-session-1") == "my-session-1"
    assert model_version("model", "models/tiny") == ("tiny", None)
    assert model_version("model", "models/tiny/versions/1.0-b") == ("tiny", "1.0-b")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "abcd",
        "sessions/",
        "sessions/abc",
        "sessions/../../etc/passwd",
        "sessions/abcd/",
        "sessions/abcd\n",
        " sessions/abcd",
        "sessions/ABCD",
        "sessions/abcd/turns/1",
        "models/abcd",
        "//elman.example/sessions/abcd",
        "sessions/" + "a" * 64,
        "sessions/" + "a" * 10_000,
        "sessions/ab\0cd",
        "sessions/äöüß",
    ],
)
def test_other_forms_are_refused(name: str):
    """Whatever is not exactly a session's name is refused in one short sentence with its field."""
    with pytest.raises(InvalidFieldError) as caught:
        session_key("session.name", name)

    assert caught.value.field == "session.name"
    assert len(caught.value.description) < 250


@pytest.mark.parametrize(
    "name", ["models/", "models/-a", "models/a/versions/", "models/a/versions/..", "sessions/abcd"]
)
def test_other_models_are_refused(name: str):
    """Whatever is not exactly a model's name is refused."""
    with pytest.raises(InvalidFieldError):
        model_version("model", name)
