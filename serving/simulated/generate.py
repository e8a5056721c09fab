"""Answers that are made token by token: chat, completions, responses, transcripts; whole or streamed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from typing import Any

from serving.simulated.ask import Ask, parse, parse_json
from serving.simulated.call import Call, CutError
from serving.simulated.engine import Fate
from serving.simulated.responses import ResponseShape
from serving.simulated.shapes import Shape, TranscriptShape, dumped
from serving.simulated.upload import parse_upload
from serving.wire import error_body

AnyShape = Shape | ResponseShape
OUTAGE = ("the simulated engine was told to fail", "InternalServerError", 500)


async def generate(call: Call, body: bytes) -> None:
    """/v1/chat/completions, /v1/completions and /v1/responses."""
    value = parse_json(body)
    ask = parse(call.path, value, call.engine.names, call.engine.longest)
    await _kept(call, value, ask, Shape if ask.form != "responses" else ResponseShape)


async def transcribe(call: Call, body: bytes) -> None:
    """/v1/audio/transcriptions."""
    fields, ask = parse_upload(body, call.headers.get("content-type", ""), call.engine.names)
    await _kept(call, fields, ask, TranscriptShape)


async def _kept(call: Call, value: dict[str, Any], ask: Ask, shaped: Callable[..., AnyShape]) -> None:
    """Keep the books around one answer."""
    engine = call.engine
    engine.last = {"path": call.path, "headers": call.headers, "body": value}
    fate = engine.fate()
    if fate is Fate.REFUSED:
        await call.answer(error_body(*OUTAGE), status=500)
        return
    shape = shaped(ask, call.request_id, int(time.time()), engine.cached(ask))
    work: Callable[..., Coroutine[Any, Any, None]] = _stream if ask.stream else _whole
    try:
        await work(call, ask, shape, fate)
    except (asyncio.CancelledError, CutError):
        engine.counts["aborted"] += 1
        raise
    engine.counts["finished"] += 1


async def _stream(call: Call, ask: Ask, shape: AnyShape, fate: Fate) -> None:
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
        await call.write(shape.closing(count * ask.choices, finish), last=True)
    else:
        await _fail(call, shape, fate)


async def _fail(call: Call, shape: AnyShape, fate: Fate) -> None:
    """End a stream badly after its first token."""
    if fate is Fate.DEATH:
        call.engine.die()
    if fate is not Fate.BROKEN:
        raise CutError
    await call.write(shape.failure(*OUTAGE), last=True)


async def _whole(call: Call, ask: Ask, shape: AnyShape, fate: Fate) -> None:
    count, finish = call.engine.length(ask)
    texts = [""] * ask.choices
    async with aclosing(call.engine.steps(ask, count)) as steps:
        async for words in steps:
            texts = [text + word for text, word in zip(texts, words, strict=True)]
            if fate in {Fate.DEATH, Fate.CUT}:
                await call.start(200, "application/json")
                await call.write(b'{"id": ')
                await _fail(call, shape, fate)
    if fate is Fate.BROKEN:
        await call.answer(error_body(*OUTAGE), status=500)
    elif ask.form == "text":
        await call.answer(texts[0].encode(), kind="text/plain; charset=utf-8")
    else:
        await call.answer(dumped(shape.whole(texts, count, finish, call.engine.speaker)))
