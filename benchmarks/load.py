"""The load: a client in a process of its own, over real gRPC. `python -m benchmarks.load JSON` prints JSON.

The modes: `stream` (the default) here, `open`, `sessions`, `turns` and `ages` in `load_sessions`.

It uses the generated stubs and asyncio, as `elman_client.AsyncClient` does, without that client's own layer: what it
takes of the machine's two cores is taken from the server.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from dataclasses import dataclass, field
from typing import Any

import grpc
import uvloop

from benchmarks.processes import cpu_seconds
from elman.v1.generation_pb2 import GenerateRequest, Stopping
from elman.v1.generation_pb2_grpc import GenerationServiceStub
from elman.v1.sampling_pb2 import Sampling

ENDLESS = 10**9
OPTIONS = [("grpc.max_receive_message_length", 1 << 24)]


@dataclass
class Reader:
    """What one stream received: the moments and sizes of its pieces, once `counts` is set."""

    num_chars: int = 0
    arrivals: list[float] = field(default_factory=list)
    started: asyncio.Event = field(default_factory=asyncio.Event)

    async def read(self, call: Any) -> None:
        """Take pieces until the call is cancelled."""
        async for response in call:
            if text := response.chunk.text:
                self.num_chars += len(text)
                self.arrivals.append(time.perf_counter())
                self.started.set()


def request(model: str, seed: int, options: dict[str, Any], prompt: str = "A") -> GenerateRequest:
    """Return an endless turn; sampling is temperature 0.8, top_k 40, top_p 0.95 unless said otherwise."""
    sampling = {"temperature": 0.8, "top_k": 40, "top_p": 0.95} | options.get("sampling", {})
    return GenerateRequest(
        model=f"models/{model}",
        prompt=prompt,
        sampling=Sampling(seed=seed, **sampling),
        stopping=Stopping(max_chars=options.get("max_chars", ENDLESS)),
        chunk_chars=options.get("chunk_chars", 0),
    )


async def stream(stub: GenerationServiceStub, options: dict[str, Any]) -> dict[str, Any]:
    """Read `streams` streams for `seconds`; `probes` first characters and a `prompt_chars` long prompt meanwhile."""
    readers = [Reader() for _ in range(options["streams"])]
    calls: list[Any] = [stub.Generate(request(options["model"], seed, options)) for seed in range(len(readers))]
    tasks = [asyncio.create_task(reader.read(call)) for reader, call in zip(readers, calls, strict=True)]
    for reader in readers:
        await reader.started.wait()
    await asyncio.sleep(options.get("warm_seconds", 0.3))

    pids = options.get("pids", [])
    for reader in readers:
        reader.num_chars, reader.arrivals = 0, []
    before, begin = [cpu_seconds([pid]) for pid in pids], time.perf_counter()
    probes = [await first_character(stub, options, number) for number in range(options.get("probes", 0))]
    if prompt_chars := options.get("prompt_chars", 0):
        await asyncio.sleep(options["seconds"] / 4)
        prompt = ("What is the city but the people?\n" * prompt_chars)[:prompt_chars]
        probes.append(await first_character(stub, options, 0, prompt))
    await asyncio.sleep(max(0.0, begin + options["seconds"] - time.perf_counter()))
    seconds = time.perf_counter() - begin
    cpu = [cpu_seconds([pid]) - earlier for pid, earlier in zip(pids, before, strict=True)]

    counts, gaps = [reader.num_chars for reader in readers], sorted(gap for r in readers for gap in gaps_of(r.arrivals))
    for task, call in zip(tasks, calls, strict=True):
        task.cancel()
        call.cancel()
    return {
        "seconds": seconds,
        "num_chars": sum(counts),
        "fairness": min(counts) / (sum(counts) / len(counts)) if readers and sum(counts) else 0.0,
        "gap_p50": quantile(gaps, 0.5),
        "gap_p99": quantile(gaps, 0.99),
        "gap_max": gaps[-1] if gaps else 0.0,
        "messages": sum(len(reader.arrivals) for reader in readers),
        "cpu_seconds": cpu,
        "probes": probes,
    }


async def first_character(
    stub: GenerationServiceStub, options: dict[str, Any], number: int, prompt: str = "A"
) -> float:
    """Return the seconds from a call to its first character, on the warm channel."""
    begin = time.perf_counter()
    call: Any = stub.Generate(request(options["model"], 10**6 + number, options | {"max_chars": 1}, prompt))
    seconds = 0.0
    async for response in call:
        if response.chunk.text and not seconds:
            seconds = time.perf_counter() - begin
    return seconds


def gaps_of(arrivals: list[float]) -> list[float]:
    """Return the seconds between the pieces of one stream."""
    return [after - before for before, after in itertools.pairwise(arrivals)]


def quantile(ordered: list[float], share: float) -> float:
    """Return a quantile of sorted values, 0 of none."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


async def main(options: dict[str, Any]) -> None:
    """Do what the options say."""
    from benchmarks.load_sessions import MODES  # noqa: PLC0415  which needs this module

    run = MODES.get(options.get("mode", ""), None)
    async with grpc.aio.insecure_channel(options["address"], options=OPTIONS) as channel:
        answer = await (run(channel, options) if run else stream(GenerationServiceStub(channel), options))
        print(json.dumps(answer))


if __name__ == "__main__":
    uvloop.run(main(json.loads(sys.argv[1])))
