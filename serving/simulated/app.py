"""The simulated engine's HTTP face: plain ASGI, one table of routes.

A request whose client goes away is cancelled at once, streamed or not, as vLLM does it.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from contextlib import aclosing
from dataclasses import asdict
from typing import Any
from uuid import uuid4

from serving.simulated.ask import Ask, AskError, parse, parse_json, templated
from serving.simulated.behaviour import BehaviourError
from serving.simulated.engine import Engine, Fate
from serving.simulated.language import decode, encode
from serving.simulated.shapes import Shape, exposition, model_list
from serving.wire import DONE, error_body, error_event

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

_OUTAGE = ("the simulated engine was told to fail", "InternalServerError", 500)


class CutError(Exception):
    """The engine lets go of the connection in the middle of an answer."""


def create_app(engine: Engine) -> App:
    """Return the ASGI application that serves `engine`."""

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await _Call(engine, scope, receive, send).serve()

    return app


class _Call:
    """One HTTP request."""

    def __init__(self, engine: Engine, scope: Message, receive: Receive, send: Send) -> None:
        self.engine = engine
        self.path: str = scope["path"]
        self.method: str = scope["method"]
        self.headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        self.request_id = self.headers.get("x-request-id") or uuid4().hex
        self._receive = receive
        self._send = send

    async def serve(self) -> None:
        """Answer, or stop as soon as the client is gone."""
        handler = _ROUTES.get((self.method, self.path))
        if handler is None:
            await self.answer(error_body("Not Found", "NotFoundError", 404), status=404)
            return
        body = await self._body()
        try:
            await self._while_connected(handler(self, body))
        except* AskError as group:
            error = group.exceptions[0]
            assert isinstance(error, AskError)  # noqa: S101 - for the type checker; except* selected it
            await self.answer(error_body(str(error), error.kind, error.status, error.param), status=error.status)

    async def _while_connected(self, work: Coroutine[Any, Any, None]) -> None:
        async with asyncio.TaskGroup() as group:
            answering = group.create_task(work)
            watching = group.create_task(self._gone())
            watching.add_done_callback(lambda _: answering.cancel())
            answering.add_done_callback(lambda _: watching.cancel())

    async def _gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _body(self) -> bytes:
        body, more = b"", True
        while more:
            message = await self._receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        return body

    async def answer(self, body: bytes, *, status: int = 200, kind: str = "application/json") -> None:
        """Send a whole answer."""
        await self.start(status, kind, (b"content-length", str(len(body)).encode()))
        await self.write(body, last=True)

    async def start(self, status: int, kind: str, *more: tuple[bytes, bytes]) -> None:
        """Send the head of an answer."""
        headers = [(b"content-type", kind.encode()), (b"x-request-id", self.request_id.encode("latin-1")), *more]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, body: bytes, *, last: bool = False) -> None:
        """Send a part of the body."""
        await self._send({"type": "http.response.body", "body": body, "more_body": not last})


async def _generate(call: _Call, body: bytes) -> None:
    """/v1/chat/completions and /v1/completions: keep the books around one answer."""
    engine = call.engine
    ask = parse(call.path, body, engine.model, engine.longest)
    engine.last = {"path": call.path, "headers": call.headers, "body": json.loads(body)}
    fate = engine.fate()
    if fate is Fate.REFUSED:
        await call.answer(error_body(*_OUTAGE), status=500)
        return
    engine.counts["prompt"] += len(ask.ids)
    shape = Shape(ask, call.request_id, engine.model, int(time.time()), engine.cached(ask))
    try:
        await (_stream if ask.stream else _whole)(call, ask, shape, fate)
    except (asyncio.CancelledError, CutError):
        engine.counts["aborted"] += 1
        raise
    engine.counts["finished"] += 1


async def _stream(call: _Call, ask: Ask, shape: Shape, fate: Fate) -> None:
    count, finish = call.engine.length(ask)
    left = count
    async with aclosing(call.engine.steps(ask, count)) as steps:
        async for words in steps:
            if left == count:
                await call.start(200, "text/event-stream; charset=utf-8")
                await call.write(b"".join(shape.opening(choice) for choice in range(ask.choices)))
            left -= 1
            reason = None if left else finish
            await call.write(b"".join(shape.token(choice, word, reason) for choice, word in enumerate(words)))
            if fate is not Fate.WELL:
                break
    if fate is Fate.WELL:
        await call.write(shape.closing(count * ask.choices) + DONE, last=True)
    else:
        await _fail(call, fate)


async def _fail(call: _Call, fate: Fate) -> None:
    """End a stream badly after its first token."""
    if fate is Fate.DEATH:
        call.engine.die()
    if fate is not Fate.BROKEN:
        raise CutError
    await call.write(error_event(*_OUTAGE) + DONE, last=True)


async def _whole(call: _Call, ask: Ask, shape: Shape, fate: Fate) -> None:
    count, finish = call.engine.length(ask)
    texts = [""] * ask.choices
    async with aclosing(call.engine.steps(ask, count)) as steps:
        async for words in steps:
            texts = [text + word for text, word in zip(texts, words, strict=True)]
            if fate in {Fate.DEATH, Fate.CUT}:
                await call.start(200, "application/json")
                await call.write(b'{"id": ')
                await _fail(call, fate)
    if fate is Fate.BROKEN:
        await call.answer(error_body(*_OUTAGE), status=500)
    else:
        await call.answer(shape.whole(texts, count, finish, call.engine.speaker))


async def _models(call: _Call, _: bytes) -> None:
    await call.answer(model_list(call.engine.model, int(time.time()), call.engine.longest))


async def _tokenize(call: _Call, body: bytes) -> None:
    value = parse_json(body)
    text = templated(value["messages"]) if "messages" in value else str(value.get("prompt", ""))
    ids = encode(text)
    answer = {"count": len(ids), "max_model_len": call.engine.longest, "tokens": ids, "token_strs": None}
    await call.answer(json.dumps(answer).encode())


async def _detokenize(call: _Call, body: bytes) -> None:
    try:
        text = decode(parse_json(body).get("tokens") or [])
    except (ValueError, TypeError, AttributeError) as error:
        raise AskError(f"tokens must be a list of token ids: {error}", param="tokens") from None
    await call.answer(json.dumps({"prompt": text}).encode())


async def _health(call: _Call, _: bytes) -> None:
    await call.answer(b"")


async def _metrics(call: _Call, _: bytes) -> None:
    text = exposition(call.engine.model, call.engine.metrics())
    await call.answer(text, kind="text/plain; version=0.0.4; charset=utf-8")


async def _look(call: _Call, _: bytes) -> None:
    state = {"counts": dict(call.engine.counts), "last": call.engine.last, **asdict(call.engine.behaviour)}
    await call.answer(json.dumps(state).encode())


async def _change(call: _Call, body: bytes) -> None:
    """Change the behaviour; {"die": true} ends the engine without an answer."""
    changes = parse_json(body)
    if changes.pop("die", False):
        call.engine.die()
        raise CutError
    try:
        call.engine.behaviour = call.engine.behaviour.changed(changes)
    except BehaviourError as error:
        raise AskError(str(error)) from None
    await _look(call, b"")


_ROUTES: dict[tuple[str, str], Callable[[_Call, bytes], Coroutine[Any, Any, None]]] = {
    ("POST", "/v1/chat/completions"): _generate,
    ("POST", "/v1/completions"): _generate,
    ("GET", "/v1/models"): _models,
    ("POST", "/tokenize"): _tokenize,
    ("POST", "/detokenize"): _detokenize,
    ("GET", "/health"): _health,
    ("GET", "/metrics"): _metrics,
    ("GET", "/simulated"): _look,
    ("POST", "/simulated"): _change,
}
