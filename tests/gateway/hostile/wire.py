"""Raw sockets on both sides of a worker: a client that sends any bytes, and an engine that answers any bytes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from canary.core.arms import Endpoint, Split
from tests.gateway.rig import MODEL

CHAT = "/v1/chat/completions"
BODY = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}).encode()
ANSWER = json.dumps(
    {
        "id": "1",
        "object": "chat.completion",
        "model": "raw",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "good"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }
).encode()
GOOD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(ANSWER), ANSWER)
PATIENCE_S = 5.0
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")


def request(
    *headers: str | bytes, target: str = CHAT, method: str = "POST", body: bytes = BODY, version: str = "1.1"
) -> bytes:
    """A request of these header lines beside Host and Content-Type; its body is not counted: say so in a header."""
    lines: list[str | bytes] = [f"{method} {target} HTTP/{version}", "Host: gateway", "Content-Type: application/json"]
    raw = [line if isinstance(line, bytes) else line.encode("latin-1") for line in (*lines, *headers)]
    return b"\r\n".join(raw) + b"\r\n\r\n" + body


def counted(*headers: str | bytes, body: bytes = BODY, **more: str) -> bytes:
    """A request that is right in its Content-Length."""
    return request(*headers, f"Content-Length: {len(body)}", body=body, **more)


@dataclass(frozen=True, slots=True)
class Heard:
    """What a client heard: all bytes, whether the connection was ended by the gateway, how much it could send."""

    raw: bytes
    closed: bool
    sent: int = 0

    @property
    def statuses(self) -> list[int]:
        """The status of each answer, in order."""
        return [int(found[1]) for found in _STATUS.finditer(self.raw)]


class Line:
    """A client's connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._heard = b""

    async def say(self, raw: bytes) -> None:
        """Send; a gateway that has hung up is no error."""
        self._writer.write(raw)
        with contextlib.suppress(ConnectionError):
            await self._writer.drain()

    def finish(self) -> None:
        """End the sending side; the gateway may still answer."""
        self._writer.write_eof()

    def cut(self) -> None:
        """Go without a word."""
        self._writer.transport.abort()

    async def flood(self, start: bytes, piece: bytes, most: int) -> Heard:
        """Send `piece` again and again until the gateway says something or hangs up, or `most` bytes are gone."""
        hearing = asyncio.ensure_future(self.until_closed(PATIENCE_S * 2))
        self._writer.write(start)
        sent = len(start)
        with contextlib.suppress(ConnectionError):
            while sent < most and not hearing.done() and not self._heard:
                self._writer.write(piece)
                sent += len(piece)
                await asyncio.wait_for(self._writer.drain(), PATIENCE_S)
                await asyncio.sleep(0)
        heard = await hearing
        return Heard(heard.raw, heard.closed, sent)

    async def shout(self, piece: bytes, most: int) -> int:
        """Send `piece` again and again without listening; return how much went out before nothing more was taken."""
        self._reader._transport.pause_reading()  # type: ignore[attr-defined]
        sent = 0
        with contextlib.suppress(ConnectionError, TimeoutError):
            while sent < most and not self._writer.is_closing():
                self._writer.write(piece)
                await asyncio.wait_for(self._writer.drain(), 1.0)
                sent += len(piece)
        return sent

    async def until_closed(self, patience_s: float = PATIENCE_S) -> Heard:
        """Listen until the gateway ends the connection."""
        with contextlib.suppress(ConnectionError):
            try:
                async with asyncio.timeout(patience_s):
                    while piece := await self._reader.read(65536):
                        self._heard += piece
            except TimeoutError:
                return Heard(self._heard, closed=False)
        return Heard(self._heard, closed=True)

    async def answers(self, count: int) -> Heard:
        """Listen until so many answers are complete, or the gateway ends the connection."""
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(PATIENCE_S):
                while len(_STATUS.findall(self._heard)) < count or not _complete(self._heard):
                    piece = await self._reader.read(65536)
                    if not piece:
                        return Heard(self._heard, closed=True)
                    self._heard += piece
        return Heard(self._heard, closed=False)


def _complete(raw: bytes) -> bool:
    """Tell whether the last answer is whole, by its length or its last chunk."""
    *_, last = _STATUS.finditer(raw)
    head, end, body = raw[last.start() :].partition(b"\r\n\r\n")
    if last[1].startswith(b"1"):
        return bool(end)
    declared = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return len(body) == int(declared[0]) if declared else body.endswith(b"0\r\n\r\n")


@asynccontextmanager
async def line(url: str) -> AsyncIterator[Line]:
    """Connect to a gateway."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        yield Line(reader, writer)
    finally:
        writer.transport.abort()


async def talk(url: str, raw: bytes) -> Heard:
    """Send these bytes, and listen until the gateway hangs up."""
    async with line(url) as client:
        await client.say(raw)
        return await client.until_closed()


Script = Callable[[asyncio.StreamWriter], Awaitable[None]]


async def well(writer: asyncio.StreamWriter) -> None:
    """Answer as an engine should."""
    writer.write(GOOD)


def saying(raw: bytes, *, then_close: bool = True) -> Script:
    """Answer these bytes."""

    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(raw)
        await writer.drain()
        if then_close:
            writer.close()

    return script


def repeating(start: bytes, piece: bytes, most: int, told: list[int]) -> Script:
    """Answer `piece` again and again until the gateway hangs up; `told` gets how many bytes it took."""

    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(start)
        sent = len(start)
        with contextlib.suppress(ConnectionError):
            while sent < most:
                writer.write(piece)
                sent += len(piece)
                await writer.drain()
                await asyncio.sleep(0)
        told.append(sent)
        writer.transport.abort()

    return script


class Raw:
    """An engine that notes every request's bytes and answers by its script; probes of its health are not counted."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self.script: Script = well
        self.url = ""
        self._tasks: set[asyncio.Task[None]] = set()

    def split(self) -> Split:
        """A model that this engine alone answers for."""
        return Split(MODEL, 0, Endpoint("raw", "raw", (self.url,)))

    def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take one connection."""
        self.connections += 1
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                while not writer.is_closing():
                    await self._answer(await _read(reader), writer)
        finally:
            writer.transport.abort()

    async def _answer(self, request: bytes, writer: asyncio.StreamWriter) -> None:
        if request.startswith(b"POST"):
            self.requests.append(request)
            await self.script(writer)
        else:
            await well(writer)

    async def stop(self) -> None:
        """Cut every connection."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)  # the transports close in the loop's next round


async def _read(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    lengths = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return head + (await reader.readexactly(int(lengths[0])) if lengths else b"")


@asynccontextmanager
async def raw_engine() -> AsyncIterator[Raw]:
    """A raw engine on a free port."""
    engine = Raw()
    server = await asyncio.start_server(engine.serve, "127.0.0.1", 0)
    engine.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield engine
    finally:
        server.close()
        await engine.stop()
