"""Figures: what the benchmarks measured, one value a round, as a table and as JSON."""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import sys
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ROUNDS: Final = 5


@dataclass(frozen=True, slots=True)
class Figure:
    """One thing that is measured, with one value a round.

    Attributes:
        name: what, such as `streaming c 64 / bare loop`.
        unit: `ratio`, `ms`, `characters/s`, ...
        rounds: the value of each round; the figure is their median.
        at_least, at_most: the bar, if there is one.
        is_cost: less is better.
    """

    name: str
    unit: str
    rounds: list[float] = field(default_factory=list)
    at_least: float | None = None
    at_most: float | None = None
    is_cost: bool = False

    @property
    def value(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.rounds)

    @property
    def verdict(self) -> str:
        """Whether the bar is met; empty without one."""
        if self.at_least is not None:
            return f"{'met' if self.value >= self.at_least else 'MISSED'}: at least {self.at_least:g}"
        if self.at_most is not None:
            return f"{'met' if self.value <= self.at_most else 'MISSED'}: at most {self.at_most:g}"
        return ""

    def to_json(self) -> dict[str, Any]:
        """Return the fields and the median."""
        return {key: value for key, value in asdict(self).items() if value is not None} | {"median": self.value}

    @classmethod
    def of_json(cls, values: Mapping[str, Any]) -> Figure:
        """Return what `to_json` wrote."""
        return cls(**{key: value for key, value in values.items() if key != "median"})


class Table:
    """The figures of a run, by benchmark and name."""

    def __init__(self) -> None:
        self.benchmarks: dict[str, dict[str, Figure]] = {}

    def begin(self, benchmark: str) -> None:
        """Begin a benchmark: the figures that follow are its own."""
        self.benchmarks[benchmark] = {}
        show(benchmark)

    def rounds(self, count: int) -> Iterator[int]:
        """Count the rounds and show each."""
        for number in range(count):
            show(f"{list(self.benchmarks)[-1]}: round {number + 1} of {count}")
            yield number

    def add(
        self,
        name: str,
        unit: str,
        value: float,
        *,
        at_least: float | None = None,
        at_most: float | None = None,
        is_cost: bool = False,
    ) -> None:
        """Add one round's value to a figure of the running benchmark; a figure with a bar `at_most` is a cost."""
        figures = list(self.benchmarks.values())[-1]
        figure = Figure(name, unit, [], at_least, at_most, is_cost or at_most is not None)
        figures.setdefault(name, figure).rounds.append(value)

    @property
    def figures(self) -> list[Figure]:
        """All figures, in the order in which they were measured."""
        return [figure for figures in self.benchmarks.values() for figure in figures.values()]

    def text(self, before: Mapping[str, Figure]) -> str:
        """Return the table: figure, median, range of the rounds, bar, and the value `before`."""
        rows = [("figure", "median", "rounds from … to", "unit", "bar", "baseline")]
        for figure in self.figures:
            span = f"{min(figure.rounds):.4g} … {max(figure.rounds):.4g} ({len(figure.rounds)})"
            was = f"{before[figure.name].value:.3g}" if figure.name in before else ""
            rows.append((figure.name, f"{figure.value:.4g}", span, figure.unit, figure.verdict, was))
        return "\n".join(_aligned(rows))

    def write(self, path: Path) -> None:
        """Write a file of the JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.to_json(), indent=1) + "\n")

    def to_json(self) -> dict[str, Any]:
        """Return the machine and every figure with all its rounds."""
        found = {name: [figure.to_json() for figure in figures.values()] for name, figures in self.benchmarks.items()}
        return {"machine": machine(), "benchmarks": found}


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [lines[0], "  ".join("-" * width for width in widths), *lines[1:]]


def quantile(ordered: list[float], share: float) -> float:
    """Return a quantile of sorted values by nearest rank: of 100 values the 99th for 0.99. Of none: 0."""
    return ordered[max(1, math.ceil(share * len(ordered))) - 1] if ordered else 0.0


def show(progress: str) -> None:
    """Show what is running: one line, on a terminal always the same one."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{progress}", end="", file=sys.stderr, flush=True)
    elif progress:
        print(progress, file=sys.stderr, flush=True)


def machine() -> dict[str, str]:
    """Return what the machine and its software are."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    name = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())
    flags = next((line for line in lines if line.startswith("flags")), "").split()
    vector = next((flag for flag in ("avx512_vnni", "avx512f", "avx2") if flag in flags), "")
    return {
        "cpu": f"{name} {vector}".strip(),
        "cores": str(len(os.sched_getaffinity(0))),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **{package: version(package) for package in ("onnxruntime", "numpy", "grpcio", "uvloop")},
    }
