"""Numbers as colours of a terminal: true colours, the 256 of older ones, or none."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import Final

_WHITE: Final = (255, 255, 255)
_RED: Final = (214, 47, 39)
_BLUE: Final = (33, 102, 172)
_BLACK_INK, _WHITE_INK = 30, 97
_LIGHT: Final = 1150  # of 2550, weighted as the eye does
_CUBE: Final = 5  # steps of each primary colour in the 256
_RESET: Final = "\x1b[0m"
_HALF: Final = "▀"

Color = tuple[int, int, int]


@dataclass(frozen=True)
class Painter:
    """Writes text on colours.

    Attributes:
        has_true_colors: The terminal has all colours; else 256.
    """

    has_true_colors: bool

    def on(self, text: str, color: Color) -> str:
        """Return a text on a colour: black where that is light, else white."""
        red, green, blue = color
        ink = _BLACK_INK if 3 * red + 6 * green + blue > _LIGHT else _WHITE_INK
        return f"\x1b[{ink};{self._code(48, color)}m{text}{_RESET}"

    def half_blocks(self, upper: Color, lower: Color | None) -> str:
        """Return one cell with a colour in its upper and one in its lower half; none: the terminal's own."""
        below = "" if lower is None else f";{self._code(48, lower)}"
        return f"\x1b[{self._code(38, upper)}{below}m{_HALF}{_RESET}"

    def _code(self, layer: int, color: Color) -> str:
        red, green, blue = color
        if self.has_true_colors:
            return f"{layer};2;{red};{green};{blue}"
        steps = [round(part / 255 * _CUBE) for part in (red, green, blue)]
        return f"{layer};5;{16 + 36 * steps[0] + 6 * steps[1] + steps[2]}"


def choose_painter() -> Painter | None:
    """Return what standard output can show; ``None``: no colours."""
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return None
    return Painter(os.environ.get("COLORTERM", "").lower() in {"truecolor", "24bit"})


def signed(value: float) -> Color:
    """Return blue for -1, white for 0, red for +1, and what lies between."""
    size = min(abs(value), 1.0)
    return _mixed(_BLUE if value < 0 else _RED, size)


def part(value: float) -> Color:
    """Return white for 0, red for 1, and what lies between."""
    return _mixed(_RED, min(max(value, 0.0), 1.0))


def _mixed(color: Color, size: float) -> Color:
    red, green, blue = (round(white + size * (full - white)) for white, full in zip(_WHITE, color, strict=True))
    return red, green, blue
