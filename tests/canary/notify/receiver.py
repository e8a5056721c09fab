"""A receiver of notifications on a real socket, that answers as a test wants it to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


def status(code: int, *headers: str, body: bytes = b"ok") -> Answer:
    """Answer with a status."""

    async def answer(out: asyncio.StreamWriter) -> None:
        head = "\r\n".join((f"HTTP/1.1 {code} X", f"Content-Length: {len(body)}", "Connection: close", *headers))
        out.write(head.encode() + b"\r\n\r\n" + body)

    return answer


async def hang(_out: asyncio.StreamWriter) -> None:
    """Never answer."""
    await asyncio.sleep(60)


async def drip(out: asyncio.StreamWriter) -> None:
    """Answer a byte at a time, for ever."""
    while True:
        out.write(b"H")
        await out.drain()
        await asyncio.sleep(0.05)


async def close(_out: asyncio.StreamWriter) -> None:
    """Go without a word."""


async def flood(out: asyncio.StreamWriter) -> None:
    """Answer at once, with a body that never ends."""
    out.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        out.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
        await out.drain()


@dataclass(slots=True)
class Receiver:
    """What came, and what is answered: `answers` in turn, the last one from then on."""

    url: str = ""
    answers: list[Answer] = field(default_factory=lambda: [status(200)])
    heard: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    def bodies(self) -> list[dict[str, Any]]:
        """Return what was said, as JSON."""
        return [json.loads(body) for _, body in self.heard]

    def ids(self) -> list[str]:
        """Return the delivery ids."""
        return [headers["x-linnet-delivery"] for headers, _ in self.heard]

    async def until(self, count: int, seconds: float = 5.0) -> None:
        """Wait for so many requests."""
        async with asyncio.timeout(seconds):
            while len(self.heard) < count:  # noqa: ASYNC110 - a test polls
                await asyncio.sleep(0.01)

    async def _serve(self, reader: asyncio.StreamReader, out: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[1:-2]
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head)}
            body = await reader.readexactly(int(headers["content-length"]))
            self.heard.append((headers, body))
            await (self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])(out)
            await out.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            out.close()


@asynccontextmanager
async def receiver(*answers: Answer) -> AsyncIterator[Receiver]:
    """Run a receiver until the block ends."""
    one, tasks = Receiver(answers=list(answers) or [status(200)]), set()

    async def serve(reader: asyncio.StreamReader, out: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        tasks.add(task)
        await one._serve(reader, out)
        tasks.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    one.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
    try:
        yield one
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
