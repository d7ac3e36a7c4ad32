"""The benchmarks' own logic: what is worse, what a baseline keeps, what a load counts, and that a stop ends all."""

import ast
import asyncio
import graphlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from benchmarks import baseline
from benchmarks.artefacts import artefact
from benchmarks.floor_server import RecordedTurns
from benchmarks.load.http2 import Connection
from benchmarks.load.turns import GENERATE, Turn
from benchmarks.measure import Figure, Table
from benchmarks.processes import children, pinned, python_server
from benchmarks.turns import SAMPLING, SHORT, Bench
from elman.v1.generation_pb2 import Chunk, Finished, GenerateRequest, GenerateResponse, Started, Stopping
from elman.v1.generation_pb2_grpc import GenerationServiceStub, add_GenerationServiceServicer_to_server
from elman.v1.sampling_pb2 import Sampling

ROOT = Path(__file__).parent.parent
needs_two_cores = pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2, reason="one core for a server, one for the client"
)


def table_of(benchmark: str, **figures: list[float]) -> Table:
    """Return a table of ratios."""
    table = Table()
    table.begin(benchmark)
    for name, rounds in figures.items():
        for value in rounds:
            table.add(name, "ratio", value)
    return table


@pytest.mark.parametrize(
    ("rounds", "is_cost", "expected"),
    [
        ([0.7, 0.8, 0.75], False, True),
        ([0.7, 0.8, 1.01], False, False),  # one round was as good as before
        ([0.9, 0.92, 0.95], False, False),  # within the tolerance
        ([1.2, 1.3, 1.25], False, False),  # better
        ([1.2, 1.3, 1.25], True, True),
        ([0.7, 0.8, 0.75], True, False),
    ],
)
def test_what_is_worse(rounds: list[float], is_cost: bool, expected: bool) -> None:  # noqa: FBT001  parameters
    """Worse is a median beyond the tolerance, less of a gain or more of a cost, of which no round is an exception."""
    before = Figure("figure", "ratio", [1.0, 0.9, 1.1], is_cost=is_cost)
    assert baseline.is_worse(Figure("figure", "ratio", rounds, is_cost=is_cost), before) is expected


def test_what_has_an_upper_bar_is_a_cost_and_others_can_be() -> None:
    """Memory and CPU that no bar limits are no better for being more."""
    table = Table()
    table.begin("one")
    table.add("gain", "ratio", 1.0, at_least=0.5)
    table.add("limited", "ratio", 1.0, at_most=2.0)
    table.add("memory", "KB", 1.0, is_cost=True)
    assert [figure.is_cost for figure in table.figures] == [False, True, True]


def test_a_baseline_takes_what_was_run_and_keeps_the_rest(tmp_path: Path) -> None:
    """Of a benchmark that ran again nothing old stays; one that did not run stays as it was."""
    path = tmp_path / "baseline.json"
    baseline.update(table_of("one", gone=[1.0], kept=[1.0]), path)
    baseline.update(table_of("two", other=[3.0]), path)
    baseline.update(table_of("one", kept=[2.0]), path)
    assert {name: figure.value for name, figure in baseline.compared(path).items()} == {"kept": 2.0, "other": 3.0}


def test_a_worse_figure_is_reported_with_both_values() -> None:
    """The sentence names the figure, what it was and what it is."""
    before = {"speed": Figure("speed", "ratio", [1.0])}
    assert baseline.worse(table_of("one", speed=[0.5, 0.6]), before) == ["speed was 1 and is 0.55"]


def test_an_unknown_benchmark_is_refused() -> None:
    """The error lists the known ones."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "fast"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, "unknown benchmark: fast; choose from streaming-a" in done.stderr) == (2, True)


def test_a_profile_needs_one_part_with_a_steady_load() -> None:
    """The error lists the parts that can be profiled."""
    command = [sys.executable, "-m", "benchmarks.turns", "--only", "together", "--profile", "front.svg"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, "--profile needs --only with one of short_float32" in done.stderr) == (2, True)


def test_no_benchmark_imports_one_that_imports_it() -> None:
    """There is no import circle, not within functions or for type checking either."""
    names = {path: ".".join(path.relative_to(ROOT).with_suffix("").parts) for path in ROOT.glob("benchmarks/**/*.py")}
    modules = set(names.values())
    graph = {name: imported(path) & modules for path, name in names.items()}
    assert graph["benchmarks.load.turns"] >= {"benchmarks.load.http2", "benchmarks.load.sessions"}
    graphlib.TopologicalSorter(graph).prepare()


def imported(path: Path) -> set[str]:
    """Return the modules that a file imports anywhere, as far as their names tell; of `from a import b` a and a.b."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def test_a_pinned_process_stays_on_its_core() -> None:
    """It has one core, and the process that started it has all of its own again."""
    before = os.sched_getaffinity(0)
    with pinned(max(before)):
        process = subprocess.Popen(["sleep", "60"])
    with process:
        assert (os.sched_getaffinity(process.pid), os.sched_getaffinity(0)) == ({max(before)}, before)
        process.kill()


class Received:
    """Keeps what a call delivers."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.ended = asyncio.Event()

    def message(self, data: bytes) -> None:
        """Receive one message."""
        self.messages.append(data)

    def end(self) -> None:
        """See the call end."""
        self.ended.set()


TURN = [
    GenerateResponse(started=Started(max_chars=2)),
    GenerateResponse(chunk=Chunk(text="A", position=1)),
    GenerateResponse(chunk=Chunk(text="B" * 300_000, position=2)),  # many frames
    GenerateResponse(finished=Finished(position=2)),
]
DATA = [message.SerializeToString() for message in TURN]


@asynccontextmanager
async def floor(folder: Path) -> AsyncIterator[tuple[grpc.aio.Server, Connection]]:
    """Run a floor server that sends `TURN`, with a connection to it."""
    path = folder / "recorded.json"
    path.write_text(json.dumps([[data.hex() for data in DATA]]))
    server = grpc.aio.server()
    add_GenerationServiceServicer_to_server(RecordedTurns(path), server)  # type: ignore[abstract]  # the others: UNIMPLEMENTED
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    connection = await Connection.open(f"127.0.0.1:{port}")
    try:
        yield server, connection
    finally:
        connection.close()
        await server.stop(None)


async def test_the_client_receives_whole_messages(tmp_path: Path) -> None:
    """Calls that run at once on one connection get each message as it was sent, in order, in any number of frames."""
    async with floor(tmp_path) as (_, connection):
        calls = [Received() for _ in range(100)]
        for call in calls:
            connection.call(GENERATE, b"", call)
        connection.flush()
        await asyncio.gather(*(call.ended.wait() for call in calls))
        assert all(call.messages == DATA for call in calls)


async def test_a_failed_call_fails_the_connection(tmp_path: Path) -> None:
    """A load does not count calls that the server refused."""
    async with floor(tmp_path) as (_, connection):
        connection.call("/elman.v1.GenerationService/Score", b"", Received())
        connection.flush()
        with pytest.raises(RuntimeError, match=r"grpc-status.*12"):
            await connection.failure


async def test_a_server_that_stops_fails_the_connection(tmp_path: Path) -> None:
    """A load does not wait for a server that has stopped."""
    async with floor(tmp_path) as (server, connection):
        await server.stop(None)
        with pytest.raises(RuntimeError, match=r"frame 7|closed the connection"):  # 7: GOAWAY
            await connection.failure


def test_a_turn_counts_its_text() -> None:
    """The first character is that of the first text, not the first message."""
    ended: list[Turn] = []
    turn = Turn(0, ended.append)
    turn.message(DATA[0])
    assert not turn.first
    turn.message(DATA[1])
    first = turn.first
    for data in DATA[2:]:
        turn.message(data)
    turn.end()
    assert (turn.num_chars, turn.first, ended) == (300_001, first, [turn])
    assert first >= turn.begin


@needs_two_cores
def test_a_load_counts_turns_and_the_floor_repeats_them() -> None:
    """Turns of ours are recorded whole, and the floor server answers the same load with the same messages."""
    with Bench() as bench:
        ours = bench.elman("a")
        got = bench.converse(ours, SHORT, SAMPLING, 0.1)
        recorded = {tuple(turn) for turn in got["recorded"]}
        again = bench.converse(bench.floor(got["recorded"]), SHORT, SAMPLING, 0.1)
        assert min(got["turns"], again["turns"], *got["cpu"], *again["cpu"]) > 0
        assert {tuple(turn) for turn in again["recorded"]} <= recorded
        texts = ["".join(GenerateResponse.FromString(bytes.fromhex(m)).chunk.text for m in turn) for turn in recorded]
        assert {len(text) for text in texts} == {SHORT}


def test_a_naive_session_continues() -> None:
    """Two turns of four characters are one of eight: the naive server is compared at the same work."""

    def generate(session: str, prompt: str, num_chars: int) -> str:
        request = GenerateRequest(
            session=session,
            prompt=prompt,
            sampling=Sampling(temperature=1e-6),
            stopping=Stopping(max_chars=num_chars),
        )
        return "".join(response.chunk.text for response in stub.Generate(request))

    with python_server("naive_server", str(artefact("a"))) as server, grpc.insecure_channel(server.address) as channel:
        stub = GenerationServiceStub(channel)
        whole = generate("sessions/whole", "A", 8)
        assert generate("sessions/parts", "A", 4) + generate("sessions/parts", "", 4) == whole
        assert generate("sessions/new", whole[3], 4) != whole[4:]


def test_ctrl_c_leaves_nothing_running(tmp_path: Path) -> None:
    """An interrupt in the middle of a round ends servers, engines and the client, with status 130 and no file."""
    json_file = tmp_path / "figures.json"
    command = [sys.executable, "-m", "benchmarks", "between_characters", "--json", str(json_file)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while "round 1" not in process.stderr.readline():
            assert process.poll() is None
        started = descendants(process.pid)
        process.send_signal(signal.SIGINT)
        assert (process.wait(60), json_file.exists()) == (130, False)
    assert len(started) >= 4  # the client, the server, its engine, what reads its log
    deadline = time.monotonic() + 30
    while any(is_running(pid) for pid in started):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def descendants(pid: int) -> list[int]:
    """Return all processes that a process has started, and those that they have."""
    return [found for child in children(pid) for found in (child, *descendants(child))]


def is_running(pid: int) -> bool:
    """Whether a process is there, and not only its entry."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
