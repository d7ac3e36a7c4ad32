"""The picture of docs/benchmarks.md, plotted from the baseline."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl
from matplotlib.ticker import FuncFormatter

from benchmarks.first_character import RUNNING
from benchmarks.streaming import MODELS, STREAMS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.measure import Figure

PICTURE: Final = Path(__file__).parent.parent / "docs" / "benchmarks.svg"
OURS, THEIRS = "C0", "C7"


def plot(figures: Mapping[str, Figure], path: Path = PICTURE) -> Path:
    """Write an SVG; the same figures give the same bytes.

    Raises:
        KeyError: a figure of the picture is missing.
    """
    mpl.use("Agg")  # files only
    from matplotlib import pyplot as plt  # noqa: PLC0415  the backend is chosen first

    with mpl.rc_context({"svg.hashsalt": "elman", "svg.fonttype": "none"}):
        figure, axes = plt.subplots(2, 2, figsize=(11, 7.5), layout="constrained")
        for plot_panel, panel in zip((_throughput, _ratio, _first_character, _memory), axes.flat, strict=True):
            plot_panel(panel, figures)
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)
    return path


def _throughput(axes: Any, figures: Mapping[str, Figure]) -> None:
    for name in reversed(MODELS):
        (line,) = axes.plot(STREAMS, _values(figures, f"streaming {name} {{}}"), marker=".", label=name)
        bare = _values(figures, f"bare loop {name} {{}}")
        axes.plot(STREAMS, bare, color=line.get_color(), linestyle=":", linewidth=1)
    axes.set(title="characters a second; dotted: the bare loop", yscale="log")
    _by_streams(axes)


def _ratio(axes: Any, figures: Mapping[str, Figure]) -> None:
    for name in reversed(MODELS):
        axes.plot(STREAMS, _values(figures, f"streaming {name} {{}} / bare loop"), marker=".", label=name)
    axes.set(title="characters a second / those of the bare loop", ylim=(0, 1.1))
    _by_streams(axes)


def _by_streams(axes: Any) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(STREAMS, map(str, STREAMS))
    axes.set_xlabel("streams at once")
    axes.grid(alpha=0.3)
    axes.legend()


def _first_character(axes: Any, figures: Mapping[str, Figure]) -> None:
    """Medians of the rounds, with the range of the rounds."""
    rows = {
        f"{where}, {share}": figures[f"first character {where}, {share}"]
        for where in ("idle", f"beside {RUNNING}")
        for share in ("p50", "p99")
    }
    for name, figure in reversed(rows.items()):
        least, most = figure.value - min(figure.rounds), max(figure.rounds) - figure.value
        bars = axes.barh(name, figure.value, color=OURS, xerr=[[least], [most]], ecolor=THEIRS, capsize=3)
        axes.bar_label(bars, fmt="%.1f", padding=3)
    axes.set(title="from a call to its first character, c (LSTM 2x512)", xlabel="ms; whiskers: the rounds")
    axes.margins(x=0.15)
    axes.grid(alpha=0.3, axis="x")


def _memory(axes: Any, figures: Mapping[str, Figure]) -> None:
    """The memory of a stream and of a session, and the part of a stream that is gRPC's."""
    stream = figures["memory of the front for a stream"].value
    floor = figures["memory of gRPC alone for a stream"].value
    session = figures["memory of a new session"].value / 1e3
    axes.bar_label(axes.barh("new session of c", session, color=OURS), [f"{session:.1f}"], padding=3)
    bars = axes.barh("open stream", floor, color=THEIRS)
    axes.bar_label(bars, [f"gRPC {floor:.1f}"], label_type="center", color="white")
    bars = axes.barh("open stream", stream - floor, left=floor, color=OURS)
    axes.bar_label(bars, [f"ours {stream - floor:.1f}"], padding=3)
    axes.set(title="memory of one, in the front process", xlabel="KB", xlim=(0, 1.25 * stream))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.grid(alpha=0.3, axis="x")


def _values(figures: Mapping[str, Figure], name: str) -> list[float]:
    """Return a figure's medians by the number of streams."""
    return [figures[name.format(streams)].value for streams in STREAMS]
