"""``elman top``: what a server does now, from its metrics."""

import http.client
import math
import re
import shutil
import sys
import time
from dataclasses import asdict, dataclass

import click

from elman_client.cli._failures import Exit, complain
from elman_client.cli._output import print_json

_SAMPLE = re.compile(r"(?P<name>\w+)(?:\{(?P<labels>.*)\})? (?P<value>\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_PATIENCE = 10.0
_SHARE = 0.95
_CLEAR = "\x1b[H\x1b[J"  # to the corner, and what is below away
_COLUMNS = ("MODEL", "ENGINES", "JOBS", "CHARS/S", "ROWS", "STEP", "QUEUE", "FIRST", "BETWEEN", "RESTARTS")


@click.command()
@click.option(
    "--metrics",
    default="127.0.0.1:9464",
    metavar="HOST:PORT",
    show_default=True,
    help="Where the server shows its metrics: its setting --metrics-listen.",
)
@click.option("--interval", type=click.FloatRange(0.1, 60), default=2.0, show_default=True, help="Seconds of a look.")
@click.option("--once", is_flag=True, help="Print one look and end.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a look.")
def top(metrics: str, interval: float, *, once: bool, as_json: bool) -> int:
    """Show what a server does now. That is its streams, characters a second, batches, queues, sessions and engines.

    A line a model: ROWS are the mean of a step, STEP is its time, QUEUE the wait for a row, FIRST the wait for the
    first character, BETWEEN the time from one to the next; each 95 % of them. Ctrl-C ends it.

    \b
    Examples:
      elman top
      elman top --metrics 10.0.0.7:9464 --once
    """  # noqa: D301 - \b is click's sign for lines to keep as they are
    try:
        before = _scrape(metrics)
        while True:
            time.sleep(interval)
            now = _scrape(metrics)
            look, before = Change(before, now).look(), now
            if as_json:
                print_json(asdict(look))
            else:
                _draw(look, metrics, is_live=not once and sys.stdout.isatty())
            if once:
                return Exit.OK
    except (OSError, http.client.HTTPException, ValueError) as error:
        complain(
            f"No metrics at {metrics} ({error}). Start the server with --metrics-listen {metrics}, or give --metrics."
        )
        return Exit.UNAVAILABLE
    except KeyboardInterrupt:
        return Exit.OK


@dataclass(frozen=True)
class Scrape:
    """The metrics of one moment.

    Attributes:
        at: Seconds of the monotonic clock.
        samples: Values by name and labels.
    """

    at: float
    samples: dict[tuple[str, frozenset[tuple[str, str]]], float]

    def labels(self, name: str, **labels: str) -> list[dict[str, str]]:
        """Return the labels of the samples of a name that have these, too."""
        wanted = labels.items()
        return [dict(has) for other, has in self.samples if other == name and wanted <= has]

    def total(self, name: str, **labels: str) -> float:
        """Return the sum of these samples."""
        wanted = labels.items()
        return sum(value for (other, has), value in self.samples.items() if other == name and wanted <= has)


@dataclass(frozen=True)
class ModelLook:
    """What one version of a model does; times are seconds, 95 % of them are below; None: nothing happened."""

    model: str
    version: str
    engines: float
    jobs: float
    characters_per_second: float
    rows: float | None
    step: float | None
    queue: float | None
    first: float | None
    between: float | None
    restarts: float


@dataclass(frozen=True)
class Look:
    """What a server does."""

    version: str
    is_ready: bool
    streams: float
    max_streams: float
    sessions: float
    store: str
    calls_per_second: float
    errors_per_second: dict[str, float]
    store_seconds: float | None
    front_cores: float
    front_bytes: float
    models: tuple[ModelLook, ...]


class Change:
    """What happened between two scrapes."""

    def __init__(self, before: Scrape, now: Scrape) -> None:
        self._before, self._now = before, now

    def look(self) -> Look:
        """Return it."""
        now = self._now
        errors = {
            labels["reason"]: self._rate("elman_refusals_total", **labels)
            for labels in now.labels("elman_refusals_total")
        }
        models = sorted((labels["model"], labels["version"]) for labels in now.labels("elman_engines"))
        return Look(
            version=next((labels["version"] for labels in now.labels("elman_build_info")), ""),
            is_ready=bool(now.total("elman_ready")),
            streams=now.total("elman_streams"),
            max_streams=now.total("elman_streams_limit"),
            sessions=now.total("elman_sessions"),
            store=next((labels["store"] for labels in now.labels("elman_sessions")), "?"),
            calls_per_second=self._rate("elman_calls_total"),
            errors_per_second={reason: rate for reason, rate in sorted(errors.items()) if rate},
            store_seconds=self._most("elman_store_seconds"),
            front_cores=self._rate("process_cpu_seconds_total"),
            front_bytes=now.total("process_resident_memory_bytes"),
            models=tuple(self._model(model, version) for model, version in models),
        )

    def _model(self, model: str, version: str) -> ModelLook:
        steps = self._grown("elman_batch_rows_count", model=model)
        return ModelLook(
            model=model,
            version=version,
            engines=self._now.total("elman_engines", model=model, version=version),
            jobs=self._now.total("elman_jobs", model=model, version=version),
            characters_per_second=self._rate("elman_characters_total", model=model, kind="sampled"),
            rows=self._grown("elman_batch_rows_sum", model=model) / steps if steps else None,
            step=self._most("elman_step_seconds", model=model),
            queue=self._most("elman_queue_seconds", model=model),
            first=self._most("elman_first_character_seconds", model=model),
            between=self._most("elman_between_characters_seconds", model=model),
            restarts=self._now.total("elman_engine_restarts_total", model=model),
        )

    def _grown(self, name: str, **labels: str) -> float:
        return max(0.0, self._now.total(name, **labels) - self._before.total(name, **labels))

    def _rate(self, name: str, **labels: str) -> float:
        return self._grown(name, **labels) / max(1e-9, self._now.at - self._before.at)

    def _most(self, name: str, **labels: str) -> float | None:
        """Return the value below which 95 % of a histogram's new values are; within a bucket all are equally likely."""
        bounds = {float(has["le"]): has["le"] for has in self._now.labels(f"{name}_bucket", **labels)}
        numbers = [(bound, self._grown(f"{name}_bucket", le=le, **labels)) for bound, le in sorted(bounds.items())]
        if not numbers or not numbers[-1][1]:
            return None
        wanted, below, low = _SHARE * numbers[-1][1], 0.0, 0.0
        for bound, number in numbers:
            if number >= wanted:
                break
            below, low = number, bound
        return low if bound == math.inf else low + (bound - low) * (wanted - below) / (number - below)


def _scrape(address: str) -> Scrape:
    """Return a server's metrics; raises OSError, HTTPException or ValueError."""
    connection = http.client.HTTPConnection(address, timeout=_PATIENCE)  # not by a proxy
    try:
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        text = answer.read().decode()
    finally:
        connection.close()
    samples = {}
    for match in map(_SAMPLE.fullmatch, text.splitlines()):
        if match and match["name"].startswith(("elman_", "process_")):
            labels = frozenset((name, value) for name, value in _LABEL.findall(match["labels"] or ""))
            samples[match["name"], labels] = float(match["value"])
    if not samples:
        raise ValueError("another program answers")
    return Scrape(time.monotonic(), samples)


def _draw(look: Look, metrics: str, *, is_live: bool) -> None:
    errors = ", ".join(f"{reason} {rate:.1f}/s" for reason, rate in look.errors_per_second.items()) or "none"
    streams = f"streams {look.streams:.0f} of {look.max_streams:.0f}, {look.calls_per_second:.1f} calls/s"
    lines = [
        f"elman {look.version} at {metrics}: {'ready' if look.is_ready else 'NOT READY'}",
        f"{streams}; {look.sessions:.0f} sessions in {look.store}, its calls {_time(look.store_seconds)}",
        f"front {look.front_cores:.2f} cores, {look.front_bytes / 2**20:.0f} MiB; errors: {errors}",
        "",
    ]
    table = [_COLUMNS, *map(_cells, look.models)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines += ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in table]
    width = shutil.get_terminal_size().columns if is_live else None
    click.echo((_CLEAR if is_live else "") + "\n".join(line[:width] for line in lines))


def _cells(model: ModelLook) -> tuple[str, ...]:
    return (
        f"{model.model}@{model.version}",
        f"{model.engines:.0f}",
        f"{model.jobs:.0f}",
        f"{model.characters_per_second:,.0f}",
        "-" if model.rows is None else f"{model.rows:.1f}",
        *(_time(seconds) for seconds in (model.step, model.queue, model.first, model.between)),
        f"{model.restarts:.0f}",
    )


def _time(seconds: float | None) -> str:
    """Return a time with the unit that fits it."""
    if seconds is None:
        return "-"
    for unit, factor in (("s", 1), ("ms", 1e3)):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"
