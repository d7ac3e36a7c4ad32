"""The canary: somebody else's turns while the server is attacked."""

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

import grpc

from elman.v1 import generation_pb2 as messages
from elman.v1.generation_pb2_grpc import GenerationServiceStub
from elman.v1.sampling_pb2 import Sampling

PROMPT: Final = "What is the city but the people?\n"
_CHARS: Final = 300
_PAUSE_SECONDS: Final = 0.02
_PATIENCE: Final = 100


class Canary:
    """Runs one turn after another in a thread, and compares each with the first, which ran before the attack.

    Args:
        address: of the server.
        model: whose text it is.
        work: returns how long the server has computed, in seconds.

    Attributes:
        num_turns: how many were equal.
        longest_gap: seconds between a request or an answer and the next answer, at most.
        longest_work: how long the server computed between them, at most: what other processes do does not count.
    """

    def __init__(self, address: str, model: str = "gru", work: Callable[[], float] = lambda: 0.0) -> None:
        self._work = work
        # A connection and a window of its own.
        self._channel = grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])
        self._stub = GenerationServiceStub(self._channel)
        self._request = messages.GenerateRequest(
            model=f"models/{model}",
            prompt=PROMPT,
            sampling=Sampling(seed=7),
            stopping=messages.Stopping(max_chars=_CHARS),
        )
        self._is_over = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.num_turns, self.longest_gap, self.longest_work = 0, 0.0, 0.0

    def __enter__(self) -> Self:
        self._expected = self._turn()
        assert len(self._expected) == _CHARS
        self.longest_gap = self.longest_work = 0.0
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._thread.join(_PATIENCE)
        self._channel.close()
        if self._error is not None:
            raise self._error
        assert self.num_turns

    def _run(self) -> None:
        try:
            while not self._is_over.is_set() or not self.num_turns:
                text = self._turn()
                assert text == self._expected, f"{text!r} is not {self._expected!r}"
                self.num_turns += 1
                time.sleep(_PAUSE_SECONDS)
        except BaseException as error:  # noqa: BLE001  raised where the canary is left
            self._error = error

    def _turn(self) -> str:
        text, last, done = "", time.monotonic(), self._work()
        for response in self._stub.Generate(self._request, timeout=_PATIENCE):
            now, work = time.monotonic(), self._work()
            self.longest_gap, last = max(self.longest_gap, now - last), now
            self.longest_work, done = max(self.longest_work, work - done), work
            text += response.chunk.text
        return text
