"""What type checkers see of the client: mypy reads this file, nothing runs it."""

from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from typing import assert_type

from elman_client import (
    Appended,
    AsyncChat,
    AsyncClient,
    AsyncGeneration,
    AsyncSession,
    Chat,
    Client,
    ElmanError,
    Encoding,
    Event,
    Finished,
    FinishReason,
    Generation,
    Model,
    OutOfRangeError,
    ReplayedTurn,
    Score,
    Session,
    SessionInfo,
    Started,
    Transcript,
)


def blocking(client: Client) -> None:
    """Pin what the blocking client returns."""
    with client as entered:
        assert_type(entered, Client)
    session = client.create_session(model="shakespeare", seed=7)
    assert_type(session, Session)
    assert_type(client.session("x"), Session)
    assert_type(client.get_session("x"), Session)
    assert_type(client.list_sessions(), Iterator[Session])
    assert_type(client.list_models(), tuple[Model, ...])
    assert_type(client.encode_text("m", "t"), Encoding)
    assert_type(client.is_serving(), bool)
    assert_type(client.score("t", model="m"), Score)
    assert_type(session.info, SessionInfo)
    assert_type(session.info.expire_time, datetime)
    assert_type(session.append("x"), Appended)
    assert_type(session.cancel(), SessionInfo)
    assert_type(session.transcript(), Transcript)
    assert_type(session.update(labels={"a": "b"}), SessionInfo)
    assert_type(session.fork(3, count=2), tuple[Session, ...])
    assert_type(session.rewind(3), SessionInfo)
    assert_type(session.export(), bytes)
    assert_type(client.import_session(b""), Session)
    assert_type(session.replay(), Iterator[ReplayedTurn])
    assert_type(session.resume("id", 3), Generation)
    assert_type(session.chat(), Chat)
    assert_type(session.chat().events(), Iterator[Event])
    generation = session.generate("x", temperature=0.8, max_chars=200, stop_strings=["\n"])
    assert_type(generation, Generation)
    assert_type(next(generation), str)
    assert_type(generation.events(), Iterator[Event])
    assert_type(generation.started, Started)
    assert_type(generation.finished, Finished)
    assert_type(generation.finished.finish_reason, FinishReason)
    session.generate("x", temperature="hot")  # type: ignore[arg-type] # checked to be an error
    session.generate("x", temprature=1)  # type: ignore[call-arg] # checked to be an error


async def asynchronous(client: AsyncClient) -> None:
    """Pin what the asyncio client returns."""
    async with client as entered:
        assert_type(entered, AsyncClient)
    session = await client.create_session(model="shakespeare", seed=7)
    assert_type(session, AsyncSession)
    assert_type(client.session("x"), AsyncSession)
    assert_type(await client.get_session("x"), AsyncSession)
    assert_type(client.list_sessions(), AsyncIterator[AsyncSession])
    assert_type(await client.list_models(), tuple[Model, ...])
    assert_type(await client.encode_text("m", "t"), Encoding)
    assert_type(await client.is_serving(), bool)
    assert_type(await client.score("t", model="m"), Score)
    assert_type(session.info, SessionInfo)
    assert_type(await session.append("x"), Appended)
    assert_type(await session.cancel(), SessionInfo)
    assert_type(await session.transcript(), Transcript)
    assert_type(await session.fork(3, count=2), tuple[AsyncSession, ...])
    assert_type(await session.rewind(3), SessionInfo)
    assert_type(await session.export(), bytes)
    assert_type(await client.import_session(b""), AsyncSession)
    assert_type(session.replay(), AsyncIterator[ReplayedTurn])
    assert_type(session.resume("id", 3), AsyncGeneration)
    assert_type(session.chat(), AsyncChat)
    generation = session.generate("x", temperature=0.8, max_chars=200, stop_strings=["\n"])
    assert_type(generation, AsyncGeneration)
    assert_type(await anext(generation), str)
    assert_type(generation.events(), AsyncIterator[Event])
    assert_type(generation.finished, Finished)


def errors(error: ElmanError, out_of_range: OutOfRangeError) -> None:
    """Pin what errors carry."""
    assert_type(error.retry_after, float | None)
    assert_type(error.code, str)
    assert_type(out_of_range.valid_range, tuple[int, int] | None)
