"""One HTTP request at the simulated engine: plain ASGI, and work that ends when its client goes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from typing import Any
from uuid import uuid4

from serving.simulated.engine import Engine

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class CutError(Exception):
    """The engine lets go of the connection in the middle of an answer."""


class Call:
    """A request to `engine`, and its answer."""

    def __init__(self, engine: Engine, scope: Message, receive: Receive, send: Send) -> None:
        self.engine = engine
        self.path: str = scope["path"]
        self.method: str = scope["method"]
        self.headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        self.request_id = self.headers.get("x-request-id") or uuid4().hex
        self._receive = receive
        self._send = send

    async def while_connected(self, work: Coroutine[Any, Any, None]) -> None:
        """Do the work, or as much of it as the client waits for."""
        async with asyncio.TaskGroup() as group:
            answering = group.create_task(work)
            watching = group.create_task(self._gone())
            watching.add_done_callback(lambda _: answering.cancel())
            answering.add_done_callback(lambda _: watching.cancel())

    async def _gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def body(self) -> bytes:
        """Read the request's body."""
        parts, more = [], True
        while more:
            message = await self._receive()
            parts.append(message.get("body", b""))
            more = message.get("more_body", False)
        return b"".join(parts)

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
