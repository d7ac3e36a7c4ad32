"""The long forms: `python -m tests.endurance churn|cancels|restarts`; each prints one line of JSON."""

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Final

import click

from tests.endurance.cancels import cancel_many
from tests.endurance.churn import churn
from tests.endurance.restarts import Restarted, busy, restart_many, undisturbed
from tests.models import tiny_model
from tests.server_process import ServerProcess

_MINUTE: Final = 60


@click.group()
def main() -> None:
    """Let a server bear something for long."""


@main.command("churn")
@click.option("--minutes", default=20.0, show_default=True, type=click.FloatRange(0.1, 600))
def _churn(minutes: float) -> None:
    """Let callers come and go; print the slopes of the memory of front and engine, in MB an hour."""
    with _models() as models, ServerProcess(models) as process:
        counts, memory = asyncio.run(churn(process, minutes * _MINUTE))
        seconds, front, engine = memory.seconds, memory.front, memory.engine
        every = max(1, len(seconds) // 20)
        curve = [
            (round(at - seconds[0]), *(round(x / 1e6, 1) for x in held))
            for at, *held in zip(seconds[::every], front[::every], engine[::every], strict=True)
        ]
        _print(slopes=memory.slopes(), calls=counts, curve=curve)


@main.command("cancels")
@click.option("--number", default=100_000, show_default=True, type=click.IntRange(1, 10**7))
def _cancels(number: int) -> None:
    """Cancel turns; print their statuses and the longest wait for one."""
    with _models() as models, ServerProcess(models) as process:
        before, started = process.rss(), time.monotonic()
        result = asyncio.run(cancel_many(process.address, number))
        _print(**asdict(result), seconds=time.monotonic() - started, bytes_more=process.rss() - before)


@main.command("restarts")
@click.option("--times", default=20, show_default=True, type=click.IntRange(1, 1000))
@click.option(
    "--streams", default=96, show_default=True, type=click.IntRange(1, 1000), help="Readers at the same time."
)
@click.option("--loops", default=2, show_default=True, type=click.IntRange(0, 64), help="Busy loops beside.")
@click.option(
    "--servers", default=1, show_default=True, type=click.IntRange(1, 8), help="1: of SQLite; more: of one Redis."
)
def _restarts(times: int, streams: int, loops: int, servers: int) -> None:
    """Restart servers under readers; print how many of them saw it."""
    with _models(hidden_size=128) as models, tempfile.TemporaryDirectory() as folder:
        expected = asyncio.run(undisturbed(models, streams))
        with Restarted(models, Path(folder), servers) as restarted, busy(loops):
            result = asyncio.run(restart_many(restarted, expected, times))
    _print(**asdict(result))
    sys.exit(bool(result.broken))


@contextmanager
def _models(hidden_size: int = 16) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield tiny_model(Path(folder) / "gru.onnx", hidden_size=hidden_size, name="gru").parent


def _print(**figures: object) -> None:
    click.echo(json.dumps(figures))


if __name__ == "__main__":
    main()
