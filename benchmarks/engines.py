"""Two engine processes of a model against one: whether they generate more on two cores.

On two cores the engines share the CPU with the front and the client. So two things are measured: everything together
over gRPC, and the engines alone. A loop in this process then feeds and reads them over the same sockets, without gRPC,
text or sessions: that is what engines do where the front and the client have cores of their own.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Final

import structlog

from benchmarks.artefacts import artefact, models
from benchmarks.bare import TEMPERATURE, TOP_K, TOP_P
from benchmarks.processes import elman_server, load_client
from elman_server.domain.sampling import Sampling
from elman_server.engine import Configure, EnginePool
from elman_server.engine.job import Job

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from benchmarks.measure import Table
    from elman_server.engine import JobStream
    from elman_server.models.registry import ModelInfo

MODELS: Final = ("a", "b")
STREAMS: Final = 64
SECONDS: Final = 0.6
WARM_SECONDS: Final = 0.3
BAR: Final = 1.4


def run(table: Table, rounds: int) -> None:
    """Add characters a second of one engine and of two, and their ratios."""
    with ExitStack() as stack:
        load = stack.enter_context(load_client())
        flags = ("--max-chars", str(10**9), "--engine-threads", "1", "--engines")
        servers = [stack.enter_context(elman_server(models(*MODELS), *flags, str(count))) for count in (1, 2)]
        for _ in table.rounds(rounds):
            for name in MODELS:
                one, two = (
                    load(address=server.address, model=name, streams=STREAMS, seconds=SECONDS)["rate"]
                    for server in servers
                )
                table.add(f"one engine {name} {STREAMS}, over gRPC", "characters/s", one)
                table.add(f"two engines {name} {STREAMS} / one, over gRPC", "ratio", two / one)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    asyncio.run(_alone(table, rounds))


async def _alone(table: Table, rounds: int) -> None:
    async with AsyncExitStack() as stack:
        pools = {
            (name, count): await stack.enter_async_context(_pool(name, count)) for name in MODELS for count in (1, 2)
        }
        for _ in table.rounds(rounds):
            for name in MODELS:
                one, two = [await _rate(*pools[name, count]) for count in (1, 2)]
                table.add(f"one engine {name} {STREAMS}, alone", "characters/s", one)
                table.add(f"two engines {name} {STREAMS} / one, alone", "ratio", two / one, at_least=BAR)


@asynccontextmanager
async def _pool(name: str, count: int) -> AsyncIterator[tuple[EnginePool, ModelInfo]]:
    configure = Configure(str(artefact(name)), 256, num_threads=1, flush_seconds=0.02, num_engines=count)
    pool = EnginePool(configure, STREAMS)
    try:
        yield pool, await pool.start()
    finally:
        await pool.stop()


async def _rate(pool: EnginePool, model: ModelInfo) -> float:
    counts = [0] * STREAMS

    async def read(stream: JobStream, number: int) -> None:
        while True:
            num_chars = len((await stream.next()).ids)
            stream.allow(num_chars)
            counts[number] += num_chars

    with ExitStack() as stack:
        streams = [stack.enter_context(pool.open(_job(model, seed))) for seed in range(STREAMS)]
        tasks = [asyncio.create_task(read(stream, number)) for number, stream in enumerate(streams)]
        await asyncio.sleep(WARM_SECONDS)
        before, begin = sum(counts), time.perf_counter()
        await asyncio.sleep(SECONDS)
        rate = (sum(counts) - before) / (time.perf_counter() - begin)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return rate


def _job(model: ModelInfo, seed: int) -> Job:
    sampling = Sampling(seed, temperature=TEMPERATURE, top_k=TOP_K, top_p=TOP_P)
    return Job(model.initial, 0, model.vocabulary.encode("A", "prompt"), max_chars=10**9, sampling=sampling)
