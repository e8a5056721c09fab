"""Servers that speak as a test tells them, and somebody who listens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from time import monotonic
from typing import Any

from gateway.errors import UpstreamError
from gateway.pool.fetch import fetch
from gateway.pool.pool import Pools
from gateway.pool.replica import Replica
from gateway.pool.seats import Pool
from gateway.pool.sending import Errand, head_of
from gateway.pool.sink import Headers, Patience
from tests.gateway.rig import until

PATIENCE = Patience(1, 1, 5)
NOWHERE = "http://127.0.0.1:1"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def speaking(talk: Talk) -> AsyncIterator[str]:
    """A server that speaks as it is told, one call of `talk` a connection."""

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await talk(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(served, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def request(reader: asyncio.StreamReader) -> None:
    """Read one request with the body `{}`."""
    await reader.readuntil(b"\r\n\r\n{}")


def errand(patience: Patience = PATIENCE) -> Errand:
    """A request with the body `{}`."""
    return Errand(b"/v1/x", head_of("r1"), b"{}", patience)


async def ask(pools: Pools, *urls: str, patience: Patience = PATIENCE, most: int = 999) -> bytes:
    """Send `{}` and return the body of the answer."""
    return (await fetch(pools, urls, errand(patience), most))[2]


class Heard:
    """A sink that remembers."""

    def __init__(self) -> None:
        self.status = 0
        self.pieces: list[bytes] = []
        self.last: UpstreamError | str = ""

    def head(self, status: int, headers: Headers, at: float) -> None:
        """Keep the status."""
        self.status = status

    def body(self, piece: bytes, at: float) -> None:
        """Keep a piece."""
        self.pieces.append(piece)

    def ended(self, at: float) -> None:
        """Keep the last word."""
        self.last = "ended"

    def failed(self, error: UpstreamError) -> None:
        """Keep the last word."""
        self.last = error

    @property
    def size(self) -> int:
        """How many bytes came."""
        return sum(map(len, self.pieces))


def answering(*raw: bytes, seen: list[int]) -> Talk:
    """Answer each request of a connection with the next raw bytes, then close."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(0)
        for part in raw:
            await request(reader)
            seen[-1] += 1
            writer.write(part)
            await writer.drain()

    return talk


async def ask_pool(pools: Pools, pool: Pool, **more: Any) -> Heard:
    """Send `{}` to a pool and wait for the last word."""
    heard = Heard()
    pools.send_to(pool, replace(errand(), **more), heard, monotonic())
    await until(lambda: heard.last, "the last word")
    return heard


def spread(pools: Pools) -> dict[int, Replica]:
    """The replicas by their port."""
    return {replica.port: replica for replica in pools.replicas}
