"""The plots of the model card: the loss in training, and the cost of a new state."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

from elman_export.cards.entries import RANGES, Entry

LEAST = 1e-4  # nats; smaller costs are plotted there


def plot(path: Path, entries: Sequence[Entry]) -> bool:
    """Write an SVG, deterministic in its entries; return False and write nothing without data."""
    trained = [entry for entry in entries if entry.curve]
    measured = [entry for entry in entries if entry.evaluation]
    panels = [(_plot_training, trained)] * bool(trained) + [(_plot_reset_costs, measured)] * bool(measured)
    if not panels:
        return False
    mpl.use("Agg")  # writes files; needs no display
    from matplotlib import pyplot as plt  # noqa: PLC0415  # the backend is chosen first

    colours = {entry.name: f"C{i}" for i, entry in enumerate(entries)}
    with mpl.rc_context({"svg.hashsalt": "elman", "svg.fonttype": "none"}):
        figure, axes = plt.subplots(1, len(panels), figsize=(6 * len(panels), 4), layout="constrained", squeeze=False)
        for (plot_panel, shown), panel in zip(panels, axes[0], strict=True):
            plot_panel(panel, shown, colours)
            panel.grid(alpha=0.3)
            panel.legend()
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)
    return True


def _plot_training(axes: Any, entries: Sequence[Entry], colours: dict[str, str]) -> None:
    for entry in entries:
        epochs, training, validation = zip(*entry.curve, strict=True)
        axes.plot(epochs, validation, color=colours[entry.name], label=entry.name)
        axes.plot(epochs, training, color=colours[entry.name], linestyle=":", linewidth=1)
    axes.set(xlabel="epoch", ylabel="loss, nats per character", title="validation; dotted: training, under noise")


def _plot_reset_costs(axes: Any, entries: Sequence[Entry], colours: dict[str, str]) -> None:
    for entry in entries:
        costs = [max(cost.nats, LEAST) for cost in entry.reset_costs()]
        axes.plot([first for first, _ in RANGES], costs, color=colours[entry.name], marker=".", label=entry.name)
    axes.set(xlabel="characters since the state was new", ylabel="nats per character", title="what a new state costs")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_ylim(bottom=LEAST)
