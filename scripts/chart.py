"""The README's chart: 64 streams of Elman against a naive gRPC server, from the committed baseline.

Run by `make chart`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.baseline import read

STREAMS: Final = 64
MODELS: Final = {"b": "GRU 1x256", "c": "LSTM 2x512", "c-int8": "LSTM 2x512, int8"}  # the naive server has no int8
WIDTH, HEIGHT, BAR, LEFT, SCALE = 640, 210, 16, 150, 310  # pixels
OURS, THEIRS = "#1f77b4", "#999999"


class Pair(NamedTuple):
    """Characters a second of one model on both servers."""

    model: str
    naive: float
    ours: float


def main() -> None:
    """Write the chart to the file that is named on the command line."""
    Path(sys.argv[1]).write_text(chart(pairs()), encoding="utf-8")


def pairs() -> list[Pair]:
    """Return what the baseline has; the ratio is a median of rounds, so ours is the naive figure times that."""
    figures = read()
    found = []
    for name, label in MODELS.items():
        naive = figures[f"naive server {name} {STREAMS}"].value
        found.append(Pair(label, naive, naive * figures[f"{name} {STREAMS} / naive server"].value))
    return found


def chart(rows: list[Pair]) -> str:
    """Return an SVG that is the same bytes for the same figures."""
    most = max(row.ours for row in rows)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        '<g font-size="13">',
        f'<text x="10" y="22" font-weight="bold">Characters a second, {STREAMS} streams, 2 cores</text>',
    ]
    top = 40
    for row in rows:
        lines.append(f'<text x="10" y="{top + BAR + 4}">{row.model}</text>')
        for name, value, colour in (("Elman", row.ours, OURS), ("naive", row.naive, THEIRS)):
            width = value / most * SCALE
            note = f"{name} {value:,.0f}" + (f" ({row.ours / row.naive:.0f} times)" if name == "Elman" else "")
            lines += [
                f'<rect x="{LEFT}" y="{top}" width="{width:.1f}" height="{BAR}" fill="{colour}"/>',
                f'<text x="{LEFT + width + 6:.1f}" y="{top + 13}">{note}</text>',
            ]
            top += BAR + 2
        top += 14
    note = "The naive server runs float32 in every row."
    lines.append(f'</g><text x="10" y="{top + 6}" font-size="11" fill="#555555">{note}</text>')
    return "\n".join([*lines, "</svg>"]) + "\n"


if __name__ == "__main__":
    main()
