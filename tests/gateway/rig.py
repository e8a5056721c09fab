"""A gateway worker and simulated engines on real sockets, in the test's own event loop."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from canary.core.arms import Endpoint, Split
from gateway.__main__ import bind
from gateway.app import Gateway, create_app
from gateway.settings import Limits, Settings
from gateway.worker import Server, server_of
from serving.simulated.app import create_app as engine_app
from serving.simulated.behaviour import Behaviour
from serving.simulated.engine import Engine

MODEL = "support"
NOWHERE = "redis://127.0.0.1:1/0"
LIMITS = Limits(connect_s=1, first_byte_s=5, between_s=5, total_s=20, drain_s=2)


def cut(server: uvicorn.Server) -> None:
    """No listener, no connection from now on."""
    for listening in server.servers:
        listening.close()
    for connection in list(server.server_state.connections):
        connection.transport.abort()


class Brief(Server):
    """A server that ends at once: an engine has no manners to test."""

    async def main_loop(self) -> None:
        """Look often."""
        while not self.should_exit:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    async def shutdown(self, sockets: Any = None) -> None:
        """Cut everything."""
        cut(self)
        await asyncio.gather(*self.server_state.tasks, return_exceptions=True)


class Sim:
    """One simulated engine; `engine` is its inside."""

    def __init__(self, engine: Engine, server: uvicorn.Server, url: str) -> None:
        self.engine = engine
        self.server = server
        self.url = url

    def behave(self, **changes: Any) -> None:
        """Change what it does."""
        self.engine.behaviour = self.engine.behaviour.changed(changes)

    @property
    def running(self) -> int:
        """What vLLM calls num_requests_running."""
        return self.engine.counts["running"]

    def kill(self) -> None:
        """Die: no listener, every connection cut."""
        cut(self.server)
        self.server.should_exit = True

    def endpoint(self, **more: Any) -> Endpoint:
        """Where it is served."""
        return Endpoint(self.engine.model, self.engine.model, (self.url,), **more)


@asynccontextmanager
async def serving(server: uvicorn.Server) -> AsyncIterator[str]:
    """Serve on a free port for as long as the block lasts."""
    listener = bind("a test's port", "127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    async with asyncio.TaskGroup() as group:
        group.create_task(server.serve(sockets=[listener]))
        await until(lambda: server.started)
        try:
            yield url
        finally:
            server.should_exit = True


@asynccontextmanager
async def simulated(
    model: str, *, serves: Sequence[str] = ("generate",), adapters: Sequence[str] = (), **behaviour: Any
) -> AsyncIterator[Sim]:
    """A simulated engine that answers fast."""
    fast = Behaviour(ttft_ms=2, tpot_ms=1).changed(behaviour)
    sim: Sim | None = None
    engine = Engine(
        model,
        fast,
        seed=0,
        slots=64,
        longest=2048,
        die=lambda: sim.kill() if sim else None,
        serves=serves,
        adapters=adapters,
    )
    config = uvicorn.Config(engine_app(engine), lifespan="off", log_config=None, timeout_graceful_shutdown=1)
    server = Brief(config)
    async with serving(server) as url:
        sim = Sim(engine, server, url)
        yield sim


class House:
    """A running worker: `app` is its inside, `http` a client of its own."""

    def __init__(self, app: Gateway, server: uvicorn.Server, url: str, http: httpx.AsyncClient) -> None:
        self.app = app
        self.server = server
        self.url = url
        self.http = http

    async def ask(self, text: str = "hello", headers: dict[str, str] | None = None, **more: Any) -> httpx.Response:
        """Ask for a chat answer."""
        body = {"model": MODEL, "messages": [{"role": "user", "content": text}], "max_tokens": 8, **more}
        return await self.http.post("/v1/chat/completions", json=body, headers=headers)


@asynccontextmanager
async def gateway(
    state: Path, static: Split, url: str = NOWHERE, worker: str = "w1", limits: Limits = LIMITS, **more: Any
) -> AsyncIterator[House]:
    """One worker on a free port; `more` is what else it is told."""
    app = create_app(Settings("127.0.0.1", 0, 0, 1, url, state, (static,), limits, **more), worker)
    server = server_of(app, limits.drain_s)
    async with serving(server) as base, httpx.AsyncClient(base_url=base, timeout=20) as http:
        yield House(app, server, base, http)


async def publish(store: Any, split: Split) -> None:
    """Publish a split as the controller's script does: written and pushed in one go."""
    pipe = store._redis.pipeline(transaction=True)
    pipe.sadd("linnet:models", split.model)
    pipe.set(f"linnet:{split.model}:split", split.to_json())
    pipe.publish("linnet:splits", split.to_json())
    await pipe.execute()


async def until(
    true: Callable[[], Any] | Callable[[], Awaitable[Any]], what: str = "condition", seconds: float = 8
) -> Any:
    """Wait until something is true; return it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = true()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return value
        await asyncio.sleep(0.01)
    raise AssertionError(f"{what} did not come true within {seconds:g} s")


def events(raw: bytes) -> list[Any]:
    """The data of each event of a stream; "[DONE]" stays a word."""
    datas = [frame.removeprefix(b"data: ") for frame in raw.split(b"\n\n") if frame.startswith(b"data: ")]
    return [data.decode() if data == b"[DONE]" else json.loads(data) for data in datas]
