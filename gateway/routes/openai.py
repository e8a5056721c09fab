"""OpenAI's routes: the two that generate, as raw ASGI; the list of models, as FastAPI."""

from __future__ import annotations

import asyncio
import re
from secrets import token_hex
from time import monotonic
from typing import Any

from fastapi import APIRouter

from gateway.door import access, ask
from gateway.door.client import Client, Presence, Receive, Scope, Send, read_body
from gateway.errors import ApiError, no_model
from gateway.relay.exchange import Desk, Exchange
from gateway.split.choice import REQUEST_ID, choose, request_id_from
from gateway.split.splits import Splits

GENERATING = ("/v1/chat/completions", "/v1/completions")
_PASSED = (b"traceparent", b"tracestate")
_PLAIN = re.compile(rb"[\x20-\x7e]{1,512}")
_JSON = b"application/json"


class Generate:
    """POST to a route that generates: no model of the body, no middleware, the bytes as they are."""

    def __init__(self, desk: Desk, splits: Splits) -> None:
        self._desk = desk
        self._splits = splits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        headers = dict(scope["headers"])
        request_id = request_id_from(headers.get(REQUEST_ID), token_hex(16))
        client = Client(send, request_id)
        try:
            exchange = await self._exchange(scope["path"], headers, receive, client, request_id)
        except ApiError as error:
            self._desk.metrics.refused()
            await client.refuse(error)
            return
        except ConnectionError:
            return
        self._desk.metrics.in_flight += 1
        try:
            async with Presence(receive, client):
                await exchange.run()
        except asyncio.CancelledError:  # only a shutdown whose limit has passed cancels a request
            await client.cut(ApiError(503, "the gateway is shutting down; try again", "shutting_down"))
        finally:
            self._desk.metrics.in_flight -= 1

    async def _exchange(
        self, path: str, headers: dict[bytes, bytes], receive: Receive, client: Client, request_id: str
    ) -> Exchange:
        """Read and check the request, and choose its arm. Raises ApiError."""
        kind = headers.get(b"content-type", _JSON).split(b";")[0].strip().lower()
        if kind != _JSON:
            raise ApiError(415, "The content type must be application/json.", "unsupported_media_type")
        body = await read_body(receive, headers.get(b"content-length"), self._desk.limits.body_bytes)
        began = monotonic()
        asked = ask.read(body)
        route = self._splits.route(asked.model)
        if route is None:
            raise no_model(asked.model)
        caller = access.identify(headers.get(b"authorization"))
        choice = choose(route, asked, headers, caller, request_id)
        passed = [(name, value) for name in _PASSED if (value := headers.get(name)) and _PLAIN.fullmatch(value)]
        return Exchange(self._desk, client, choice, asked, path=path, passed=passed, began=began)


def models_router(splits: Splits) -> APIRouter:
    """List the public models, and show one."""
    router = APIRouter()

    @router.get("/v1/models")
    async def list_models() -> dict[str, Any]:
        return {"object": "list", "data": [_model(name) for name in sorted(splits.models)]}

    @router.get("/v1/models/{name:path}")
    async def show_model(name: str) -> dict[str, Any]:
        if splits.route(name) is None:
            raise no_model(name)
        return _model(name)

    return router


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "linnet"}
