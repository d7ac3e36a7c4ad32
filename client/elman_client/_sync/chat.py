"""Turns in, characters out, on one stream."""

from collections.abc import Callable, Iterator
from threading import Lock
from types import TracebackType
from typing import Self, Unpack

from elman_client._errors import ElmanError
from elman_client._shared import turns
from elman_client._shared.talking import Talking
from elman_client._sync.generation import Leave
from elman_client._sync.transport import Talk
from elman_client._types import Event, GenerateOptions


class ChatRun:
    """A chat's stream and its turns. It outlives a chat that is dropped, and ends its turn then."""

    def __init__(self, session: str, open_stream: Callable[[], Talk[tuple[Event, ...]]], leave: Leave) -> None:
        self.talking = Talking(session)
        self._open_stream = open_stream
        self._opening = Lock()
        self._leave = leave
        self._talk: Talk[tuple[Event, ...]] | None = None

    @property
    def is_left(self) -> bool:
        """Whether its caller has left it."""
        return self.talking.is_left

    def talk(self) -> Talk[tuple[Event, ...]]:
        """Return the stream, opened if it is not."""
        self.talking.check_open()
        with self._opening:
            if self._talk is None:
                self._talk = self._open_stream()
            if self.talking.is_left:  # by a thread that found no stream: this one must not begin
                self._talk.cancel()
            self.talking.check_open()
            return self._talk

    def read(self) -> Event | None:
        """Return the event after the one that was taken; ``None``: there is none."""
        while not self.talking.is_left:
            if (event := self.talking.next_event()) is not None:
                return event
            try:
                answer = self.talk().read()
            except ElmanError:
                if self.talking.is_left:  # another thread closed it: the iteration just ends
                    break
                raise
            if answer is None:
                break
            self.talking.receive(answer)
        return None

    def close(self) -> None:
        """End the running turn and the stream."""
        if self.talking.is_reported:
            return
        self.talking.is_left = True
        if self._talk is not None:
            if self.talking.is_running:
                self._leave(self.talking.left, self._talk)
            else:
                self._talk.cancel()
        self.talking.is_reported = True  # last: an interrupted close is done again


class Chat:
    """A conversation on one stream: say something, and read what follows; say more whenever you like.

    What is said while a turn runs ends that turn, which is then Finished as CANCELLED. A stream that is lost is an
    error: rerun the turn with ``Session.resume`` or ``generate``, which continue by themselves. The chat's ``timeout``
    counts from the first call that sends or reads.
    """

    def __init__(self, run: ChatRun) -> None:
        self._run = run

    def say(self, prompt: str = "", **options: Unpack[GenerateOptions]) -> None:
        """Begin a turn; see :class:`GenerateOptions`. Its ``timeout`` is the chat's."""
        message = self._run.talking.say(prompt, options)
        self._run.talk().send(message)

    def stop(self) -> None:
        """End the running turn, if any. What was delivered stays in the session."""
        self._run.talk().send(turns.STOP)

    def end(self) -> None:
        """Say that no more will be said; the running turn finishes."""
        self._run.talk().end()

    def events(self) -> Iterator[Event]:
        """Iterate over the events of all turns: for each Started, Chunks and Finished."""
        talking = self._run.talking
        while (event := self._run.read()) is not None:
            if talking.is_left:
                return
            talking.taken = event
            yield event

    def close(self) -> None:
        """Leave the chat; the running turn ends here. The session keeps the text that you have."""
        self._run.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
