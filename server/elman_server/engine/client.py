"""The engine as the server sees it: a process that is started, watched and restarted, and its jobs' streams."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import enum
import itertools
import os
import signal
import socket
import sys
from typing import TYPE_CHECKING, Final, Self

import structlog
from msgspec.structs import replace

from elman_server.domain.errors import ArtefactError, EngineRestartedError, NotFiniteError, OverloadedError, QuotaError
from elman_server.domain.owner import owner
from elman_server.engine import protocol
from elman_server.engine.fairness import SHORT_CHARS, Admission
from elman_server.engine.job import Output
from elman_server.process.light_event import LightEvent
from elman_server.process.observe.counters import COUNTERS
from elman_server.process.tasks import background

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from elman_server.domain.events import FinishReason
    from elman_server.engine.job import Job
    from elman_server.models.registry import ModelInfo

log = structlog.get_logger(__name__)

FIRST_RETRY_SECONDS: Final = 0.1
LAST_RETRY_SECONDS: Final = 5.0
EXIT_SECONDS: Final = 2.0
BEAT_SECONDS: Final = 2.5
MAX_UNREAD: Final = 2_000_000
MAX_SILENT_BEATS: Final = 4  # beats, not a time: a server that was paused itself must not blame its engines
# Of NumPy's products, which inspections need: their threads would fight with onnxruntime's for the cores.
_ONE_THREAD: Final = {"OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "VECLIB_MAXIMUM_THREADS": "1"}
_VARIABLES: Final = (
    "PATH", "HOME", "LANG", "LC_", "TZ", "TMPDIR", "PYTHON", "VIRTUAL_ENV", "LD_", "DYLD_", "OMP_", "OPENBLAS_", "MKL_",
    "KMP_", "ORT_", "CUDA_", "COVERAGE_",
)  # fmt: skip
_TEXT_BYTES: Final = 1 << 14
_STREAM_BYTES: Final = 1 << 22
_SENT_BYTES: Final = 1 << 16  # that the process has not taken; further jobs wait here, where they can be taken back


class EngineStatus(enum.Enum):
    """Where the engine is in its life."""

    STARTING = "starting"  # the process loads and proves the model
    SERVING = "serving"
    RESTARTING = "restarting"  # the process died
    FAILED = "failed"  # it could not be started again; that is tried again and again
    STOPPED = "stopped"


class JobStream:
    """The outputs of one job, in order. The end of the `with` block frees the job's row at once."""

    __slots__ = ("_arrived", "_engine", "_id", "_outputs")

    def __init__(self, engine: Engine, identity: int) -> None:
        self._engine = engine
        self._id = identity
        self._outputs: list[Output | Exception] = []  # few; a deque takes 0.7 KB, empty too
        self._arrived = LightEvent()

    def push(self, output: Output | Exception) -> None:
        """Add what the engine sent."""
        self._outputs.append(output)
        self._arrived.set()

    def interrupt(self, end: FinishReason | Exception) -> None:
        """End the job now; outputs that were not read are dropped."""
        self._engine.close(self._id)
        self._outputs.clear()
        self.push(end if isinstance(end, Exception) else Output(self._id, finished=end))

    async def next(self) -> Output:
        """Return the next output; a reader that is behind gets fewer, longer ones.

        Raises:
            EngineRestartedError: the process died.
            NotFiniteError: the row's logits are not finite.
        """
        while not self._outputs:
            self._arrived.clear()
            await self._arrived.wait()
        output = self._outputs.pop(0)
        if isinstance(output, Exception):
            raise output
        if output.not_finite:
            raise NotFiniteError("the model's logits are not finite")
        while output.ids and output.state is None and self._outputs:  # a state belongs to the last character
            following = self._outputs[0]
            if not isinstance(following, Output) or not following.ids:
                break
            self._outputs.pop(0)
            ids, details = [*output.ids, *following.ids], [*output.details, *following.details]
            output = replace(following, ids=ids, details=details)
        return output

    async def next_or_none(self) -> Output | None:
        """Return the next output; None if `hurry` comes before it."""
        if not self._outputs:
            self._arrived.clear()
            await self._arrived.wait()
        return await self.next() if self._outputs else None

    def hurry(self) -> None:
        """Let `next_or_none` return now."""
        self._arrived.set()

    def allow(self, num_chars: int) -> None:
        """Let the job sample that many more characters: the reader has received as many."""
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
        changed: is called when `status` has changed.
        max_unread: the most characters of all long prompts that were not read yet.

    Attributes:
        status: where it is in its life.
    """

    def __init__(
        self,
        configure: protocol.Configure,
        max_streams: int,
        changed: Callable[[], None] = lambda: None,
        max_unread: int = MAX_UNREAD,
    ) -> None:
        self._configure = configure
        self._max_streams = max_streams
        self._max_unread = max_unread
        self._changed = changed
        self.status = EngineStatus.STARTING
        self._streams: dict[int, JobStream] = {}
        self._ids = itertools.count()
        self._unread: dict[int, int] = {}  # characters of long prompts, by job
        self._admission = Admission(configure.capacity)
        self._is_sending = False  # a task waits until the process takes more
        self._allowed: dict[int, int] = {}  # characters that the engine does not know of yet, by job
        self._serving = asyncio.Event()
        self._model: ModelInfo | None = None
        self._is_silent = True  # since the last beat
        self._has_killed = False  # the process, because it hung
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
        reader, self._model = await self._launch()
        self._begin_serving()
        self._supervisor = background(self._supervise(reader), f"supervise {self._configure.path}")
        return self._model

    def open(self, job: Job, *, ignore_limit: bool = False) -> JobStream:
        """Begin a job; with `ignore_limit` even if too many wait.

        Raises:
            EngineRestartedError: the process is down.
            OverloadedError: too many jobs wait.
            QuotaError: too many characters wait to be read.
        """
        if self.status is not EngineStatus.SERVING:
            raise EngineRestartedError
        if len(self._streams) >= self._max_streams and not ignore_limit:
            raise OverloadedError(f"{self._max_streams} streams run or wait on this model", 1.0)
        identity, num_chars = next(self._ids), len(job.prompt)
        if num_chars > SHORT_CHARS:  # the number of streams bounds the others
            if self._unread and sum(self._unread.values()) + num_chars > self._max_unread and not ignore_limit:
                raise QuotaError("unread characters", self._max_unread, 1.0)
            self._unread[identity] = num_chars
        if who := owner.get():
            job = dataclasses.replace(job, owner=who)
        stream = self._streams[identity] = JobStream(self, identity)
        self._admission.add(identity, job)
        self._send_jobs()
        return stream

    @property
    def _is_behind(self) -> bool:
        """Whether the process does not take what it is sent."""
        return self._writer is not None and self._writer.transport.get_write_buffer_size() > _SENT_BYTES

    def _send_jobs(self) -> None:
        """Send the jobs that may be sent, as far as the process takes them."""
        while not (self._is_sending or self._is_behind):
            if not self._send_job():
                return
        if not self._is_sending:
            self._is_sending = True
            background(self._send_when_taken(), f"send jobs to {self._configure.path}")

    async def _send_when_taken(self) -> None:
        """Send jobs one by one, when the process has taken what it was sent."""
        try:
            while self._writer is not None:
                await self._writer.drain()
                if not self._send_job():
                    return
        except ConnectionError:
            return  # its streams are lost
        finally:
            self._is_sending = False

    def _send_job(self) -> bool:
        """Send a job; return whether there was one."""
        if (admitted := self._admission.next()) is not None:
            self.send(protocol.OpenJob(*admitted))
        return admitted is not None

    def allow(self, identity: int, num_chars: int) -> None:
        """Let a job sample more; what the readers of one flush received is sent to the engine in one message."""
        if not self._allowed:
            asyncio.get_running_loop().call_soon(self._send_allowed)
        self._allowed[identity] = self._allowed.get(identity, 0) + num_chars

    def _send_allowed(self) -> None:
        allowed, self._allowed = self._allowed, {}
        self.send(protocol.Allow(allowed))

    def close(self, identity: int) -> None:
        """End a job, or leave one that is over."""
        is_running = self._streams.pop(identity, None) is not None
        self._unread.pop(identity, None)
        if self._admission.remove(identity) and is_running:
            self.send(protocol.CloseJob(identity))
        self._send_jobs()

    async def wait_until_serving(self) -> None:
        """Return when jobs can be opened."""
        await self._serving.wait()

    def send(self, message: protocol.ToEngine) -> None:
        """Send a message, if the process is up."""
        if self._writer is None or self.status is not EngineStatus.SERVING:
            return
        # The process may have died unnoticed: uvloop then raises what would look like the reader's own fault.
        if not self._writer.is_closing():
            self._writer.write(protocol.frame(message))

    async def stop(self) -> None:
        """End the process: it exits when its socket closes."""
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.gather(self._supervisor, return_exceptions=True)
        self._lose_streams()
        self._set(EngineStatus.STOPPED)
        await self._reap()

    def _set(self, status: EngineStatus) -> None:
        self.status = status
        self._changed()

    def _begin_serving(self) -> None:
        self._set(EngineStatus.SERVING)
        self._serving.set()

    # The process

    async def _launch(self) -> tuple[asyncio.StreamReader, ModelInfo]:
        """Start a process; return its outputs and what it loaded. After an error there is none."""
        try:
            async with asyncio.timeout(self._configure.load_seconds):
                return await self._load()
        except (asyncio.IncompleteReadError, ConnectionError):
            code = await self._reap()
            raise ArtefactError(
                f"{self._configure.path}: the engine died while it loaded the model ({_cause(code)}); "
                f"is there enough memory?"
            ) from None
        except TimeoutError:
            await self._reap()
            raise ArtefactError(
                f"{self._configure.path}: the engine did not load the model within {self._configure.load_seconds:g} s"
            ) from None
        except ArtefactError:
            await self._reap()
            raise

    async def _load(self) -> tuple[asyncio.StreamReader, ModelInfo]:
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
            if answer.has_too_many_threads:
                await self._reap()
                log.warning("engine_tries_one_thread", reason=answer.message)
                self._configure = replace(self._configure, num_threads=1)
                return await self._load()
            raise ArtefactError(answer.message)
        assert isinstance(answer, protocol.Ready)
        log.info("engine_ready", model=answer.model.name, pid=process.pid, threads=answer.num_threads)
        if answer.limited_by:
            log.warning(
                "engine_uses_fewer_threads",
                model=answer.model.name,
                threads=answer.num_threads,
                reason=answer.limited_by,
                advice="for more cores set --engines",
            )
        if answer.num_computed_rows > 1:
            log.warning("engine_computes_more_rows", model=answer.model.name, for_each=answer.num_computed_rows)
        return reader, answer.model

    async def _spawn(self, theirs: socket.socket) -> asyncio.subprocess.Process:
        """Start the process. A stop in that moment comes after it: otherwise nobody could end the process."""
        command = (sys.executable, "-m", "elman_server.engine.core", str(theirs.fileno()), str(os.getpid()))
        spawning = asyncio.create_task(
            asyncio.create_subprocess_exec(
                *command, pass_fds=[theirs.fileno()], stderr=asyncio.subprocess.PIPE, env=_environment()
            )
        )
        try:
            await asyncio.shield(spawning)
        finally:
            self._process = await spawning
            background(self._relay(self._process), f"read standard error of {self._configure.path}")
        return self._process

    async def _relay(self, process: asyncio.subprocess.Process) -> None:
        """Log what a process writes to standard error: libraries' own messages, a last traceback."""
        assert process.stderr is not None
        while text := await process.stderr.read(_TEXT_BYTES):
            log.warning("engine_output", pid=process.pid, text=text.decode("utf-8", "replace").rstrip())

    async def _supervise(self, reader: asyncio.StreamReader) -> None:
        """Pass outputs on; when the process dies or hangs, end its streams and start another."""
        while True:
            try:
                await self._follow(reader)
            except (asyncio.IncompleteReadError, ConnectionError):
                pass
            except Exception:
                log.exception("engine_lost", path=self._configure.path)
            self._lose_streams()
            pid, code = self._process.pid if self._process else 0, await self._reap()
            if not self._has_killed:
                hint = {"hint": "the system kills when memory runs out"} if code == -signal.SIGKILL else {}
                log.error("engine_died", path=self._configure.path, pid=pid, cause=_cause(code), **hint)
            self._has_killed = False
            reader = await self._relaunch()

    async def _follow(self, reader: asyncio.StreamReader) -> None:
        """Pass outputs on until the process dies."""
        assert self._process is not None
        watch = background(self._watch(self._process), f"watch {self._configure.path}")
        try:
            while True:
                message = await protocol.receive(reader)
                self._is_silent = False
                if isinstance(message, protocol.Pong):
                    self._count(message.report)
                else:
                    self._dispatch(message)
        finally:
            watch.cancel()

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        """Kill a process that stays silent."""
        num_silent = 0
        while num_silent < MAX_SILENT_BEATS:
            self._is_silent = True
            self.send(protocol.Ping())
            await asyncio.sleep(BEAT_SECONDS)
            num_silent = num_silent + 1 if self._is_silent else 0
        log.error("engine_hangs", path=self._configure.path, pid=process.pid, seconds=MAX_SILENT_BEATS * BEAT_SECONDS)
        self._has_killed = True
        with contextlib.suppress(ProcessLookupError):
            process.kill()

    def _dispatch(self, message: protocol.FromEngine) -> None:
        assert isinstance(message, protocol.Outputs)
        for output in message.outputs:
            is_last = output.finished is not None or output.not_finite
            find = self._streams.pop if is_last else self._streams.get  # the engine drops a job with its last output
            if stream := find(output.stream, None):
                stream.push(output)
                if self._unread and (is_last or output.ids):
                    self._unread.pop(output.stream, None)
                if output.ids and not is_last:
                    self._admission.note_output(output.stream, len(output.ids))
        self._send_jobs()

    def _count(self, report: protocol.Report) -> None:
        assert self._model is not None
        counters = COUNTERS.models[self._model.name]
        counters.step.merge(report.steps, report.step_seconds)
        counters.batch.merge(report.batches, report.num_rows)
        counters.queue.merge(report.waits, report.wait_seconds)
        counters.engine_cpu += report.cpu_seconds

    def _lose_streams(self) -> None:
        self._set(EngineStatus.RESTARTING)
        self._serving.clear()
        streams, self._streams = self._streams, {}
        self._unread.clear()
        self._admission = Admission(self._configure.capacity)
        for stream in streams.values():
            stream.push(EngineRestartedError())

    async def _relaunch(self) -> asyncio.StreamReader:
        """Start processes until one has loaded what the first one had loaded; return its outputs."""
        path, delay = self._configure.path, FIRST_RETRY_SECONDS
        while True:
            try:
                reader, now = await self._launch()
            except (ArtefactError, OSError) as error:
                log.error("engine_failed_to_start", path=path, error=str(error), retry_seconds=delay)  # noqa: TRY400  expected: no traceback
            except Exception:
                log.exception("engine_failed_to_start", path=path, retry_seconds=delay)
            else:
                assert self._model is not None
                if (now.digest, now.fingerprint) == (self._model.digest, self._model.fingerprint):
                    log.warning("engine_restarted", model=now.name)
                    COUNTERS.models[now.name].num_restarts += 1
                    self._begin_serving()
                    return reader
                found = {"digest": now.digest, "fingerprint": now.fingerprint}
                log.error("engine_loaded_another_model", path=path, **found, retry_seconds=delay)
            self._set(EngineStatus.FAILED)
            await self._reap()
            await asyncio.sleep(delay)
            delay = min(2 * delay, LAST_RETRY_SECONDS)

    async def _reap(self) -> int:
        """Close the socket, which ends the process; return its exit code, 0 if there was none."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        if self._process is None:
            return 0
        try:
            # Not `wait_for`, which loses a cancellation if the process ends in that moment: `stop` would hang.
            async with asyncio.timeout(EXIT_SECONDS):
                await self._process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        code = await self._process.wait()
        log.info("engine_exited", code=code)
        self._process = None
        return code


def _environment() -> dict[str, str]:
    """Return the variables of an engine: what finds and tunes its libraries. Keys and passwords are not among them."""
    kept = {name: value for name, value in os.environ.items() if name.startswith(_VARIABLES)}
    return {**kept, **_ONE_THREAD}


def _cause(code: int) -> str:
    """Return why a process ended."""
    return f"exit status {code}" if code >= 0 else f"signal {-code}"
