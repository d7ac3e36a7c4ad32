"""The moment, as `asyncio.Event` has it."""

import asyncio

from elman_server.process.light_event import LightEvent


async def test_all_who_wait_go_on_and_later_ones_do_not_wait() -> None:
    """Setting it wakes every waiter, and a later wait returns at once."""
    moment = LightEvent()
    waits = [asyncio.create_task(moment.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    assert not any(wait.done() for wait in waits)
    moment.set()
    await asyncio.gather(*waits, moment.wait())
    assert moment.is_set()


async def test_a_waiter_that_was_cancelled_is_forgotten() -> None:
    """Its place is not kept, and the others are woken."""
    moment = LightEvent()
    first, second = (asyncio.create_task(moment.wait()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert len(moment._waiters) == 1
    moment.set()
    await second
    assert not moment._waiters


async def test_cleared_it_is_still_to_come() -> None:
    """After `clear` a new wait blocks again, and a waiter that was woken before continues."""
    moment = LightEvent()
    woken = asyncio.create_task(moment.wait())
    await asyncio.sleep(0)
    moment.set()
    moment.clear()
    await woken
    waiting = asyncio.create_task(moment.wait())
    await asyncio.sleep(0)
    assert not waiting.done()
    moment.set()
    await waiting
