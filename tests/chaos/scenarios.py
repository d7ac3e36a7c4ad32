"""What is done to a cluster while many streams run on it, one function a scenario."""

import asyncio
import random
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from elman_client import AsyncClient
from tests.chaos.cluster import Cluster, Replica, count, until
from tests.chaos.load import Fault, Load, Report, Turn
from tests.server_process import PATIENCE, ServerProcess

PAUSE_SECONDS: Final = 5.0
REDIS_PAUSE_SECONDS: Final = 3.0
_EARLY, _LATE = 1 / 16, 3 / 8  # shares of a round's characters


@dataclass
class Scene:
    """A scenario under way."""

    cluster: Cluster
    load: Load
    report: Report
    random: random.Random

    async def round(self, *faults: Fault) -> None:
        """Let every session take a turn while faults are made; then wait until all is whole."""
        await self.load.round(*faults)
        await asyncio.to_thread(self.cluster.heal)
        for fault in faults:
            self.report.note(fault.name)

    def some(self, number: int) -> Sequence[Replica]:
        """Return so many replicas, whichever."""
        return self.random.sample(self.cluster.replicas, number)


async def kill_replicas(scene: Scene) -> None:
    """(a) SIGKILL of one replica, which is started again, and then of another."""
    one, other = scene.some(2)
    await scene.round(_kill(one, _EARLY), _kill(other, _LATE))


async def pause_replica(scene: Scene) -> None:
    """(b) SIGSTOP for 5 s; then again until others have told all of its texts, so that it comes back too late."""
    one, other = scene.some(2)
    await scene.round(_pause("SIGSTOP of a replica for 5 s", one.signal, PAUSE_SECONDS))
    before = fenced([other])
    try:
        stop = Fault("SIGSTOP of a replica until all is told", _EARLY, partial(other.signal, signal.SIGSTOP))
        await scene.load.round(stop)
        scene.report.note(stop.name)
    finally:
        other.signal(signal.SIGCONT)
    # Its turns are others' now: it finds that out, and writes nothing.
    await asyncio.to_thread(until, lambda: fenced([other]) > before)
    await scene.round()


async def lose_redis(scene: Scene) -> None:
    """(c) SIGKILL of Redis, back from its append-only file; then SIGSTOP for 3 s."""
    cluster = scene.cluster
    await scene.round(
        Fault("SIGKILL of Redis", _EARLY, partial(cluster.signal_redis, signal.SIGKILL), cluster.restart_redis)
    )
    await scene.round(_pause("SIGSTOP of Redis for 3 s", cluster.signal_redis, REDIS_PAUSE_SECONDS))


async def restart_one_by_one(scene: Scene) -> None:
    """(d) SIGTERM of each replica in its turn, a new one before the next goes."""
    replicas = scene.some(len(scene.cluster.replicas))
    shares = (_EARLY, 3 / 16, _LATE)
    await scene.round(*map(_drain, replicas, shares))


async def lose_engines(scene: Scene) -> None:
    """(e) SIGKILL of an engine process, and of another replica's."""
    one, other = scene.some(2)
    await scene.round(
        *(
            Fault("SIGKILL of an engine", share, replica.kill_engine)
            for replica, share in ((one, _EARLY), (other, _LATE))
        )
    )


async def cut_network(scene: Scene) -> None:
    """(f) Between one replica and Redis nothing passes, and later everything at once; then connections break."""
    one, other = scene.some(2)
    await scene.round(Fault("network held", _EARLY, one.way.hold))
    await scene.round(Fault("network reset", _EARLY, other.way.reset))


def _kill(replica: Replica, share: float) -> Fault:
    return Fault("SIGKILL of a replica", share, partial(replica.signal, signal.SIGKILL), replica.restart)


def _drain(replica: Replica, share: float) -> Fault:
    return Fault("SIGTERM of a replica", share, partial(replica.signal, signal.SIGTERM), replica.restart_drained)


def _pause(name: str, send: Callable[[int], object], seconds: float) -> Fault:
    def wake() -> None:
        time.sleep(seconds)
        send(signal.SIGCONT)

    return Fault(name, _EARLY, partial(send, signal.SIGSTOP), wake)


SCENARIOS: Final = (kill_replicas, pause_replica, lose_redis, restart_one_by_one, lose_engines, cut_network)


def num_turns(num_rounds: int) -> int:
    """Return how many turns a session takes at most in a scenario, with the last one, which nothing disturbs."""
    return 3 * num_rounds + 1


async def run(
    scenario: Callable[[Scene], Awaitable[None]],
    cluster: Cluster,
    undisturbed: Sequence[Sequence[Turn]],
    *,
    num_streams: int,
    seed: int = 0,
    num_rounds: int = 1,
) -> Report:
    """Make a scenario, let every session take one turn more, and check all that was read and stored.

    Args:
        scenario: one of SCENARIOS.
        cluster: whole, and afterwards whole again.
        undisturbed: by round, by session; `num_turns` rounds.
        num_streams: at the same time, as in `undisturbed`.
        seed: chooses the replicas.
        num_rounds: how often the faults are made.
    """
    started = time.monotonic()
    report = Report(scenario.__name__, seed, num_streams)
    before = fenced(cluster.replicas)
    async with AsyncClient(cluster.address, timeout=PATIENCE, retry_seconds=PATIENCE) as client:
        load = Load(client, scenario.__name__.replace("_", "-"), num_streams)
        try:
            await load.start()
            scene = Scene(cluster, load, report, random.Random(seed))
            for _ in range(num_rounds):
                await scenario(scene)
            await load.round()
            await load.check(undisturbed, report)
            await load.check_store(cluster.redis.url)
            await load.end()
        except BaseException as error:
            error.add_note(f"{report}\n{cluster.faults()}")
            raise
    report.fenced = fenced(cluster.replicas) - before
    report.seconds = round(time.monotonic() - started, 1)
    report.save()
    return report


async def undisturbed(models: Path, num_rounds: int, num_streams: int, model: str = "gru") -> list[list[Turn]]:
    """Return what a server of its own, to which nothing is done, tells to the same requests."""
    with ServerProcess(models, "--engine-threads", "1") as process:
        async with AsyncClient(process.address, timeout=PATIENCE, retry_seconds=0) as client:
            load = Load(client, "undisturbed", num_streams, model)
            await load.start()
            for _ in range(num_rounds):
                await load.round()
    return load.turns


def fenced(replicas: Sequence[Replica]) -> int:
    """Return how many turns replicas found to be others', and did not write."""
    logs = [replica.log for replica in replicas]
    return count(logs, "another call continues this turn") + count(logs, '"LEASE_LOST"')
