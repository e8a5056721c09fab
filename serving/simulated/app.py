"""The simulated engine's HTTP face: plain ASGI, one table of routes for each thing an engine may serve.

A request whose client goes away is cancelled at once, streamed or not, as vLLM does it. What the engine was not started
for answers 404, as vLLM's own routes do.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import asdict
from typing import Any

from serving.simulated.ask import AskError, known, parse_json, templated
from serving.simulated.behaviour import BehaviourError
from serving.simulated.call import Call, CutError, Message, Receive, Send
from serving.simulated.engine import Engine, Fate
from serving.simulated.generate import OUTAGE, generate, transcribe
from serving.simulated.language import decode, encode
from serving.simulated.pooling import POOLING
from serving.simulated.shapes import dumped, exposition, model_list
from serving.wire import error_body

App = Callable[[Message, Receive, Send], Awaitable[None]]
Handler = Callable[[Call, bytes], Coroutine[Any, Any, None]]


def create_app(engine: Engine) -> App:
    """Return the ASGI application that serves `engine`."""
    routes = {key: handler for name in ("any", *engine.serves) for key, handler in _ROUTES[name].items()}

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await _serve(Call(engine, scope, receive, send), routes)

    return app


async def _serve(call: Call, routes: Mapping[tuple[str, str], Handler]) -> None:
    """Answer, or stop as soon as the client is gone."""
    handler = routes.get((call.method, call.path))
    if handler is None:
        await call.answer(dumped({"detail": "Not Found"}), status=404)
        return
    body = await call.body()
    try:
        await call.while_connected(handler(call, body))
    except* AskError as group:
        error = group.exceptions[0]
        assert isinstance(error, AskError)  # noqa: S101 - for the type checker; except* selected it
        await call.answer(error_body(str(error), error.kind, error.status, error.param), status=error.status)


async def _pool(call: Call, body: bytes) -> None:
    """Embeddings, rerank, score: one step, one answer."""
    engine, value = call.engine, parse_json(body)
    model = known(value.get("model"), engine.names)
    answer, tokens = POOLING[call.path](value)
    engine.last = {"path": call.path, "headers": call.headers, "body": value}
    fate = engine.fate()
    try:
        await engine.step(tokens)
        await _pooled(call, fate, {"model": model, **answer}, tokens)
    except (asyncio.CancelledError, CutError):
        engine.counts["aborted"] += 1
        raise
    engine.counts["finished"] += 1


async def _pooled(call: Call, fate: Fate, answer: dict[str, Any], tokens: int) -> None:
    """Send the answer, or what fate has in store instead."""
    if fate in {Fate.REFUSED, Fate.BROKEN}:
        await call.answer(error_body(*OUTAGE), status=500)
        return
    if fate is not Fate.WELL:
        if fate is Fate.DEATH:
            call.engine.die()
        raise CutError
    usage = {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0, "prompt_tokens_details": None}
    named = {"id": f"embd-{call.request_id}", "created": int(time.time()), **answer, "usage": usage}
    await call.answer(dumped(named))


async def _models(call: Call, _: bytes) -> None:
    await call.answer(dumped(model_list(call.engine.names, int(time.time()), call.engine.longest)))


async def _tokenize(call: Call, body: bytes) -> None:
    value = parse_json(body)
    known(value.get("model"), call.engine.names)
    text = templated(value["messages"]) if "messages" in value else str(value.get("prompt", ""))
    ids = encode(text)
    await call.answer(
        dumped({"count": len(ids), "max_model_len": call.engine.longest, "tokens": ids, "token_strs": None})
    )


async def _detokenize(call: Call, body: bytes) -> None:
    value = parse_json(body)
    known(value.get("model"), call.engine.names)
    try:
        text = decode(value.get("tokens") or [])
    except (ValueError, TypeError, AttributeError) as error:
        raise AskError(f"tokens must be a list of token ids: {error}", param="tokens") from None
    await call.answer(dumped({"prompt": text}))


async def _health(call: Call, _: bytes) -> None:
    await call.answer(b"")


async def _metrics(call: Call, _: bytes) -> None:
    text = exposition(call.engine.model, call.engine.metrics())
    await call.answer(text, kind="text/plain; version=0.0.4; charset=utf-8")


async def _look(call: Call, _: bytes) -> None:
    state = {"counts": dict(call.engine.counts), "last": call.engine.last, **asdict(call.engine.behaviour)}
    await call.answer(json.dumps(state).encode())


async def _change(call: Call, body: bytes) -> None:
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


_ROUTES: Mapping[str, Mapping[tuple[str, str], Handler]] = {
    "any": {
        ("GET", "/v1/models"): _models,
        ("POST", "/tokenize"): _tokenize,
        ("POST", "/detokenize"): _detokenize,
        ("GET", "/health"): _health,
        ("GET", "/metrics"): _metrics,
        ("GET", "/simulated"): _look,
        ("POST", "/simulated"): _change,
    },
    "generate": {
        ("POST", "/v1/chat/completions"): generate,
        ("POST", "/v1/completions"): generate,
        ("POST", "/v1/responses"): generate,
    },
    "embed": {("POST", "/v1/embeddings"): _pool},
    "score": {("POST", path): _pool for path in ("/rerank", "/v1/rerank", "/v2/rerank", "/score", "/v1/score")},
    "transcribe": {("POST", "/v1/audio/transcriptions"): transcribe},
}
SERVED = tuple(name for name in _ROUTES if name != "any")
