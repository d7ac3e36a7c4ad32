from hypothesis import given
from hypothesis import strategies as st

from elman_server.domain.owner import id_of, is_of, key_of, prefix_of

NAMES = st.text(min_size=1, max_size=20)
IDS = st.from_regex("[a-z0-9-]{4,63}", fullmatch=True)


@given(NAMES, NAMES, IDS, IDS)
def test_keys_of_two_owners_never_meet(one, other, first, second):
    """Whatever owners are called, their keys differ, hold the id, and are ranges of the order of names."""
    key = key_of(one, first)
    assert (id_of(key), is_of(one, key), is_of("", key)) == (first, True, False)
    if one != other:
        assert key != key_of(other, second)
        assert not is_of(other, key)
        low, high = sorted((prefix_of(one), prefix_of(other)))
        assert low + "z" * 99 < high
    assert not {"{", "}", "\0"} & set(key)  # which mean something to Redis


@given(NAMES, IDS)
def test_without_an_owner_the_key_is_the_id(name, session_id):
    """So what was stored before there were owners is found; and all of it comes before any owner's."""
    assert key_of("", session_id) == id_of(session_id) == session_id
    assert is_of("", session_id)
    assert not is_of(name, session_id)
    assert session_id < prefix_of(name)
