"""A small honest server: sessions in a dictionary, a model that counts.

Its model draws the letters of the alphabet in turn, from the session's position on. It exists so
that the client can be tested without a network, weights or an engine.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RequestInfo, RetryInfo
from google.rpc.status_pb2 import Status

from elman.v1 import generation_pb2, generation_pb2_grpc, model_pb2, model_pb2_grpc, session_pb2, session_pb2_grpc
from tests.client.fake_memory import LIMITS, LOG_PROBABILITY, MOOD, VOCABULARY, SessionState, detailed, drawn


def packed_status(code: grpc.StatusCode, message: str, *details: Message) -> bytes:
    """Return an encoded google.rpc.Status."""
    packed = [AnyMessage() for _ in details]
    for into, detail in zip(packed, details, strict=True):
        into.Pack(detail)
    status = Status(code=code.value[0], message=message, details=packed)
    encoded: bytes = status.SerializeToString()
    return encoded


class Servicer(
    model_pb2_grpc.ModelServiceServicer,
    session_pb2_grpc.SessionServiceServicer,
    generation_pb2_grpc.GenerationServiceServicer,
):
    """All three services over one dictionary."""

    def __init__(self, models: tuple[str, ...]) -> None:
        self.models = {
            f"models/{name}": model_pb2.Model(
                name=f"models/{name}",
                version="1",
                cell=model_pb2.CELL_LSTM,
                layer_count=2,
                hidden_size=8,
                vocabulary=map(ord, VOCABULARY),
                digest="d" * 64,
                limits=LIMITS,
                read_outs=[model_pb2.ReadOut(name="mood", labels=MOOD, accuracy=0.9, held_out_count=10)],
                initial_states=["default", "juliet"],
            )
            for name in models
        }
        self.memories: dict[str, SessionState] = {}
        self.models_on_a_page = 100
        self.imported_fingerprint = ""
        self.headers: list[dict[str, str]] = []
        self.failure: tuple[grpc.StatusCode, str, bytes] | None = None
        self.seconds_per_chunk = 0.0
        self.seconds_to_settle = 0.0
        self.cuts: list[grpc.StatusCode | None] = []  # how the next streams break after a chunk; None: drained
        self.breaks_at_end = False  # streams break between the last event and their status
        self.forgets = False  # the next turn that breaks is kept by nobody
        self.grows = False  # and its session goes on
        self.difference_at: int | None = None  # what a replay finds

    async def _begin(self, context: Any) -> None:
        self.headers.append(dict(context.invocation_metadata()))
        if self.failure:
            code, message, details = self.failure
            trailers = (("grpc-status-details-bin", details),) if details else ()
            await context.abort(code, message, trailers)

    async def _refuse(
        self, context: Any, code: grpc.StatusCode, reason: str, message: str, *details: Message, **metadata: str
    ) -> None:
        info = ErrorInfo(reason=reason, domain="elman-server.github.io", metadata=metadata)
        status = packed_status(code, message, info, RequestInfo(request_id="theirs"), *details)
        await context.abort(code, message, (("grpc-status-details-bin", status),))

    async def _memory(self, context: Any, name: str) -> SessionState:
        if name not in self.memories:
            message = f"there is no {name}: create a session"
            await self._refuse(context, grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND", message)
        return self.memories[name]

    async def _model(self, context: Any, name: str) -> model_pb2.Model:
        name = name.split("/versions/", maxsplit=1)[0]
        if name not in self.models:
            message = f"there is no {name}: see ListModels"
            await self._refuse(context, grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND", message)
        return self.models[name]

    async def _check_text(self, context: Any, field_: str, request: Any) -> None:
        policy, text = request.unknown_characters, getattr(request, field_)
        if policy.skip or policy.replace_with:
            text = "".join(c if c in VOCABULARY else policy.replace_with for c in text)
            setattr(request, field_, text)
        await self._refuse_unknown(context, field_, text)

    async def _refuse_unknown(self, context: Any, field_: str, text: str) -> None:
        unknown = next((c for c in text if c not in VOCABULARY), None)
        if unknown:
            violation = BadRequest.FieldViolation(field=field_, description=f"has {unknown!r}")
            await self._refuse(
                context,
                grpc.StatusCode.INVALID_ARGUMENT,
                "CHARACTER_NOT_IN_VOCABULARY",
                f"the model has no {unknown!r}",
                BadRequest(field_violations=[violation]),
                characters=unknown,
                indices=str(text.index(unknown)),
            )

    # The contract's method names are in CamelCase.
    # ruff: noqa: N802, D102

    async def ListModels(self, request, context):
        await self._begin(context)
        start, models = int(request.page_token or 0), list(self.models.values())
        token = str(start + self.models_on_a_page) if start + self.models_on_a_page < len(models) else ""
        page = models[start : start + self.models_on_a_page]
        return model_pb2.ListModelsResponse(models=page, next_page_token=token)

    async def GetModel(self, request, context):
        await self._begin(context)
        return model_pb2.GetModelResponse(model=await self._model(context, request.name))

    async def EncodeText(self, request, context):
        await self._begin(context)
        return model_pb2.EncodeTextResponse(
            ids=[VOCABULARY.index(c) for c in request.text if c in VOCABULARY],
            unknown_characters=[
                model_pb2.UnknownCharacter(character=c, index=i)
                for i, c in enumerate(request.text)
                if c not in VOCABULARY
            ],
        )

    async def CreateSession(self, request, context):
        await self._begin(context)
        model = await self._model(context, request.model)
        name = f"sessions/{request.session_id or f'made-{len(self.memories)}'}"
        if name in self.memories:
            message = f"{name} exists: choose another id"
            await self._refuse(context, grpc.StatusCode.ALREADY_EXISTS, "SESSION_EXISTS", message)
        info = session_pb2.Session(
            name=name,
            model=f"{model.name}/versions/1",
            model_digest=model.digest,
            state=session_pb2.Session.STATE_ACTIVE,
            expire_time=request.expire_time,
            etag="etag-0-0",
            seed=request.seed,
            labels=request.labels,
            initial_state=request.initial_state or "default",
        )
        info.create_time.GetCurrentTime()
        info.update_time.CopyFrom(info.create_time)
        if request.HasField("ttl"):
            info.expire_time.seconds = info.create_time.seconds + request.ttl.seconds
        self.memories[name] = SessionState(info)
        self.memories[name].rest.set()
        return session_pb2.CreateSessionResponse(session=info)

    async def GetSession(self, request, context):
        await self._begin(context)
        memory = await self._memory(context, request.name)
        return session_pb2.GetSessionResponse(session=memory.info)

    async def ListSessions(self, request, context):
        await self._begin(context)
        names = sorted(n for n in self.memories if n > request.page_token)
        page = names[: request.page_size or 100]
        return session_pb2.ListSessionsResponse(
            sessions=[self.memories[n].info for n in page],
            next_page_token=page[-1] if len(page) < len(names) else "",
        )

    async def UpdateSession(self, request, context):
        await self._begin(context)
        info = (await self._memory(context, request.session.name)).info
        if "labels" in request.update_mask.paths:
            info.labels.clear()
            info.labels.update(request.session.labels)
        if "expire_time" in request.update_mask.paths:
            info.expire_time.CopyFrom(request.session.expire_time)
        if "ttl" in request.update_mask.paths:
            info.expire_time.seconds = info.create_time.seconds + request.session.ttl.seconds
        return session_pb2.UpdateSessionResponse(session=info)

    async def DeleteSession(self, request, context):
        await self._begin(context)
        await self._memory(context, request.name)
        del self.memories[request.name]
        return session_pb2.DeleteSessionResponse()

    async def DeleteSessions(self, _, context):
        await self._begin(context)
        count = len(self.memories)
        self.memories.clear()
        return session_pb2.DeleteSessionsResponse(deleted_count=count)

    async def GetTranscript(self, request, context):
        await self._begin(context)
        memory = await self._memory(context, request.name)
        end = request.end if request.HasField("end") else len(memory.text)
        return session_pb2.GetTranscriptResponse(
            text=memory.text[request.start : end],
            start=request.start,
            end=end,
            turns=[t for t in memory.turns if t.start < end and t.end > request.start],
        )

    async def ForkSession(self, request, context):
        await self._begin(context)
        memory = await self._memory(context, request.name)
        position = request.position if request.HasField("position") else len(memory.text)
        await self._check_position(context, position, len(memory.text))
        forks = [self._add(memory, position) for _ in range(request.count or 1)]
        for fork in forks:
            fork.forked_from.name, fork.forked_from.position = request.name, position
        return session_pb2.ForkSessionResponse(sessions=forks)

    async def RewindSession(self, request, context):
        await self._begin(context)
        memory = await self._memory(context, request.name)
        await self._check_position(context, request.position, len(memory.text))
        memory.cut(request.position)
        return session_pb2.RewindSessionResponse(session=memory.info)

    async def ExportSession(self, request, context):
        await self._begin(context)
        memory = await self._memory(context, request.name)
        for piece in (b"ELMAN", memory.text.encode()):
            yield session_pb2.ExportSessionResponse(snapshot=piece)

    async def ImportSession(self, requests, context):
        await self._begin(context)
        request = session_pb2.ImportSessionRequest()
        snapshot = b""
        async for piece in requests:
            snapshot += piece.snapshot
            request.MergeFrom(piece)
        request.snapshot = snapshot
        if not request.snapshot.startswith(b"ELMAN"):
            violation = BadRequest.FieldViolation(field="snapshot", description="is no snapshot of a session")
            code = grpc.StatusCode.INVALID_ARGUMENT
            details = BadRequest(field_violations=[violation])
            await self._refuse(context, code, "INVALID_FIELD", "snapshot: is no snapshot of a session", details)
        text = request.snapshot.removeprefix(b"ELMAN").decode()
        info = session_pb2.Session(model="models/shakespeare/versions/1", model_digest="d" * 64)
        info.fingerprint = self.imported_fingerprint
        memory = SessionState(info, text)
        return session_pb2.ImportSessionResponse(session=self._add(memory, len(text), request.session_id))

    async def ReplaySession(self, request, context):
        await self._begin(context)
        memory = await self._memory(context, request.name)
        for turn in memory.turns:
            if turn is memory.turns[-1] and self.cuts and (code := self.cuts.pop(0)):
                await self._cut(context, code)
            yield session_pb2.ReplaySessionResponse(
                turn=turn,
                difference_at=self.difference_at,
                is_state_equal=self.difference_at is None,
                is_fingerprint_equal=True,
                end_position=len(memory.text),
            )

    def _add(self, memory: SessionState, position: int, session_id: str = "") -> session_pb2.Session:
        """Keep a copy of a session up to a position."""
        info = session_pb2.Session()
        info.CopyFrom(memory.info)
        info.name = f"sessions/{session_id or f'made-{len(self.memories)}'}"
        copy = SessionState(info, memory.text, list(memory.turns))
        copy.cut(position)
        copy.rest.set()
        self.memories[info.name] = copy
        return info

    async def _check_position(self, context: Any, position: int, end: int, start: int = 0) -> None:
        if not start <= position <= end:
            info = ErrorInfo(
                reason="POSITION_OUT_OF_RANGE",
                domain="elman-server.github.io",
                metadata={"start": str(start), "end": str(end)},
            )
            status = packed_status(grpc.StatusCode.OUT_OF_RANGE, "position is out of range", info)
            await context.abort(
                grpc.StatusCode.OUT_OF_RANGE, "position is out of range", (("grpc-status-details-bin", status),)
            )

    async def Cancel(self, request, context):
        await self._begin(context)
        memory = await self._memory(context, request.session)
        if request.request_id in {"", memory.running}:
            memory.stop.set()
            await memory.rest.wait()
        if request.HasField("position") and request.position != len(memory.text):
            last = memory.turns[-1] if memory.turns else session_pb2.Turn()
            is_named = request.request_id == last.request_id
            await self._check_position(context, request.position, last.end, last.start if is_named else last.prompt_end)
            if request.request_id and not is_named:
                await self._check_position(context, request.position, -1)
            memory.shorten(request.position)
        return generation_pb2.CancelResponse(session=memory.info)

    async def Append(self, request, context):
        await self._begin(context)
        memory = await self._memory(context, request.session)
        await self._check_text(context, "text", request)
        details = detailed(request.text, len(memory.text)) if request.HasField("detail") else []
        memory.commit(request.text, "")
        memory.turns[-1].request_id = request.request_id
        return generation_pb2.AppendResponse(session=memory.info, details=details)

    async def Score(self, request, context):
        await self._begin(context)
        start = 0
        if request.session:
            start = len((await self._memory(context, request.session)).text)
        details = detailed(request.text, start)
        for detail in details if request.read_out else []:
            detail.labels.extend(
                generation_pb2.LabelProbability(label=label, log_probability=nats) for label, nats in MOOD.items()
            )
        count = sum(d.HasField("log_probability") for d in details)
        return generation_pb2.ScoreResponse(
            details=details, log_probability=LOG_PROBABILITY * count, scored_count=count
        )

    async def Generate(self, request, context) -> AsyncIterator[generation_pb2.GenerateResponse]:
        await self._begin(context)
        if request.session:
            memory = await self._memory(context, request.session)
        else:
            await self._model(context, request.model)
            memory = SessionState(session_pb2.Session())
            memory.rest.set()
        await self._check_text(context, "prompt", request)
        await self._refuse_unknown(context, "stopping.stop_strings[0]", "".join(request.stopping.stop_strings))
        if not memory.rest.is_set():
            retry = RetryInfo()
            retry.retry_delay.FromMilliseconds(100)
            message = f"a turn is running on {request.session}: wait or cancel it"
            await self._refuse(context, grpc.StatusCode.UNAVAILABLE, "SESSION_BUSY", message, retry)
        memory.rest.clear()
        memory.stop.clear()
        memory.running = request.request_id
        try:
            async for event in self._turn(request, memory, context):
                yield generation_pb2.GenerateResponse(**event)
            if self.breaks_at_end:
                await self._cut(context, grpc.StatusCode.INTERNAL)
        finally:
            await asyncio.shield(self._settle(memory))

    async def Resume(self, request, context) -> AsyncIterator[generation_pb2.ResumeResponse]:
        await self._begin(context)
        memory = await self._memory(context, request.session)
        await memory.rest.wait()
        asked = memory.asked.get(request.request_id)
        turn = next((turn for turn in memory.turns if turn.request_id == request.request_id), None)
        if asked is None or turn is None:
            await self._refuse(context, grpc.StatusCode.NOT_FOUND, "TURN_NOT_FOUND", "there is no such turn")
        assert turn is not None
        memory.cut(turn.start)
        known = request.position if request.HasField("position") else 0
        async for event in self._turn(asked, memory, context):
            chunk = event.get("chunk")
            if chunk is None or chunk.position > known:
                if chunk is not None and chunk.position - len(chunk.text) < known:
                    chunk.text = chunk.text[known - chunk.position :]
                yield generation_pb2.ResumeResponse(**event)

    async def Chat(self, requests, context) -> AsyncIterator[generation_pb2.ChatResponse]:
        await self._begin(context)
        async for request in requests:
            if request.WhichOneof("action") == "turn":
                memory = await self._memory(context, request.turn.session)
                memory.stop.clear()
                memory.running = request.turn.request_id
                memory.rest.clear()
                try:
                    async for event in self._turn(request.turn, memory, context):
                        yield generation_pb2.ChatResponse(**event)
                finally:
                    await asyncio.shield(self._settle(memory))

    async def _settle(self, memory: SessionState) -> None:
        await asyncio.sleep(self.seconds_to_settle)
        memory.rest.set()

    async def _is_stopped(self, memory: SessionState) -> bool:
        """Wait for the next chunk, or for a Cancel."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(memory.stop.wait(), self.seconds_per_chunk or 1e-9)
        is_stopped: bool = memory.stop.is_set()
        return is_stopped

    async def _cut(self, context: Any, code: grpc.StatusCode) -> None:
        if code is grpc.StatusCode.FAILED_PRECONDITION:  # as where a server that was lost has the turn still
            await self._refuse(context, grpc.StatusCode.UNAVAILABLE, "SESSION_BUSY", "a turn is running")
        await context.abort(code, "the connection was lost")

    async def _turn(self, request, memory: SessionState, context: Any) -> AsyncIterator[dict[str, Any]]:
        start = len(memory.text)
        max_chars = request.stopping.max_chars or LIMITS.max_chars
        started = generation_pb2.Started(
            sampling=request.sampling,
            max_chars=max_chars,
            start_position=start,
            prompt_chars=len(request.prompt),
            model_digest="d" * 64,
        )
        if not request.sampling.HasField("seed"):
            started.sampling.seed = memory.info.seed
        written, stop_string = "", ""
        reason = generation_pb2.FINISH_REASON_MAX_CHARS
        try:
            yield {"started": started}
            while len(written) < max_chars and not stop_string:
                if await self._is_stopped(memory):
                    reason = generation_pb2.FINISH_REASON_CANCELLED
                    break
                if self.cuts and written:
                    cut = self.cuts.pop(0)
                    if cut is None:
                        reason = generation_pb2.FINISH_REASON_SERVER_DRAINING
                        break
                    await self._cut(context, cut)
                size = min(request.chunk_chars or 4, max_chars - len(written))
                at = start + len(request.prompt) + len(written)
                text = "".join(map(drawn, range(at, at + size)))
                for candidate in request.stopping.stop_strings:
                    if candidate in text:
                        stop_string = candidate
                        reason = generation_pb2.FINISH_REASON_STOP_STRING
                        text = text[: text.index(candidate)]
                chunk = generation_pb2.Chunk(text=text, position=at + len(text))
                if request.HasField("detail"):
                    chunk.details.extend(detailed(text, at))
                written += text
                yield {"chunk": chunk}
        finally:
            if self.forgets and request.session:
                self.forgets = False
                memory.commit("a" if self.grows else "", "")
            else:
                memory.commit(request.prompt, written, started.sampling.seed, request)
        yield {
            "finished": generation_pb2.Finished(
                finish_reason=reason,
                usage=generation_pb2.Usage(prompt_chars=len(request.prompt), generated_chars=len(written)),
                position=len(memory.text),
                etag=memory.info.etag if request.session else "",
                state_digest="5" * 64,
                stop_string=stop_string,
            )
        }
