"""Page tokens: made here, for one list."""

import base64
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elman_server.domain.errors import InvalidFieldError
from elman_server.sessions.pages import PageToken


@given(after=st.text(st.characters(codec="utf-8"), min_size=1), scope=st.text(st.characters(codec="utf-8")))
def test_a_token_names_where_the_list_goes_on(after, scope):
    """What was encoded for a list is decoded for the same list."""
    assert PageToken.decode(PageToken.encode(after, scope), scope) == after


def test_an_empty_token_begins():
    """The empty token is before every name."""
    assert PageToken.decode("", "any") == ""


@pytest.mark.parametrize(
    "token",
    ["x", "====", "\ud800", "ä", "A" * 10_000, "../../etc/passwd", base64.urlsafe_b64encode(b"12345678abcd").decode()],
)
def test_a_forged_token_is_refused(token):
    """What `encode` did not make is an invalid page_token, whatever it is."""
    with pytest.raises(InvalidFieldError) as refused:
        PageToken.decode(token, "scope")
    assert refused.value.field == "page_token"


@given(st.text())
def test_any_text_is_a_token_or_refused(token):
    """No text raises anything else."""
    with contextlib.suppress(InvalidFieldError):
        PageToken.decode(token, "scope")


def test_a_token_of_another_list_is_refused():
    """A token continues only the list that it was made for."""
    token = PageToken.encode("abcd", "filter a")
    with pytest.raises(InvalidFieldError, match="begin with an empty one"):
        PageToken.decode(token, "filter b")
