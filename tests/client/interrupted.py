"""A program whose user presses Ctrl-C again and again: turn after turn, until each is interrupted.

``python -m tests.client.interrupted TARGET COUNT SECONDS``: that many interrupts, each after at most that time.
It writes how many of them it caught, and fails at a text that is not the server's.
"""

import faulthandler
import random
import signal
import sys

from elman_client import Client, Session
from tests.client.fake_memory import drawn

_MAX_CHARS = 40


def main(target: str, count: int, seconds: float) -> None:
    """Interrupt ``count`` times."""
    faulthandler.dump_traceback_later(80, exit=True)
    signal.signal(signal.SIGALRM, signal.default_int_handler)  # raises KeyboardInterrupt, as Ctrl-C does
    caught = 0
    with Client(target) as client:
        session = client.create_session("shakespeare", session_id="mine")
        for _ in range(count):
            try:
                # Python loses an interrupt that comes in an object's __del__, say: another one follows a second later.
                signal.setitimer(signal.ITIMER_REAL, random.uniform(0.001, seconds), 1)
                while True:
                    _take_turn(session)
            except KeyboardInterrupt:
                caught += 1
        _take_turn(session)
    sys.stdout.write(f"{caught}\n")


def _take_turn(session: Session) -> None:
    text, generation = "", session.generate("a", max_chars=_MAX_CHARS, timeout=20)
    try:
        for piece in generation:
            text += piece
    finally:
        # Looked at without a call in between: this is the finally of an interrupt, too.
        position = generation._turn.position
        if position:
            start = position - len(text)
            assert text == "".join(map(drawn, range(start, position)))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
