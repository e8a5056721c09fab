"""The one place where a worker is wired."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager, suppress
from random import Random
from secrets import token_hex
from time import monotonic
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from canary.storage.link import StoreError
from canary.storage.worker_store import WorkerStore
from gateway.door.access import KeyFile, Keys, is_loopback
from gateway.door.ask import Bounds
from gateway.door.protocol import Door
from gateway.door.quota import Quota
from gateway.door.reception import Reception
from gateway.errors import ApiError, not_found
from gateway.pool.health import Health
from gateway.pool.pool import Pools
from gateway.pool.sink import Patience
from gateway.record.evidence import Evidence
from gateway.record.log import AccessLog
from gateway.record.metrics import Metrics
from gateway.record.shadow import Shadow
from gateway.record.trace import open_tracer
from gateway.relay.desk import Desk
from gateway.routes.openai import models_router
from gateway.routes.ops import Readiness, health_router
from gateway.settings import Settings
from gateway.split.choice import REQUEST_ID, request_id_from
from gateway.split.follow import BEAT_S, POLL_S, Follower, forever
from gateway.split.splits import SplitFiles, Splits
from gateway.split.watch import ModelsFile

_LISTEN_AGAIN_S = 0.2
_FIRST_LOOK_S = 2.0
_KEYS_POLL_S = 2.0

Loop = tuple[Callable[[], Awaitable[None]], str, float]  # what to do, its name, the seconds between
Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Parts:
    """What a worker is made of, each part made once. Raises SettingsError."""

    def __init__(self, settings: Settings, worker: str) -> None:
        limits = settings.limits
        self.readiness = Readiness()
        self.metrics = Metrics()
        self.store = WorkerStore.connect(settings.redis_url)
        self.splits = Splits(settings.models, SplitFiles(settings.state), worker, limits.stale_s, settings.pools)
        self.keys = Keys(self.store.api_keys(), KeyFile(settings.state), worker, loopback=is_loopback(settings.host))
        self.evidence = Evidence(self.store, self.splits, worker, self.metrics)
        self.follower = Follower(self.store, self.splits, worker, self.metrics)
        self.models_file = ModelsFile(settings.models_file, self.splits) if settings.models_file else None
        self.pools = Pools(limits, self.metrics.retry)
        self.health = Health(lambda: self.pools.replicas, monotonic, Random().random)  # noqa: S311 - it spreads checks
        self.shadow = Shadow(Pools(limits), self.evidence, self.splits, self.metrics, limits)
        self.log = AccessLog(settings.access_log) if settings.access_log else None
        self.tracer = open_tracer(settings.otel_endpoint, worker) if settings.otel_endpoint else None
        self.quota = Quota(self.store.usage(), worker, settings.workers, alone=self.metrics.quota_alone)
        self.desk = Desk(
            pools=self.pools,
            evidence=self.evidence,
            metrics=self.metrics,
            shadow=self.shadow,
            quota=self.quota,
            limits=limits,
            stream_patience=Patience(limits.first_byte_s, limits.between_s, limits.total_s),
            whole_patience=Patience(limits.total_s, limits.between_s, limits.total_s),
            log=self.log,
            tracer=self.tracer,
        )
        bounds = Bounds(limits.n_most, limits.list_most, limits.nesting)
        self.reception = Reception(self.desk, self.splits, self.keys, bounds, token_hex(10))

    def loops(self) -> list[Loop]:
        """Return what goes on beside the requests."""
        loops: list[Loop] = [
            (self.follower.listen, "listening for splits", _LISTEN_AGAIN_S),
            (self.follower.poll, "polling splits", POLL_S),
            (self.follower.beat, "heartbeat", BEAT_S),
            (self.keys.listen, "listening for API keys", _LISTEN_AGAIN_S),
            (self.keys.poll, "polling API keys", _KEYS_POLL_S),
            (self.quota.sync, "exchanging what keys used", 0.0),
            (self.evidence.flush, "flushing tallies", 0.0),
            (self.health.look, "checking engines", POLL_S),
            (self._sample, "sampling gauges", POLL_S),
        ]
        return loops if self.models_file is None else [*loops, (self.models_file.look, "looking at the models", 0.0)]

    async def first_look(self) -> None:
        """Learn what the store knows, if it answers soon."""
        for look in (self.keys.poll, self.quota.exchange, self.follower.poll):
            with suppress(StoreError, TimeoutError):
                async with asyncio.timeout(_FIRST_LOOK_S):
                    await look()

    def reload(self) -> None:
        """Read the file of models again, and reopen the access log."""
        if self.models_file:
            self.models_file.reload()
        if self.log:
            self.log.reopen()

    async def close(self) -> None:
        """Write what is left, and close."""
        await self.shadow.close()
        with suppress(StoreError):
            await self.evidence.close()
            await self.follower.leave()
        self.pools.close()
        if self.tracer:
            await self.tracer.close()
        if self.log:
            self.log.close()
        await self.store.close()

    async def _sample(self) -> None:
        self.metrics.connections(self.pools.connections)
        arms = [(model, arm, end) for model, route in self.splits.routes.items() for arm, end in route.split.arms()]
        controls = [control for route in self.splits.routes.values() if (control := route.split.control) is not None]
        named = {url for endpoint in (*(end for _, _, end in arms), *controls) for url in endpoint.replicas}
        up = dict[str, bool]()
        self.pools.keep(named)
        self.shadow.keep(named)
        for model, arm, endpoint in arms:
            up[endpoint.engine] = up.get(endpoint.engine, True) and self.pools.up(model, arm)
            self.metrics.engine_up(endpoint.engine, up=up[endpoint.engine])
            self.metrics.queued(model, arm, self.pools.waiting(model, arm))
        if self.log:
            self.metrics.log_dropped(self.log.dropped)


class Gateway:
    """One worker: `rest` is the application for whatever is not proxied, the parts' reception takes what is."""

    def __init__(self, parts: Parts, rest: FastAPI) -> None:
        self._rest = rest
        self.parts = parts
        self.desk = parts.desk
        self.readiness = parts.readiness

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request that no engine sees; FastAPI's answers carry the request's id too."""
        await self._rest(scope, receive, _named(scope, send))

    def door(self, **given: Any) -> Door:
        """Return the protocol of one client connection, as uvicorn asks for it."""
        return Door(self.parts.reception, self.desk.limits, **given)


def create_app(settings: Settings, worker: str) -> Gateway:
    """Wire one worker. `worker` names one life of a process: a restarted one takes a new name. Raises SettingsError."""
    parts = Parts(settings, worker)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await parts.first_look()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(forever(what, act, pause)) for act, what, pause in parts.loops()]
            yield
            for task in tasks:
                task.cancel()
        await parts.close()

    rest = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False, lifespan=lifespan)
    rest.include_router(models_router(parts.splits, parts.keys))
    rest.include_router(health_router(parts.readiness, parts.splits, parts.keys))
    rest.add_exception_handler(ApiError, _refuse)
    rest.add_exception_handler(HTTPException, _refuse_unknown)
    return Gateway(parts, rest)


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
