"""The benchmarks' own logic: what is called worse, what a baseline keeps, and that a stop leaves nothing running."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import baseline
from benchmarks.measure import Figure, Table
from benchmarks.processes import children

ROOT = Path(__file__).parent.parent


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


def test_a_worse_figure_is_told_with_both_values() -> None:
    """The sentence names the figure, what it was and what it is."""
    before = {"speed": Figure("speed", "ratio", [1.0])}
    assert baseline.worse(table_of("one", speed=[0.5, 0.6]), before) == ["speed was 1 and is 0.55"]


def test_an_unknown_benchmark_is_refused() -> None:
    """The error lists those that there are."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "fast"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, "no benchmark is called fast; there are streaming-a" in done.stderr) == (2, True)


def test_ctrl_c_leaves_nothing_running(tmp_path: Path) -> None:
    """An interrupt in the midst of a round ends servers, engines and the client, with status 130 and no file."""
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
