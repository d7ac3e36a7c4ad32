"""Figures: what a benchmark found, as a table and as JSON, against its bar and the committed baseline.

Only ratios within one run are compared between runs: absolute times of one machine drift by a factor of two.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

BASELINE: Final = Path(__file__).parent / "baseline.json"
TOLERANCE: Final = 0.15  # a ratio may be this much worse than the baseline's before it is called out
ROUNDS: Final = 5


@dataclass(frozen=True, slots=True)
class Figure:
    """One thing that was measured, once a round.

    Attributes:
        name: what, such as `streaming c 64 / bare loop`.
        unit: `ratio` for what is compared with the baseline, else `ms`, `characters/s`, ...
        rounds: the value of each round; the figure is their median.
        at_least, at_most: the bar, if there is one.
    """

    name: str
    unit: str
    rounds: list[float] = field(default_factory=list)
    at_least: float | None = None
    at_most: float | None = None

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

    def against(self, baseline: float | None) -> str:
        """How a ratio stands to the baseline's."""
        if baseline is None or self.unit != "ratio":
            return ""
        better = self.value / baseline if self.at_most is None else baseline / self.value
        return f"{baseline:.3g}" + ("  WORSE" if better < 1 - TOLERANCE else "")


class Table:
    """Collects the figures of one run by name, and prints each as it is complete."""

    def __init__(self) -> None:
        self.figures: dict[str, Figure] = {}

    def add(
        self, name: str, unit: str, value: float, *, at_least: float | None = None, at_most: float | None = None
    ) -> None:
        """Add one round's value to a figure."""
        figure = self.figures.setdefault(name, Figure(name, unit, [], at_least, at_most))
        figure.rounds.append(value)

    def text(self) -> str:
        """Return the table: figure, median, range of the rounds, bar, baseline."""
        known = read_baseline()
        rows = [("figure", "median", "rounds from … to", "unit", "bar", "baseline")]
        for figure in self.figures.values():
            span = f"{min(figure.rounds):.4g} … {max(figure.rounds):.4g} ({len(figure.rounds)})"
            against = figure.against(known.get(figure.name))
            rows.append((figure.name, f"{figure.value:.4g}", span, figure.unit, figure.verdict, against))
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])

    def to_json(self) -> dict[str, Any]:
        """Return the machine and every figure with all its rounds."""
        figures = [
            {key: value for key, value in asdict(figure).items() if value is not None} | {"median": figure.value}
            for figure in self.figures.values()
        ]
        return {"machine": machine(), "figures": figures}


Benchmark = Callable[[Table, int], None]


def command(benchmark: Benchmark, description: str | None, arguments: Sequence[str] | None = None) -> None:
    """Run one benchmark as a command: prints its table, with `--json FILE` writes the figures too."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="alternating rounds (default %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    options = parser.parse_args(arguments)
    table = Table()
    benchmark(table, options.rounds)
    finish(table, options.json)


def finish(table: Table, json_file: Path | None) -> None:
    """Print the table, and write the figures where a file is named."""
    print(table.text())
    if json_file is not None:
        json_file.write_text(json.dumps(table.to_json(), indent=1) + "\n")


def read_baseline() -> dict[str, float]:
    """Return the committed ratios by name."""
    if not BASELINE.exists():
        return {}
    return {figure["name"]: figure["median"] for figure in json.loads(BASELINE.read_text())["figures"]}


def machine() -> dict[str, str]:
    """Say what this was measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    name = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())
    flags = next((line for line in lines if line.startswith("flags")), "")
    vector = next((flag for flag in ("avx512_vnni", "avx512f", "avx2") if flag in flags), "")
    return {
        "cpu": f"{name} {vector}".strip(),
        "cores": str(len(os.sched_getaffinity(0))),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **{package: _version(package) for package in ("onnxruntime", "numpy", "grpcio", "uvloop")},
    }


def _version(package: str) -> str:
    from importlib.metadata import version  # noqa: PLC0415  only here

    return version(package)
