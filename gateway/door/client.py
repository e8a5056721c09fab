"""The client's side of one exchange: what it is sent, and that it may go away at any moment."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from types import TracebackType
from typing import Any, Self

from gateway.errors import ApiError
from gateway.split.choice import Choice
from serving.wire import DONE, error_event

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Scope = MutableMapping[str, Any]
Header = tuple[bytes, bytes]


async def read_body(receive: Receive, declared: bytes | None, most: int) -> bytes:
    """Read a request's body. Raises ApiError (413) beyond `most` bytes, ConnectionError if the client leaves."""
    if declared is not None and declared.isdigit() and int(declared) > most:
        raise _too_large(most)
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError("the client left before its request was complete")
        part: bytes = message.get("body", b"")
        parts.append(part)
        size += len(part)
        if size > most:
            raise _too_large(most)
        more = message.get("more_body", False)
    return b"".join(parts)


def _too_large(most: int) -> ApiError:
    return ApiError(413, f"The body is larger than {most} bytes.", "request_too_large")


class Client:
    """Sends one answer. `answered` turns True when the head is out: nothing can be retried then."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._always: list[Header] = [(b"x-request-id", request_id.encode())]
        self.answered = False
        self.complete = False

    def name_arm(self, choice: Choice) -> None:
        """Say in every answer which arm answered, under which release and generation."""
        split = choice.split
        self._always[1:] = [
            (b"x-linnet-arm", choice.arm.value.encode()),
            (b"x-linnet-release", split.release.encode("latin-1", "replace")),
            (b"x-linnet-generation", b"%d" % split.generation),
        ]

    async def begin(self, status: int, headers: Sequence[Header]) -> None:
        """Send the head of a streamed answer."""
        self.answered = True
        await self._send({"type": "http.response.start", "status": status, "headers": [*headers, *self._always]})

    async def piece(self, body: bytes) -> None:
        """Send one piece; waits while the client reads slowly."""
        await self._send({"type": "http.response.body", "body": body, "more_body": True})

    async def end(self) -> None:
        """End a streamed answer."""
        self.complete = True
        await self._send({"type": "http.response.body", "body": b""})

    async def whole(self, status: int, headers: Sequence[Header], body: bytes) -> None:
        """Send an answer in one piece."""
        await self.begin(status, [*headers, (b"content-length", b"%d" % len(body))])
        self.complete = True
        await self._send({"type": "http.response.body", "body": body})

    async def cut(self, error: ApiError) -> None:
        """End an answer that may not go on, in whichever way is left."""
        if not self.answered:
            await self.refuse(error)
        elif not self.complete:
            await self.piece(error_event(str(error), "server_error", error.code) + DONE)
            await self.end()

    async def refuse(self, error: ApiError) -> None:
        """Send an error of the gateway's own."""
        await self.whole(error.status, error.headers(), error.body())


class Presence:
    """While it lasts, a client that leaves cancels the task that works for it: whatever that waits for ends at once."""

    def __init__(self, receive: Receive, client: Client) -> None:
        self._receive = receive
        self._client = client
        self._task: asyncio.Task[Any] | None = None
        self._watch: asyncio.Task[None] | None = None
        self.left = False

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._watch = loop.create_task(self._wait())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> bool:
        if self._watch is not None:
            self._watch.cancel()
        if not self.left or kind is not asyncio.CancelledError or self._task is None:
            return False
        return self._task.uncancel() == 0  # a shutdown that cancels too is obeyed

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if not self._client.complete and self._task is not None:
            self.left = True
            self._task.cancel()
