"""The one place where a worker is wired."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager, suppress
from secrets import token_hex
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from canary.store import Store, StoreError
from gateway.door.ask import Bounds
from gateway.door.protocol import Door
from gateway.door.reception import Reception
from gateway.errors import ApiError, not_found
from gateway.pool.pool import Pools
from gateway.record.evidence import Evidence
from gateway.record.metrics import Metrics
from gateway.record.shadow import Shadow
from gateway.relay.exchange import Desk
from gateway.routes.openai import models_router
from gateway.routes.ops import Readiness, health_router
from gateway.settings import Settings
from gateway.split.choice import REQUEST_ID, request_id_from
from gateway.split.follow import BEAT_S, POLL_S, Follower, forever
from gateway.split.splits import SplitFiles, Splits

_LISTEN_AGAIN_S = 0.2
_FIRST_LOOK_S = 2.0

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Gateway:
    """One worker: `rest` is the application for whatever is not proxied, `reception` takes what is."""

    def __init__(self, desk: Desk, reception: Reception, rest: FastAPI, readiness: Readiness) -> None:
        self._rest = rest
        self.desk = desk
        self.reception = reception
        self.readiness = readiness

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request that no engine sees; FastAPI's answers carry the request's id too."""
        await self._rest(scope, receive, _named(scope, send))

    def door(self, **given: Any) -> Door:
        """Return the protocol of one client connection, as uvicorn asks for it."""
        return Door(self.reception, self.desk.limits, **given)


def create_app(settings: Settings, worker: str) -> Gateway:
    """Wire one worker. `worker` names one life of a process: a restarted one takes a new name."""
    store = Store.connect(settings.redis_url)
    metrics = Metrics()
    splits = Splits(settings.models, SplitFiles(settings.state), worker, settings.limits.stale_s)
    evidence = Evidence(store, splits, worker, metrics)
    pools = Pools(settings.limits)
    shadow = Shadow(Pools(settings.limits), evidence, splits, metrics, settings.limits)
    follower = Follower(store, splits, worker, metrics)
    desk = Desk(pools, evidence, metrics, shadow, settings.limits)
    readiness = Readiness()
    bounds = Bounds(settings.limits.n_most, settings.limits.list_most, settings.limits.nesting)

    async def sample() -> None:
        metrics.connections(pools.connections)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with suppress(StoreError, TimeoutError):
            async with asyncio.timeout(_FIRST_LOOK_S):
                await follower.poll()
        loops = [
            (follower.listen, "listening for splits", _LISTEN_AGAIN_S),
            (follower.poll, "polling splits", POLL_S),
            (follower.beat, "heartbeat", BEAT_S),
            (sample, "sampling gauges", POLL_S),
            (evidence.flush, "flushing tallies", 0.0),
        ]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(forever(what, act, pause)) for act, what, pause in loops]
            yield
            for task in tasks:
                task.cancel()
        await shadow.close()
        with suppress(StoreError):
            await evidence.close()
        pools.close()
        await store.close()

    rest = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False, lifespan=lifespan)
    rest.include_router(models_router(splits))
    rest.include_router(health_router(readiness, splits))
    rest.add_exception_handler(ApiError, _refuse)
    rest.add_exception_handler(HTTPException, _refuse_unknown)
    return Gateway(desk, Reception(desk, splits, bounds, token_hex(10)), rest, readiness)


def _named(scope: Scope, send: Send) -> Send:
    """Let the answers that FastAPI gives carry the request's id too."""
    if scope["type"] != "http":
        return send
    request_id = request_id_from(dict(scope["headers"]).get(REQUEST_ID), token_hex(16)).encode()

    async def named(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), (REQUEST_ID, request_id)]
        await send(message)

    return named


async def _refuse(_: Request, error: Exception) -> Response:
    """Answer an ApiError in OpenAI's form."""
    if not isinstance(error, ApiError):
        raise error
    headers = {name.decode(): value.decode() for name, value in error.headers()}
    return Response(error.body(), error.status, headers)


async def _refuse_unknown(request: Request, _: Exception) -> Response:
    """Answer an unknown route, or a known one asked in the wrong way."""
    return await _refuse(request, not_found(request.scope["path"]))
