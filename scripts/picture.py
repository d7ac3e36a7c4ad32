"""The README's picture: a real conversation with a real server, as a terminal shows it.

Needs tmux. Run by `make picture`.
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.text import Text

from scripts.demo import running_server

COLUMNS, LINES = 84, 34
KEYS = ["ROMEO:", "/temp 0.5", "JULIET:", "/info"]
CHAT = "elman chat --temperature 0.8 --max-chars 250 --seed 7"
QUIET_SECONDS = 0.5  # so long has the terminal to rest before it is read
PATIENCE = 60


def main() -> None:
    """Write the picture to the file that is named on the command line."""
    with running_server() as address:
        screen = conversation(address)
    console = Console(record=True, width=COLUMNS, file=io.StringIO())
    console.print(Text.from_ansi(screen))
    svg = console.export_svg(title="elman chat")
    # The reader's own font: a picture that is looked at calls nobody.
    Path(sys.argv[1]).write_text(re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL))


def conversation(address: str) -> str:
    """Hold the conversation in a tmux of its own; return its screen."""
    bin_folder = Path(sys.executable).parent
    size = ["-x", str(COLUMNS), "-y", str(LINES)]
    tmux("new-session", "-d", *size, f"PS1='$ ' PATH={bin_folder}:$PATH ELMAN_TARGET={address} sh")
    try:
        for line in [CHAT, *KEYS]:
            tmux("send-keys", line, "Enter")
            screen = screen_at_rest()
        return screen
    finally:
        tmux("kill-server")


def screen_at_rest() -> str:
    """Return the screen once nothing moves on it."""
    screen, since = "", time.monotonic()
    deadline = since + PATIENCE
    while time.monotonic() < min(deadline, since + QUIET_SECONDS):
        now = tmux("capture-pane", "-e", "-p")
        if now != screen:
            screen, since = now, time.monotonic()
        time.sleep(QUIET_SECONDS / 10)
    return screen.rstrip("\n")


def tmux(*command: str) -> str:
    """Run a command of our own tmux."""
    return subprocess.run(["tmux", "-L", "elman-picture", *command], check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    main()
