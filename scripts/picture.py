"""The README's picture: a real conversation with a real server, recorded from a terminal, frame by frame.

Needs tmux. Run by `make picture`.
"""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from html import escape
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from rich.ansi import AnsiDecoder
from rich.console import Console
from rich.terminal_theme import SVG_EXPORT_THEME

from scripts.demo import running_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.segment import Segment
    from rich.text import Text

COLUMNS, LINES = 84, 38
CHAT = "elman chat --temperature 0.8 --seed 4"
LINES_TYPED = [CHAT, "ROMEO:", "/temp 0.5", "JULIET:", "/undo", "JULIET:", "/replay", "/quit"]
KEY_SECONDS = 0.05
QUIET_SECONDS = 0.8  # a prompt that stands for this time waits for the next line
PATIENCE = 60
PROMPTS = {"$", ">"}
PAUSE_SECONDS = 6  # at the end, before the picture begins again

CELL_WIDTH, CELL_HEIGHT, FONT_SIZE = 8.4, 19, 14  # pixels
MARGIN, TITLE_HEIGHT = 14, 34


@dataclass(frozen=True)
class Frame:
    """The screen at one moment.

    Attributes:
        seconds: since the recording began.
        lines: with their colours.
    """

    seconds: float
    lines: list[Text]

    @property
    def is_waiting(self) -> bool:
        """Whether the last line is an empty prompt."""
        written = [line.plain.strip() for line in self.lines if line.plain.strip()]
        return bool(written) and written[-1] in PROMPTS


def main() -> None:
    """Write the picture to the file that is named on the command line."""
    with running_server() as address:
        frames = record(address)
    Path(sys.argv[1]).write_text(to_svg(frames))


def record(address: str) -> list[Frame]:
    """Hold the conversation in a tmux of its own; return each change of its screen."""
    bin_folder = Path(sys.executable).parent
    size = ["-x", str(COLUMNS), "-y", str(LINES)]
    tmux("new-session", "-d", *size, f"PS1='$ ' PATH={bin_folder}:$PATH ELMAN_TARGET={address} sh")
    tmux("set", "-g", "status", "off")
    frames: list[Frame] = []
    start = time.monotonic()
    try:
        frames += changes(start)
        for line in LINES_TYPED:
            for key in line:
                tmux("send-keys", "-l", key)
                time.sleep(KEY_SECONDS)
                frames.append(frame(start))
            tmux("send-keys", "Enter")
            frames += changes(start)
    finally:
        tmux("kill-server")
    return frames


def changes(start: float) -> Iterator[Frame]:
    """Yield the screen whenever it changes, until it waits for the next line."""
    shown, since = frame(start), time.monotonic()
    yield shown
    deadline = since + PATIENCE
    while not shown.is_waiting or time.monotonic() < since + QUIET_SECONDS:
        if time.monotonic() > deadline:
            sys.exit("the command does not answer:\n" + "\n".join(line.plain for line in shown.lines))
        now = frame(start)
        if now.lines != shown.lines:
            shown, since = now, time.monotonic()
            yield now


def frame(start: float) -> Frame:
    """Return the screen as it is now."""
    lines = AnsiDecoder().decode(tmux("capture-pane", "-e", "-p"))
    return Frame(time.monotonic() - start, list(lines))


def tmux(*command: str) -> str:
    """Run a command of our own tmux."""
    return subprocess.run(["tmux", "-L", "elman-picture", *command], check=True, capture_output=True, text=True).stdout


def to_svg(frames: list[Frame]) -> str:
    """Return the last screen as a picture in which each line is uncovered when, and as far as, it was written."""
    seconds = frames[-1].seconds + PAUSE_SECONDS
    screen = list(frames[-1].lines)
    while not screen[-1].plain.strip():
        screen.pop()
    rows = [row(index, text, widths(frames, index, text.plain), seconds) for index, text in enumerate(screen)]
    width = 2 * MARGIN + COLUMNS * CELL_WIDTH
    height = TITLE_HEIGHT + len(screen) * CELL_HEIGHT + MARGIN
    theme = SVG_EXPORT_THEME
    dots = "".join(
        f'<circle cx="{18 + 20 * index}" cy="17" r="6" fill="{color}"/>'
        for index, color in enumerate(("#ff5f57", "#febc2e", "#28c840"))
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" role="img">\n'
        "<title>A conversation with the bundled model in elman chat</title>\n"
        f'<rect width="{width:g}" height="{height:g}" rx="8" fill="{theme.background_color.hex}"/>{dots}\n'
        f'<g font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, DejaVu Sans Mono, monospace" '
        f'font-size="{FONT_SIZE}" fill="{theme.foreground_color.hex}" xml:space="preserve">\n'
        f"{''.join(rows)}</g>\n</svg>\n"
    )


def widths(frames: list[Frame], index: int, final: str) -> list[tuple[float, int]]:
    """Return how many characters of a line's last text stood there, at each moment that changed it."""
    found = [(0.0, 0)]
    for shown in frames:
        line = shown.lines[index].plain if index < len(shown.lines) else ""
        pairs = zip(line, final, strict=False)
        width = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        if width != found[-1][1]:
            found.append((shown.seconds, width))
    return found


def row(index: int, text: Text, shown: list[tuple[float, int]], seconds: float) -> str:
    """Return one line and the rectangle that uncovers it."""
    if not text.plain.strip():
        return ""
    top = TITLE_HEIGHT + index * CELL_HEIGHT
    times = ";".join(f"{moment / seconds:.4f}" for moment, _ in shown)
    values = ";".join(f"{width * CELL_WIDTH:g}" for _, width in shown)
    return (
        f'<clipPath id="r{index}"><rect x="{MARGIN}" y="{top}" width="{len(text.plain) * CELL_WIDTH:g}" '
        f'height="{CELL_HEIGHT}"><animate attributeName="width" values="{values}" keyTimes="{times}" '
        f'calcMode="discrete" dur="{seconds:.2f}s" repeatCount="indefinite"/></rect></clipPath>\n'
        f'<g clip-path="url(#r{index})">{"".join(pieces(text, top + CELL_HEIGHT - 5))}</g>\n'
    )


def pieces(text: Text, baseline: float) -> Iterator[str]:
    """Yield the parts of a line that have one colour each."""
    column = 0
    for segment in text.render(Console(width=COLUMNS), end=""):
        part = segment.text
        if part.strip():
            yield (
                f'<text x="{MARGIN + column * CELL_WIDTH:g}" y="{baseline:g}" '
                f'textLength="{len(part) * CELL_WIDTH:g}"{attributes(segment)}>{escape(part)}</text>'
            )
        column += len(part)


def attributes(segment: Segment) -> str:
    """Return how a part of a line looks."""
    style = segment.style
    if style is None:
        return ""
    color = f' fill="{style.color.get_truecolor(SVG_EXPORT_THEME).hex}"' if style.color else ""
    return color + (' font-weight="bold"' if style.bold else "")


if __name__ == "__main__":
    main()
