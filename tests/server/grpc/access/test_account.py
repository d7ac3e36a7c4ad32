from contextlib import ExitStack

import pytest

from elman_server.domain.errors import OwnQuotaError
from elman_server.grpc.access.account import Account, Bucket, Places
from elman_server.grpc.access.principals import Quotas
from tests.clock import Clock


def test_a_bucket_has_a_minutes_worth_and_debts():
    """It fills as time passes, never above a minute's worth, and what was used beyond it has to come back first."""
    clock = Clock()
    bucket = Bucket(60, clock)
    bucket.use(60)
    assert bucket.wait() == pytest.approx(1)
    clock.now += 1
    assert bucket.wait() == 0
    bucket.use(31)
    assert bucket.wait() == pytest.approx(31)
    clock.now += 3600
    bucket.use(60)
    assert bucket.wait() == pytest.approx(1)


def test_nothing_is_no_amount():
    """A bucket of 0 never has anything."""
    clock = Clock()
    bucket = Bucket(0, clock)
    clock.now += 3600
    assert bucket.wait() > 60


def test_a_new_quota_holds_at_once():
    """A reload changes limits; a bucket whose limit stays keeps its debt."""
    clock = Clock()
    account = Account(Quotas(streams=0, characters_per_minute=60), Places(10), clock)
    account.use_characters(120)
    with pytest.raises(OwnQuotaError, match="60 characters a minute"):
        account.check_characters()
    account.change(Quotas(streams=1, characters_per_minute=60))
    with pytest.raises(OwnQuotaError, match="60 characters a minute"):
        account.check_characters()
    account.change(Quotas(streams=1))
    with account.stream():
        assert not account.is_idle
        with pytest.raises(OwnQuotaError, match="you have reached your limit of 1 streams"), account.stream():
            pass
    assert account.is_idle


def test_without_quotas_there_is_no_limit():
    """An account without quotas counts, and refuses nothing."""
    account = Account(Quotas(), Places(10))
    for _ in range(1000):
        account.request()
        account.use_characters(10**9)
    with account.stream():
        account.check_room(10**9)


def test_one_principal_cannot_take_every_place():
    """However many streams it asks for, another one finds room; and one alone has nearly all."""
    places = Places(1000)
    many, few = Account(Quotas(), places), Account(Quotas(), places)
    with ExitStack() as stack:
        for _ in range(900):
            stack.enter_context(many.stream())
        with pytest.raises(OwnQuotaError, match="limit of 900 streams"):
            stack.enter_context(many.stream())
        for _ in range(50):
            stack.enter_context(few.stream())
    with ExitStack() as stack:
        for _ in range(900):
            stack.enter_context(few.stream())


def test_usage_is_what_metrics_show():
    """Of each quota with a limit: what is used and what is allowed; to look changes nothing."""
    clock = Clock()
    account = Account(Quotas(streams=2, characters_per_minute=60), Places(10), clock)
    account.use_characters(40)
    with account.stream():
        clock.now += 10
        assert account.usage() == {"streams": (1, 2), "characters_per_minute": (30, 60)}
    assert account.usage() == {"streams": (0, 2), "characters_per_minute": (30, 60)}
