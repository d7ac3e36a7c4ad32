"""A client of one server."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self, Unpack

import grpc

from elman_client._errors import DeadlineExceededError, UnavailableError
from elman_client._shared import inspection, models, sessions, turns
from elman_client._shared.connection import Connection
from elman_client._shared.leaving import Left
from elman_client._shared.names import model_name, session_name
from elman_client._shared.retrying import Attempts
from elman_client._shared.turn import Turn
from elman_client._sync.generation import Generation, TurnRun
from elman_client._sync.session import Session
from elman_client._sync.transport import Stream, Transport
from elman_client._types import (
    Encoding,
    Event,
    ExplainedStep,
    FoundUnits,
    GenerateOptions,
    Model,
    Score,
    StateChunk,
    StateDescription,
    TextProperty,
    Units,
    UnknownPolicy,
    Weights,
)


class Client:
    """A server's models and sessions, with blocking calls. Threads may share it.

    Every method takes ``timeout`` in seconds (default: the client's) and raises
    :class:`ElmanError`. Names are good with and without their ``models/`` or ``sessions/``.

    Args:
        target: Where the server listens, such as ``localhost:50051``.
        tls: Encrypt, and check the server's certificate.
        root_certificates: PEM file to check it against; default: gRPC's own.
        certificate: PEM file of the client's own certificate chain, for servers that ask for one.
        key: PEM file of that certificate's private key.
        credentials: gRPC channel credentials, for what ``tls`` does not cover.
        token: Sent with every call as ``authorization: Bearer``; or a function that returns it, called before
            each call. Without ``tls`` it goes to this machine only.
        metadata: Headers of every call; the names are in lower case.
        timeout: Seconds for every call that sets none, from the call that waits; default: no deadline.
        retry_seconds: How many seconds to wait for a lost server that has answered before:
            generations continue, and calls that are safe to repeat are repeated. It counts from the
            moment that the loss is noticed, at most 20 seconds after it; 0: never.
    """

    def __init__(
        self,
        target: str,
        *,
        tls: bool = False,
        root_certificates: str | Path | None = None,
        certificate: str | Path | None = None,
        key: str | Path | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        token: str | Callable[[], str] | None = None,
        metadata: Mapping[str, str] | None = None,
        timeout: float | None = None,
        retry_seconds: float = 30.0,
    ) -> None:
        self._transport = Transport(
            Connection(
                target,
                tls=tls,
                root_certificates=root_certificates,
                certificate=certificate,
                key=key,
                credentials=credentials,
                token=token,
                metadata=metadata,
                timeout=timeout,
                retry_seconds=retry_seconds,
            )
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; running calls are cancelled, sessions stay with the server."""
        self._transport.close()

    def is_serving(self, service: str = "", *, timeout: float | None = None) -> bool:
        """Return whether the server (or one of its services) is up and ready."""
        try:
            return self._transport.run(models.is_serving(service), timeout)
        except (UnavailableError, DeadlineExceededError):
            return False

    def list_models(self, *, timeout: float | None = None) -> tuple[Model, ...]:
        """Return every served model, in name order."""
        found: tuple[Model, ...] = ()
        token = ""
        while True:
            page, token = self._transport.run(models.page(token), timeout)
            found += page
            if not token:
                return found

    def get_model(self, name: str, *, timeout: float | None = None) -> Model:
        """Return one model."""
        return self._transport.run(models.get(name), timeout)

    def encode_text(self, model: str, text: str, *, timeout: float | None = None) -> Encoding:
        """Return the ids of a text's characters, and the characters outside the vocabulary."""
        return self._transport.run(models.encode_text(model, text), timeout)

    def create_session(
        self,
        model: str,
        *,
        session_id: str | None = None,
        seed: int | None = None,
        ttl: timedelta | None = None,
        expire_time: datetime | None = None,
        labels: Mapping[str, str] | None = None,
        initial_state: str | None = None,
        timeout: float | None = None,
    ) -> Session:
        """Create a session at position 0 of a model.

        Args:
            model: Its name, or ``{model}/versions/{version}``.
            session_id: The last part of the name; default: a UUID.
            seed: Used by turns that set none; default: the server picks one.
            ttl: Idle time after which it expires.
            expire_time: Or the moment at which it expires.
            labels: Your own, at most 16.
            initial_state: One of the model's ``initial_states``; default: ``default``.
            timeout: Seconds for this call.
        """
        operation = sessions.create(
            model=model,
            session_id=session_id,
            seed=seed,
            ttl=ttl,
            expire_time=expire_time,
            labels=labels,
            initial_state=initial_state,
        )
        info = self._transport.run(operation, timeout)
        return Session(self._transport, info.name, info)

    def session(self, name: str) -> Session:
        """Return the session of that name without a call."""
        return Session(self._transport, session_name(name))

    def get_session(self, name: str, *, timeout: float | None = None) -> Session:
        """Return the session of that name, refreshed."""
        session = self.session(name)
        session.refresh(timeout=timeout)
        return session

    def list_sessions(
        self,
        filter: str = "",  # noqa: A002 - the contract's word
        *,
        page_size: int = 0,
        timeout: float | None = None,
    ) -> Iterator[Session]:
        """Iterate over the sessions in name order, as pages come in.

        Args:
            filter: Terms joined by AND: ``model = "models/x"``, ``labels.key = "value"``.
            page_size: Most sessions of one answer; 0: the server's default.
            timeout: Seconds for each page.
        """
        token = ""
        while True:
            page, token = self._transport.run(sessions.page(filter, page_size, token), timeout)
            for info in page:
                yield Session(self._transport, info.name, info)
            if not token:
                return

    def import_session(
        self, snapshot: bytes, *, session_id: str | None = None, timeout: float | None = None
    ) -> Session:
        """Create a session from what ``Session.export`` returned; ``session_id`` as in ``create_session``."""
        info = self._transport.run(sessions.import_(snapshot, session_id), timeout)
        return Session(self._transport, info.name, info)

    def generate(self, prompt: str, *, model: str, **options: Unpack[GenerateOptions]) -> Generation:
        """Generate text from a model's initial state and keep nothing; see :class:`GenerateOptions`."""
        asked = turns.Asked(prompt, options, model=model_name(model))
        turn = Turn(asked, Attempts(self._transport.connection, options.get("timeout"), is_safe=True))

        def open_stream() -> Stream[tuple[Event, ...]]:
            turn.begin()
            return self._transport.open(turn.operation(), turn.time_left)

        generation = Generation(run := TurnRun(turn, open_stream, _leave))
        run.on_finished = self._transport.close_with(generation, "", run)
        return generation

    def score(
        self,
        text: str,
        *,
        model: str,
        top_n: int | None = None,
        read_out: str | None = None,
        unknown_characters: UnknownPolicy | None = None,
        timeout: float | None = None,
    ) -> Score:
        """Return how likely ``text`` is from a model's initial state.

        ``read_out`` is the name of one of the model's: its labels are then returned for each character. A model
        whose output is labels returns those.
        """
        operation = turns.score(
            text, top_n=top_n, read_out=read_out, unknown_characters=unknown_characters, model=model_name(model)
        )
        return self._transport.run(operation, timeout)

    def watch(
        self,
        text: str,
        *,
        model: str,
        units: Sequence[Units] = (),
        start: int = 0,
        end: int | None = None,
        num_changed: int = 0,
        unknown_characters: UnknownPolicy | None = None,
        timeout: float | None = None,
    ) -> Iterator[StateChunk]:
        """Let the server read ``text`` from a model's initial state; iterate over the values of units.

        Args:
            text: What is read.
            model: Its name.
            units: Which units to show, as in ``[Units(Signal.H, 0)]``; at most 8192 in all.
            start: The first position to show.
            end: One past the last one; ``None``: to the end.
            num_changed: Add for each character the units of h and c that changed most, 0 to 64.
            unknown_characters: What to do with characters of the text outside the vocabulary.
            timeout: Seconds for this call.
        """
        operation = inspection.watch(
            text,
            units=units,
            start=start,
            end=end,
            num_changed=num_changed,
            unknown_characters=unknown_characters,
            model=model_name(model),
        )
        yield from self._transport.follow(operation, timeout)

    def explain(
        self,
        text: str,
        *,
        model: str,
        position: int | None = None,
        temperature: float | None = None,
        num_candidates: int = 5,
        num_contributions: int = 10,
        unknown_characters: UnknownPolicy | None = None,
        timeout: float | None = None,
    ) -> ExplainedStep:
        """Return every term of the step that reads one character of ``text`` from a model's initial state.

        Args:
            text: What is read.
            model: Its name.
            position: The character's; ``None``: the last one.
            temperature: Divides the logits before the softmax; default 1.
            num_candidates: For how many of the likeliest next characters to return contributions, 0 to 20.
            num_contributions: How many units to return for each of them, 0 to 64.
            unknown_characters: What to do with characters of the text outside the vocabulary.
            timeout: Seconds for this call.
        """
        operation = inspection.explain(
            text,
            position=position,
            temperature=temperature,
            num_candidates=num_candidates,
            num_contributions=num_contributions,
            unknown_characters=unknown_characters,
            model=model_name(model),
        )
        return self._transport.run(operation, timeout)

    def find_units(
        self,
        text: str,
        *,
        model: str,
        pattern: str | None = None,
        text_property: TextProperty | None = None,
        positions: Iterable[int] | None = None,
        start: int = 0,
        end: int | None = None,
        num_units: int = 10,
        unknown_characters: UnknownPolicy | None = None,
        timeout: float | None = None,
    ) -> FoundUnits:
        """Return the units of the state that follow a labelling of ``text`` from a model's initial state best.

        Args:
            text: What is read.
            model: Its name.
            pattern: A regular expression (RE2): what it matches is labelled 1, the rest 0.
            text_property: Or a property that is computed from the text.
            positions: Or the positions that are labelled 1.
            start: The first position that counts.
            end: One past the last one; ``None``: to the end.
            num_units: How many units to return, 1 to 100.
            unknown_characters: What to do with characters of the text outside the vocabulary.
            timeout: Seconds for this call.
        """
        operation = inspection.find_units(
            text,
            pattern=pattern,
            text_property=text_property,
            positions=positions,
            start=start,
            end=end,
            num_units=num_units,
            unknown_characters=unknown_characters,
            model=model_name(model),
        )
        return self._transport.run(operation, timeout)

    def describe_state(self, model: str, *, timeout: float | None = None) -> StateDescription:
        """Return which signals of a model ``watch`` can show, and whether its gates are known."""
        return self._transport.run(inspection.describe(model), timeout)

    def weights(self, model: str, *, timeout: float | None = None) -> Weights:
        """Return the weights of a small model whose cell is known: at most a million numbers."""
        return self._transport.run(inspection.weights(model), timeout)


def _leave(_left: Left, stream: Stream[tuple[Event, ...]] | None) -> None:
    if stream is not None:  # the server keeps nothing of the turn
        stream.cancel()
