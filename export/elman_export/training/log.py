"""The log of a run as a table and a plot."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any

import matplotlib as mpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


def write_log(directory: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write ``log.csv``, ``log.json`` and ``loss.png``; a row has the fields of ``run.Row``."""
    table = directory / "log.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    (directory / "log.json").write_text(json.dumps(list(rows), indent=2) + "\n", encoding="utf-8")
    _draw(directory / "loss.png", rows)


def _draw(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    mpl.use("Agg")  # writes files; needs no display
    from matplotlib import pyplot as plt  # noqa: PLC0415  # the backend is chosen first

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    epochs = [row["epoch"] for row in rows]
    for key, label in (("training_loss", "training"), ("validation_loss", "validation")):
        axes.plot(epochs, [row[key] for row in rows], marker=".", label=label)
    axes.set(xlabel="epoch", ylabel="loss, nats per character")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
    plt.close(figure)
