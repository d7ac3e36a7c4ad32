"""The engine as the front sees it: a process that is started, watched and started again, and its jobs' streams."""

from __future__ import annotations

import asyncio
import enum
import itertools
import socket
import sys
from typing import TYPE_CHECKING, Final, Self

import structlog
from msgspec.structs import replace

from elman_server.domain.errors import ArtefactError, EngineRestartedError, NotFiniteError, OverloadedError
from elman_server.engine import protocol
from elman_server.engine.job import Output
from elman_server.process.light_event import LightEvent

if TYPE_CHECKING:
    from types import TracebackType

    from elman_server.domain.events import FinishReason
    from elman_server.engine.job import Job
    from elman_server.models.registry import ModelInfo

log = structlog.get_logger(__name__)

FIRST_RETRY_SECONDS: Final = 0.1
LAST_RETRY_SECONDS: Final = 5.0
EXIT_SECONDS: Final = 2.0
_STREAM_BYTES: Final = 1 << 22


class EngineStatus(enum.Enum):
    """Where the engine is in its life."""

    STARTING = "starting"  # the process loads and proves the model
    SERVING = "serving"
    RESTARTING = "restarting"  # the process died
    STOPPED = "stopped"


class JobStream:
    """The outputs of one job, in order. Leaving the `with` block frees the job's row at once."""

    __slots__ = ("_arrived", "_engine", "_id", "_outputs")

    def __init__(self, engine: Engine, identity: int) -> None:
        self._engine = engine
        self._id = identity
        self._outputs: list[Output | Exception] = []  # few; a deque takes 0.7 KB, empty too
        self._arrived = LightEvent()

    def push(self, output: Output | Exception) -> None:
        """Take what the engine says."""
        self._outputs.append(output)
        self._arrived.set()

    def interrupt(self, end: FinishReason | Exception) -> None:
        """End the job now; what was not taken is dropped."""
        self._engine.close(self._id)
        self._outputs.clear()
        self.push(end if isinstance(end, Exception) else Output(self._id, finished=end))

    async def next(self) -> Output:
        """Return the next output; a reader who is behind gets fewer, longer ones.

        Raises:
            EngineRestartedError: the process died.
            NotFiniteError: the row left the real numbers.
        """
        while not self._outputs:
            self._arrived.clear()
            await self._arrived.wait()
        output = self._outputs.pop(0)
        if isinstance(output, Exception):
            raise output
        if output.not_finite:
            raise NotFiniteError("the model's logits are not finite")
        while output.ids and output.state is None and self._outputs:  # a state is told of the last character
            following = self._outputs[0]
            if not isinstance(following, Output) or not following.ids:
                break
            self._outputs.pop(0)
            ids, details = [*output.ids, *following.ids], [*output.details, *following.details]
            output = replace(following, ids=ids, details=details)
        return output

    def allow(self, num_chars: int) -> None:
        """Let the job draw so many characters more: the reader took them."""
        self._engine.allow(self._id, num_chars)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._engine.close(self._id)


class Engine:
    """One engine process.

    Args:
        configure: what to load and how.
        max_streams: the most jobs, running or waiting.

    Attributes:
        status: where it is in its life.
    """

    def __init__(self, configure: protocol.Configure, max_streams: int) -> None:
        self._configure = configure
        self._max_streams = max_streams
        self.status = EngineStatus.STARTING
        self._streams: dict[int, JobStream] = {}
        self._ids = itertools.count()
        self._allowed: dict[int, int] = {}  # characters that readers took and the engine does not know of, by job
        self._serving = asyncio.Event()
        self._supervisor: asyncio.Task[None] | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._writer: asyncio.StreamWriter | None = None

    @property
    def num_streams(self) -> int:
        """How many jobs run or wait."""
        return len(self._streams)

    async def start(self) -> ModelInfo:
        """Start the process; return what it loaded.

        Raises:
            ArtefactError: the model cannot be honoured.
        """
        try:
            reader, model = await self._launch()
        except asyncio.IncompleteReadError:
            await self._reap()
            raise ArtefactError(f"{self._configure.path}: the engine died while loading it") from None
        self._supervisor = asyncio.create_task(self._supervise(reader, model))
        return model

    def open(self, job: Job, *, ignore_limit: bool = False) -> JobStream:
        """Begin a job; `ignore_limit`: however many wait.

        Raises:
            EngineRestartedError: the process is not there now.
            OverloadedError: as many jobs wait as may.
        """
        if self.status is not EngineStatus.SERVING:
            raise EngineRestartedError
        if len(self._streams) >= self._max_streams and not ignore_limit:
            raise OverloadedError(f"{self._max_streams} streams run or wait on this model", 1.0)
        identity = next(self._ids)
        stream = self._streams[identity] = JobStream(self, identity)
        self.send(protocol.OpenJob(identity, job))
        return stream

    def allow(self, identity: int, num_chars: int) -> None:
        """Let a job draw more; what the readers of one flush took goes to the engine together."""
        if not self._allowed:
            asyncio.get_running_loop().call_soon(self._send_allowed)
        self._allowed[identity] = self._allowed.get(identity, 0) + num_chars

    def _send_allowed(self) -> None:
        allowed, self._allowed = self._allowed, {}
        self.send(protocol.Allow(allowed))

    def close(self, identity: int) -> None:
        """Forget a job."""
        if self._streams.pop(identity, None):
            self.send(protocol.CloseJob(identity))

    async def wait_until_serving(self) -> None:
        """Return when jobs can be opened."""
        await self._serving.wait()

    def send(self, message: protocol.ToEngine) -> None:
        """Send a message, if the process is there."""
        if self._writer is None or self.status is not EngineStatus.SERVING:
            return
        # It may have died without our having heard: uvloop then raises what would be taken for the reader's own fault.
        if not self._writer.is_closing():
            self._writer.write(protocol.frame(message))

    async def stop(self) -> None:
        """End the process: it goes when its socket closes."""
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.gather(self._supervisor, return_exceptions=True)
        self._lose_streams()
        self.status = EngineStatus.STOPPED
        await self._reap()

    # The process

    async def _launch(self) -> tuple[asyncio.StreamReader, ModelInfo]:
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                process = await self._spawn(theirs)
            reader, self._writer = await asyncio.open_unix_connection(sock=ours, limit=_STREAM_BYTES)
        except BaseException:  # a stop during a restart, too
            ours.close()
            raise
        self._writer.write(protocol.frame(self._configure))
        answer = await protocol.receive(reader)
        if isinstance(answer, protocol.Refused):
            await self._reap()
            raise ArtefactError(answer.message)
        assert isinstance(answer, protocol.Ready)
        log.info("engine_ready", model=answer.model.name, pid=process.pid, threads=answer.num_threads)
        self.status = EngineStatus.SERVING
        self._serving.set()
        return reader, answer.model

    async def _spawn(self, theirs: socket.socket) -> asyncio.subprocess.Process:
        """Start the process. A stop in that moment comes after it: what nobody knows of, nobody could end."""
        command = (sys.executable, "-m", "elman_server.engine.core", str(theirs.fileno()))
        spawning = asyncio.create_task(asyncio.create_subprocess_exec(*command, pass_fds=[theirs.fileno()]))
        try:
            await asyncio.shield(spawning)
        finally:
            self._process = await spawning
        return self._process

    async def _supervise(self, reader: asyncio.StreamReader, model: ModelInfo) -> None:
        """Pass outputs on; when the process dies, end its streams and start another."""
        while True:
            try:
                while True:
                    self._dispatch(await protocol.receive(reader))
            except (asyncio.IncompleteReadError, ConnectionError):
                self._lose_streams()
                await self._reap()
            reader = await self._relaunch(model)

    def _dispatch(self, message: protocol.FromEngine) -> None:
        assert isinstance(message, protocol.Outputs)
        for output in message.outputs:
            if stream := self._streams.get(output.stream):
                stream.push(output)

    def _lose_streams(self) -> None:
        self.status = EngineStatus.RESTARTING
        self._serving.clear()
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.push(EngineRestartedError())

    async def _relaunch(self, model: ModelInfo) -> asyncio.StreamReader:
        delay = FIRST_RETRY_SECONDS
        while True:
            try:
                reader, now = await self._launch()
            except (ArtefactError, OSError, asyncio.IncompleteReadError) as error:
                log.warning("engine_failed_to_start", model=model.name, error=str(error), retry_seconds=delay)
                await self._reap()
            else:
                if now.digest == model.digest:
                    log.warning("engine_restarted", model=model.name)
                    return reader
                log.error("engine_found_another_model", model=model.name, digest=now.digest)
                self._lose_streams()
                await self._reap()
            await asyncio.sleep(delay)
            delay = min(2 * delay, LAST_RETRY_SECONDS)

    async def _reap(self) -> None:
        """Close the socket, which ends the process; see it gone."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        if self._process is not None:
            try:
                # Not `wait_for`, which forgets a cancellation if the process ends in that moment: `stop` would hang.
                async with asyncio.timeout(EXIT_SECONDS):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
            log.info("engine_exited", code=await self._process.wait())
            self._process = None
