"""Ctrl-C again and again, in a program and in a chat, on any server. Each text is exact, none hangs.

``python -m tests.client.interrupted TARGET COUNT program SECONDS``: a loop of turns, interrupted that many times, each
time after at most SECONDS. ``python -m tests.client.interrupted TARGET COUNT chat``: `elman chat` on a terminal.
"""

import faulthandler
import random
import re
import signal
import sys
from itertools import zip_longest

from elman_client import Client, Session
from tests.client.processes import Terminal

_CTRL_C, _CTRL_D = "\x03", "\x04"
_NOT_TEXT = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\^C")
_LINE_BEGINS, _LINE_IS_READ = r"\x1b\[\?2004h", r"\x1b\[\?2004l"  # a terminal is asked to mark pasted text, and not
_MAX_CHARS = 40


def interrupt_program(target: str, count: int, seconds: float) -> None:
    """Interrupt ``count`` turns, each after at most ``seconds``; fail at a text that is not the session's."""
    faulthandler.dump_traceback_later(80 + count, exit=True)
    signal.signal(signal.SIGALRM, signal.default_int_handler)  # raises KeyboardInterrupt, as Ctrl-C does
    caught, texts = 0, list[str]()
    with Client(target) as client:
        session = client.create_session(client.list_models()[0].name)
        for _ in range(count):
            try:
                # Python loses an interrupt that comes in an object's __del__, say: another one follows a second later.
                signal.setitimer(signal.ITIMER_REAL, random.uniform(0.001, seconds), 1)
                while True:
                    _take_turn(session, texts)
            except KeyboardInterrupt:
                signal.setitimer(signal.ITIMER_REAL, 0)
                caught += 1
        _take_turn(session, texts)
        assert session.transcript().text == "".join("a" + text for text in texts if text)
        assert all(turn.is_equal for turn in session.replay())
    sys.stdout.write(f"{caught}\n")


def _take_turn(session: Session, texts: list[str]) -> None:
    text, generation = "", session.generate("a", max_chars=_MAX_CHARS, timeout=20)
    try:
        for piece in generation:
            text += piece
    finally:
        # An interrupt comes after a call, not before it: also this one of an interrupt that comes here.
        texts.append(text)


def interrupt_chat(terminal: Terminal, count: int) -> list[str]:
    """Press Ctrl-C before, at the beginning of and within answers; return those that were shown, without line ends."""
    terminal.expect("> ")
    for number in range(count):
        terminal.type("ab\r")
        terminal.expect(["b", _LINE_IS_READ, _LINE_IS_READ + ".{4}"][number % 3])
        terminal.type(_CTRL_C)
        if "^C" not in terminal.expect(
            rf"\[stopped\]|leaves|\^C[^\x1b]*{_LINE_BEGINS}"
        ):  # else the answer ended before it
            terminal.expect(_LINE_BEGINS)
    terminal.type(_CTRL_D)
    assert terminal.wait() == 0
    shown = [part.partition("\x1b[?2004h")[0] for part in terminal.seen.split("\x1b[?2004l")[1:]]
    answers = [_NOT_TEXT.sub("", part).rstrip("\n").removesuffix(" [stopped]").rstrip("\n") for part in shown]
    return [answer for answer in answers if answer and not answer.startswith(("Ctrl-D leaves", "The session stays"))]


def main(target: str, count: int, what: str, seconds: float = 0.02) -> None:
    """Interrupt a program or a chat."""
    if what == "program":
        interrupt_program(target, count, seconds)
        return
    with Client(target) as client:
        session = client.create_session(client.list_models()[0].name)
        with Terminal(target, "chat", "--session", session.name, "--max-chars=400", "--stop=?") as terminal:
            answers = interrupt_chat(terminal, count)
        turns, text = session.transcript().turns, session.transcript().text
        kept = [text[turn.prompt_end : turn.end].rstrip("\n") for turn in turns]
        for number, (expected, actual) in enumerate(zip_longest(kept, answers)):
            assert actual == expected, f"answer {number}: shown {actual!r}, kept {expected!r}"
        assert all(turn.is_equal for turn in session.replay())
    sys.stdout.write(f"{len(answers)} answers, all exact\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], *map(float, sys.argv[4:]))
