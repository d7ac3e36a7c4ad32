import asyncio

from structlog.testing import capture_logs

from elman_server.process.tasks import background


async def test_a_task_that_dies_is_an_error_in_the_log():
    """An exception of a task that is not awaited is logged with its traceback."""

    async def fail() -> None:
        raise ZeroDivisionError("unforeseen")

    with capture_logs() as events:
        await asyncio.wait([background(fail(), "a task")])
        await asyncio.sleep(0)

    assert [(event["log_level"], event["event"], event["task"]) for event in events] == [
        ("error", "background_task_died", "a task")
    ]
    assert isinstance(events[0]["exc_info"], ZeroDivisionError)


async def test_a_task_that_ends_well_or_is_cancelled_is_not_worth_a_line():
    """Neither an end nor a cancellation is logged."""

    async def rest(seconds: float) -> None:
        await asyncio.sleep(seconds)

    with capture_logs() as events:
        tasks = [background(rest(0), "short"), background(rest(3600), "long")]
        await tasks[0]
        tasks[1].cancel()
        await asyncio.wait(tasks)
        await asyncio.sleep(0)

    assert events == []
