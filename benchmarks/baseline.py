"""The baseline: what a run is compared with, benchmarks/baseline.json.

Only ratios within one run and memory are compared: absolute times drift by a factor of two from day to day.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.measure import Figure

if TYPE_CHECKING:
    from benchmarks.measure import Table

PATH: Final = Path(__file__).parent / "baseline.json"
COMPARED: Final = {"ratio", "bytes", "KB"}  # units
TOLERANCE: Final = 0.15


def read(path: Path = PATH) -> dict[str, Figure]:
    """Return the baseline's figures by name."""
    found = _load(path)["benchmarks"].values()
    figures = [Figure.of_json(values) for benchmark in found for values in benchmark]
    return {figure.name: figure for figure in figures}


def compared(path: Path = PATH) -> dict[str, Figure]:
    """Return those that are compared."""
    return {name: figure for name, figure in read(path).items() if figure.unit in COMPARED}


def is_worse(now: Figure, before: Figure) -> bool:
    """Whether a figure is worse than it was: its median by more than the tolerance, and every round of it.

    Of five rounds as good as before, all are on the worse side of the old median once in 32 times. Where the rounds
    agree, it is rare that they are also beyond the tolerance.
    """
    sign = -1 if now.is_cost else 1
    beyond = 1 - sign * TOLERANCE
    return (
        sign * now.value < sign * before.value * beyond
        and max(sign * value for value in now.rounds) < sign * before.value
    )


def worse(table: Table, before: dict[str, Figure]) -> list[str]:
    """Return a sentence for each figure that is worse than the baseline's."""
    return [
        f"{figure.name} was {before[figure.name].value:.3g} and is {figure.value:.3g}"
        for figure in table.figures
        if figure.name in before and is_worse(figure, before[figure.name])
    ]


def update(table: Table, path: Path = PATH) -> None:
    """Put a run into the baseline: its machine, and the benchmarks that it ran in place of their old figures."""
    found, known = table.to_json(), _load(path)
    found["benchmarks"] = known["benchmarks"] | found["benchmarks"]
    path.write_text(json.dumps(found, indent=1) + "\n")


def _load(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"machine": {}, "benchmarks": {}}
    return loaded
