"""The load of streams: endless ones, with probes or a long prompt beside them, and prompts alone.

It uses the generated stubs and asyncio, as `elman_client.AsyncClient` does, without that client's own layer: the CPU
that it uses is taken from the server. How much that is stands in the answer of `stream`.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import statistics
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from benchmarks.measure import quantile
from benchmarks.processes import cpu_seconds
from elman.v1.generation_pb2 import GenerateRequest, Stopping
from elman.v1.generation_pb2_grpc import GenerationServiceStub
from elman.v1.inspection_pb2 import Signal, Units, WatchStateRequest
from elman.v1.inspection_pb2_grpc import InspectionServiceStub
from elman.v1.sampling_pb2 import Sampling

if TYPE_CHECKING:
    import grpc

ENDLESS: Final = 10**9
PATIENCE: Final = 30.0  # for the first piece of a stream, and for the one after the end
WARM_SECONDS: Final = 0.3
PROBE_PAUSE: Final = 0.01  # at most, between two probes: they must not follow the engine's rhythm


@dataclass
class Reader:
    """One stream: when its pieces came, and how many characters each had."""

    call: Any
    pieces: list[tuple[float, int]] = field(default_factory=list)
    _arrived: asyncio.Event = field(default_factory=asyncio.Event)

    async def read(self) -> None:
        """Read pieces until the call is cancelled."""
        async for response in self.call:
            if text := response.chunk.text:
                self.pieces.append((time.perf_counter(), len(text)))
                self._arrived.set()

    async def next_piece(self) -> None:
        """Wait for the next piece."""
        self._arrived.clear()
        async with asyncio.timeout(PATIENCE):
            await self._arrived.wait()

    def rate(self) -> float:
        """Characters a second between the first and the last piece: the first one was generated before."""
        return sum(size for _, size in self.pieces[1:]) / (self.pieces[-1][0] - self.pieces[0][0])

    def gaps(self) -> list[float]:
        """The seconds between the pieces."""
        return [after - before for (before, _), (after, _) in itertools.pairwise(self.pieces)]


def request(model: str, seed: int, max_chars: int = ENDLESS, prompt: str = "A") -> GenerateRequest:
    """Return a turn without a session; sampling is temperature 0.8, top_k 40, top_p 0.95."""
    return GenerateRequest(
        model=f"models/{model}",
        prompt=prompt,
        sampling=Sampling(seed=seed, temperature=0.8, top_k=40, top_p=0.95),
        stopping=Stopping(max_chars=max_chars),
    )


async def stream(channel: grpc.aio.Channel, options: dict[str, Any]) -> dict[str, Any]:
    """Read `streams` streams for `seconds`; `probes` first characters and a `prompt_chars` long prompt meanwhile.

    With `watched_units` a watcher runs beside, all the time; `watched` is how many characters it saw.

    A stream is measured from its first piece in that time to its first piece after it, so that one piece more or less
    does not matter and a pause at the end counts.
    """
    stub, model = GenerationServiceStub(channel), options["model"]
    readers = [Reader(stub.Generate(request(model, seed))) for seed in range(options["streams"])]
    tasks = [asyncio.create_task(reader.read()) for reader in readers]
    await asyncio.gather(*(reader.next_piece() for reader in readers))
    await asyncio.sleep(WARM_SECONDS if readers else 0)

    pids = options.get("pids", [])
    for reader in readers:
        reader.pieces.clear()
    await asyncio.gather(*(reader.next_piece() for reader in readers))
    watcher = Watcher(channel, model, options)
    if options.get("watched_units"):
        tasks.append(asyncio.create_task(watcher.run()))
    before, own, begin = [cpu_seconds(pid) for pid in pids], time.process_time(), time.perf_counter()
    probes = [await _probe(stub, model, number) for number in range(options.get("probes", 0))]
    if prompt_chars := options.get("prompt_chars", 0):
        await asyncio.sleep(options["seconds"] / 4)
        probes.append(await first_character(stub, model, 0, prompt_of(prompt_chars)))
    await asyncio.sleep(max(0.0, begin + options["seconds"] - time.perf_counter()))
    seconds = time.perf_counter() - begin
    own = time.process_time() - own
    cpu = [cpu_seconds(pid) - earlier for pid, earlier in zip(pids, before, strict=True)]
    await asyncio.gather(*(reader.next_piece() for reader in readers))

    for task in tasks:
        task.cancel()
    for reader in readers:
        reader.call.cancel()
    rates, gaps = [reader.rate() for reader in readers], sorted(gap for reader in readers for gap in reader.gaps())
    return {
        "rate": sum(rates),
        "fairness": min(rates) / statistics.mean(rates) if rates else 0.0,
        "gap_p50": quantile(gaps, 0.5),
        "gap_p99": quantile(gaps, 0.99),
        "gap_max": quantile(gaps, 1),
        "cores": [used / seconds for used in cpu],
        "client_cores": own / seconds,
        "probes": sorted(probes),
        "watched": watcher.num_chars,
    }


class Watcher:
    """Watches units of a text, again and again.

    Attributes:
        num_chars: how many characters it has seen.
    """

    def __init__(self, channel: grpc.aio.Channel, model: str, options: dict[str, Any]) -> None:
        self._stub = InspectionServiceStub(channel)
        signal = Signal.Value(options.get("watched_signal", "SIGNAL_H"))
        units = Units(signal=signal, layer=1, units=range(options.get("watched_units", 1)))
        text = prompt_of(options.get("watched_chars", 1))
        self._request = WatchStateRequest(model=f"models/{model}", text=text, units=[units])
        self.num_chars = 0

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            await self.run_once()

    async def run_once(self) -> None:
        """Watch the text from its beginning to its end."""
        async for response in self._stub.WatchState(self._request):
            self.num_chars += len(response.text)


async def watch(channel: grpc.aio.Channel, options: dict[str, Any]) -> dict[str, Any]:
    """Watch `units` units of a text of `chars` characters once."""
    watched = {f"watched_{name}": options[name] for name in ("signal", "units", "chars")}
    watcher, begin = Watcher(channel, options["model"], watched), time.perf_counter()
    await watcher.run_once()
    return {"seconds": time.perf_counter() - begin, "chars": watcher.num_chars}


async def prompts(channel: grpc.aio.Channel, options: dict[str, Any]) -> dict[str, float]:
    """Send `prompts` prompts of `chars` characters, one after another and then all at once."""
    stub, model, prompt = GenerationServiceStub(channel), options["model"], prompt_of(options["chars"])
    numbers, begin = range(options["prompts"]), time.perf_counter()
    for number in numbers:
        await first_character(stub, model, number, prompt)
    between = time.perf_counter()
    await asyncio.gather(*(first_character(stub, model, number, prompt) for number in numbers))
    return {"one_by_one": between - begin, "at_once": time.perf_counter() - between}


def prompt_of(num_chars: int) -> str:
    """Return a text of this length."""
    return ("What is the city but the people?\n" * num_chars)[:num_chars]


async def _probe(stub: GenerationServiceStub, model: str, number: int) -> float:
    await asyncio.sleep(random.uniform(0, PROBE_PAUSE))
    return await first_character(stub, model, number)


async def first_character(stub: GenerationServiceStub, model: str, number: int, prompt: str = "A") -> float:
    """Return the seconds from a call to its first character, on the warm channel."""
    begin = time.perf_counter()
    call: Any = stub.Generate(request(model, 10**6 + number, 1, prompt))
    seconds = 0.0
    async for response in call:
        if response.chunk.text and not seconds:
            seconds = time.perf_counter() - begin
    return seconds


MODES: Final = {"stream": stream, "prompts": prompts, "watch": watch}
