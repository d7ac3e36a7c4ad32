"""The text that a chat is to a network that has only read plays: a speaker, what is said, an empty line."""

from collections.abc import Sequence
from typing import Final

from elman_web.dialect.requests import ChatMessage

END: Final = "\n\n"
"""What ends a message; a chat stops there, and the next message puts it before itself."""

_SPEAKERS: Final = {"system": "", "developer": "", "user": "USER", "assistant": "ASSISTANT"}


def prompt(messages: Sequence[ChatMessage], *, continues: bool) -> str:
    """Return what the network reads before it answers.

    Args:
        messages: The conversation, or with `continues` all of it: what is up to the assistant's last message was read.
        continues: A session goes before, which has not read the end of its last message.
    """
    if continues:
        last = max((index for index, each in enumerate(messages) if each.role == "assistant"), default=-1)
        messages = messages[last + 1 :]
    said = "".join(_heading(each.name or _SPEAKERS[each.role]) + each.text + END for each in messages)
    return (END if continues else "") + said + _heading(_answerer(messages))


def _heading(speaker: str) -> str:
    return f"{speaker}:\n" if speaker else ""


def _answerer(messages: Sequence[ChatMessage]) -> str:
    """Return the name under which the assistant spoke, if it has one."""
    names = [each.name for each in messages if each.role == "assistant" and each.name]
    return names[-1] if names else _SPEAKERS["assistant"]
