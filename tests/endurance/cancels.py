"""Turns that Cancel ends, thousands of them at random moments: each call has its status at once."""

import asyncio
import random
import time
from dataclasses import dataclass, field
from typing import Any, Final

import grpc

from elman.v1 import generation_pb2 as messages
from elman.v1.generation_pb2_grpc import GenerationServiceStub
from elman.v1.session_pb2 import CreateSessionRequest, GetSessionRequest, Session
from elman.v1.session_pb2_grpc import SessionServiceStub
from tests.server_process import PATIENCE

_NUM_CALLERS: Final = 16
_LATEST: Final = 0.01  # seconds after its beginning that a turn is cancelled
_LENGTH: Final = 100_000


@dataclass
class Cancels:
    """What became of calls whose turns were cancelled.

    Attributes:
        statuses: how many calls ended with which.
        longest: seconds from the sending of Cancel to the status of the call, at most.
        longest_answer: and to the answer of Cancel.
    """

    statuses: dict[str, int] = field(default_factory=dict)
    longest: float = 0.0
    longest_answer: float = 0.0


async def cancel_many(address: str, number: int) -> Cancels:
    """Begin turns, as many, and cancel each soon after."""
    result, chance, numbers = Cancels(), random.Random(0), iter(range(number))
    async with grpc.aio.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        generation, sessions = GenerationServiceStub(channel), SessionServiceStub(channel)

        async def cancel() -> None:
            created = await sessions.CreateSession(CreateSessionRequest(model="models/gru"), timeout=PATIENCE)
            name = created.session.name
            # Nothing is kept, so that the session stays as small as it is.
            request = messages.GenerateRequest(
                session=name,
                prompt="x",
                stopping=messages.Stopping(max_chars=_LENGTH),
                on_abort=messages.ON_ABORT_ROLLBACK,
            )
            which = GetSessionRequest(name=name)
            for _ in numbers:
                call: Any = generation.Generate(request, timeout=PATIENCE)
                reading = asyncio.ensure_future(_read(call))
                while (await sessions.GetSession(which, timeout=PATIENCE)).session.state != Session.STATE_GENERATING:
                    pass  # a Cancel that overtakes its turn ends nothing
                await asyncio.sleep(chance.random() * _LATEST)
                sent = time.monotonic()
                await generation.Cancel(messages.CancelRequest(session=name), timeout=PATIENCE)
                result.longest_answer = max(result.longest_answer, time.monotonic() - sent)
                status = await reading
                result.statuses[status] = result.statuses.get(status, 0) + 1
                result.longest = max(result.longest, time.monotonic() - sent)

        async with asyncio.TaskGroup() as group:
            for _ in range(_NUM_CALLERS):
                group.create_task(cancel())
    return result


async def _read(call: Any) -> str:
    """Read a call to its end; return its status."""
    async for _ in call:
        pass
    status: grpc.StatusCode = await call.code()
    return status.name
