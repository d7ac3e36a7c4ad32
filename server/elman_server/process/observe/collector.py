"""Prometheus' metrics, made of the process's counters when somebody asks for them."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib.metadata import version
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from elman_server.process.observe.counters import COUNTERS, Histogram

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from prometheus_client import Metric

Values: TypeAlias = "Mapping[Any, float]"  # by the values of the labels


class Model(Protocol):
    """What is shown of a served model."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def version(self) -> str:
        """Its version."""

    @property
    def digest(self) -> str:
        """The SHA-256 of its artefact."""


@dataclass(frozen=True, slots=True)
class State:
    """What holds at the moment of a scrape.

    Attributes:
        models: that are served.
        engines: of each model by name and version, how many processes serve.
        jobs: how many run or wait in them.
        max_jobs: past which a job is refused.
        num_streams, max_streams: Generate streams of the server.
        num_sessions: in the store; None: not known yet.
        store: its kind, `memory`, `sqlite` or `redis`.
        is_ready: whether health is SERVING.
        quotas: per principal and kind, what is used and what is allowed.
    """

    models: tuple[Model, ...] = ()
    engines: Mapping[tuple[str, str], int] | None = None
    jobs: Mapping[tuple[str, str], int] | None = None
    max_jobs: Mapping[tuple[str, str], int] | None = None
    num_streams: int = 0
    max_streams: int = 0
    num_sessions: int | None = None
    store: str = "memory"
    is_ready: bool = False
    quotas: Mapping[tuple[str, str], tuple[float, float]] | None = None


def registry(state: Callable[[], State]) -> CollectorRegistry:
    """Return what is shown of this process: its counters, the present state, and its memory, processor and files."""
    found = CollectorRegistry()
    found.register(ServerCollector(state))
    ProcessCollector(registry=found)
    return found


class ServerCollector(Collector):
    """Makes metrics of `COUNTERS` and of the state."""

    def __init__(self, state: Callable[[], State]) -> None:
        self._state = state

    def describe(self) -> list[Metric]:
        """Return nothing: names are not checked before the server has started."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield every metric; called by the thread that answers the scrape."""
        state = self._state()
        yield from _of_state(state)
        yield from _of_models()
        yield from _of_calls()
        yield from _of_sessions()


def _of_state(state: State) -> Iterator[Metric]:
    build = {(version("elman"), platform.python_version()): 1.0}
    yield _gauge("elman_build_info", "The server's version, and Python's.", build, "version", "python")
    models = {(model.name, model.version, model.digest[:12]): 1.0 for model in state.models}
    yield _gauge("elman_model_info", "The models that are served.", models, "model", "version", "digest")
    yield _gauge("elman_ready", "Whether health is SERVING.", {(): float(state.is_ready)})
    yield _gauge("elman_engines", "Engine processes that serve.", state.engines or {}, "model", "version")
    yield _gauge("elman_jobs", "Jobs that run or wait in the engines.", state.jobs or {}, "model", "version")
    yield _gauge("elman_jobs_limit", "Jobs past which new ones are refused.", state.max_jobs or {}, "model", "version")
    yield _gauge("elman_streams", "Streams that are open.", {(): float(state.num_streams)})
    yield _gauge("elman_streams_limit", "Streams past which new ones are refused.", {(): float(state.max_streams)})
    if state.num_sessions is not None:
        sessions = {(state.store,): float(state.num_sessions)}
        yield _gauge("elman_sessions", "Sessions in the store; expired ones may be among them.", sessions, "store")
    used = {key: pair[0] for key, pair in (state.quotas or {}).items()}
    limits = {key: pair[1] for key, pair in (state.quotas or {}).items()}
    yield _gauge("elman_quota_used", "What a principal uses of its quota.", used, "principal", "quota")
    yield _gauge("elman_quota_limit", "A principal's quota.", limits, "principal", "quota")


def _of_models() -> Iterator[Metric]:
    models = dict(COUNTERS.models)

    def histograms(name: str, text: str, attribute: str) -> Metric:
        values = {(model,): getattr(counters, attribute) for model, counters in models.items()}
        return _histogram(name, text, values, "model")

    characters = {
        (model, kind): float(number)
        for model, counters in models.items()
        for kind, number in (("sampled", counters.num_sampled), ("read", counters.num_read))
    }
    turns = {(model, *key): n for model, counters in models.items() for key, n in _by_name(counters.turns).items()}
    restarts = {(model,): float(counters.num_restarts) for model, counters in models.items()}
    processor = {(model,): counters.engine_cpu for model, counters in models.items()}
    yield _counter("elman_characters", "Characters of turns.", characters, "model", "kind")
    yield _counter("elman_turns", "Turns by how they ended.", turns, "model", "finish")
    yield _counter("elman_engine_restarts", "Engines started again.", restarts, "model")
    yield _counter("elman_engine_cpu_seconds", "Processor time of the engines.", processor, "model")
    yield histograms("elman_first_character_seconds", "From a turn's arrival to its first text.", "first_character")
    yield histograms(
        "elman_between_characters_seconds",
        "From a text to the next one of its turn, divided by the characters of that; once for each.",
        "between_characters",
    )
    yield histograms("elman_message_characters", "Characters in one message.", "text_size")
    yield histograms("elman_step_seconds", "One step of an engine, with what it reads between steps.", "step")
    yield histograms("elman_batch_rows", "Rows of one step.", "batch")
    yield histograms("elman_queue_seconds", "From a job's arrival in the engine to a place there.", "queue")


def _of_calls() -> Iterator[Metric]:
    yield _counter("elman_calls", "Calls that are over.", dict(COUNTERS.calls), "method", "code")
    refusals = dict(COUNTERS.refusals)
    yield _counter("elman_refusals", "Calls that failed, by the reason of the error.", refusals, "code", "reason")
    seconds = {(method,): found for method, found in dict(COUNTERS.call_seconds).items()}
    yield _histogram("elman_call_seconds", "From a call's arrival to its status.", seconds, "method")
    yield _counter("elman_resumes", "Turns that were delivered again.", _by_name(COUNTERS.resumes), "outcome")
    yield _histogram("elman_loop_lag_seconds", "How late the event loop is.", {(): COUNTERS.loop_lag})


def _of_sessions() -> Iterator[Metric]:
    created, ended = _by_name(COUNTERS.sessions_created), _by_name(COUNTERS.sessions_ended)
    yield _counter("elman_sessions_created", "Sessions made, forks and imports too.", created, "model")
    yield _counter("elman_sessions_ended", "Sessions that this server expired, evicted or deleted.", ended, "reason")
    seconds = {(operation,): found for operation, found in dict(COUNTERS.store).items()}
    yield _histogram("elman_store_seconds", "One call of the session store.", seconds, "operation")


def _by_name(values: Mapping[str, float] | None) -> dict[tuple[str], float]:
    return {(name,): float(value) for name, value in dict(values or {}).items()}


def _gauge(name: str, text: str, values: Values, *labels: str) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    return _filled(family, values)


def _counter(name: str, text: str, values: Values, *labels: str) -> Metric:
    return _filled(CounterMetricFamily(name, text, labels=labels), values)


def _filled(family: GaugeMetricFamily | CounterMetricFamily, values: Values) -> GaugeMetricFamily | CounterMetricFamily:
    for labels, value in sorted(values.items()):
        family.add_metric(labels, value)
    return family


def _histogram(name: str, text: str, values: Mapping[Any, Histogram], *labels: str) -> Metric:
    family = HistogramMetricFamily(name, text, labels=labels)
    for names, found in sorted(values.items(), key=lambda item: item[0]):
        family.add_metric(names, _buckets(found), found.total)
    return family


def _buckets(found: Histogram) -> list[tuple[str, float]]:
    """Return upper bounds and how many values are not above them."""
    bounds = [*(f"{bound:g}" for bound in found.bounds), "+Inf"]
    return list(zip(bounds, map(float, accumulate(found.counts)), strict=True))
