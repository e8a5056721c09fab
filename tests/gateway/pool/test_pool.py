from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from gateway.errors import BadAnswerError, ConnectError, LateError, LostError
from gateway.pool.connection import Patience, Reply
from gateway.pool.pool import Head, Pools
from gateway.settings import Limits
from tests.gateway.rig import until

PATIENCE = Patience(1, 1, 5)
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


async def ask(pools: Pools, *urls: str, patience: Patience = PATIENCE) -> Reply:
    """Send `{}`."""
    return await pools.ask(urls, Head("/v1/x", "r1"), b"{}", patience)


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


async def test_a_connection_is_kept_and_used_again():
    """Keep-alive: two requests, one connection."""
    seen: list[int] = []
    pools = Pools(Limits())
    async with speaking(answering(OK, OK, OK, seen=seen)) as url:
        assert [await (await ask(pools, url)).read(99) for _ in range(2)] == [b"ok", b"ok"]
        assert (seen, pools.connections) == ([2], 1)
        pools.close()


async def test_a_reused_connection_that_dies_unheard_is_tried_once_more():
    """The engine closed it in the moment it was used; a fresh one answers."""
    seen: list[int] = []
    pools = Pools(Limits())
    async with speaking(answering(OK, b"", seen=seen)) as url:
        await (await ask(pools, url)).read(99)
        assert await (await ask(pools, url)).read(99) == b"ok"
        assert seen == [2, 1]
        pools.close()


async def test_a_fresh_connection_that_dies_is_a_failure():
    """Nothing is sent twice to an engine that may have worked on it."""
    seen: list[int] = []
    async with speaking(answering(b"", seen=seen)) as url:
        with pytest.raises(LostError):
            await ask(Pools(Limits()), url)
    assert seen == [1]


async def test_an_idle_connection_older_than_the_engine_keeps_is_not_used():
    """Below the engine's own limit."""
    seen: list[int] = []
    pools = Pools(Limits(idle_s=0.05))
    async with speaking(answering(OK, OK, seen=seen)) as url:
        await (await ask(pools, url)).read(99)
        await asyncio.sleep(0.1)
        await (await ask(pools, url)).read(99)
        assert seen == [1, 1]
        pools.close()


async def test_a_replica_that_cannot_be_reached_is_passed_over():
    """The next replica answers; only when none can is it an error."""
    seen: list[int] = []
    pools = Pools(Limits())
    async with speaking(answering(OK, OK, seen=seen)) as url:
        assert await (await ask(pools, "http://127.0.0.1:1", url)).read(99) == b"ok"
        assert pools.order(["http://127.0.0.1:1", url])[0].port != 1
        pools.close()
    with pytest.raises(ConnectError):
        await ask(pools, "http://127.0.0.1:1")


async def test_the_least_busy_replica_is_asked_first():
    """Least outstanding; in turns where they are equal."""
    pools = Pools(Limits())
    urls = ["http://127.0.0.1:1", "http://127.0.0.1:2", "http://127.0.0.1:3"]
    assert [pools.order(urls)[0].port for _ in range(6)] == [1, 2, 3, 1, 2, 3]
    pools.order(urls)[0].outstanding = 5
    assert 1 not in {pools.order(urls)[0].port for _ in range(6)}


@pytest.mark.parametrize(
    ("first", "rest", "says"),
    [
        (b"", b"", "first byte"),
        (b"HTTP/1.1 200 OK\r\n", b"", "between"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"1\r\na\r\n", "in all"),
    ],
)
async def test_each_wait_has_its_limit(first: bytes, rest: bytes, says: str):
    """The first byte, the pause between two pieces, and the whole."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(first)
        for _ in range(40):
            await asyncio.sleep(0.05)
            writer.write(rest)
            await writer.drain()

    async with speaking(talk) as url:
        with pytest.raises(LateError, match=says):
            await (await ask(Pools(Limits()), url, patience=Patience(0.15, 0.2, 0.5))).read(999)


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 300 + b"\r\n",
    ],
)
async def test_what_is_not_http_is_refused(raw: bytes):
    """An engine that speaks nonsense fails; the gateway does not."""
    async with speaking(answering(raw, seen=[])) as url:
        with pytest.raises(BadAnswerError):
            await ask(Pools(Limits()), url)


async def test_pieces_arrive_as_they_were_sent():
    """No merging: each chunk of the engine is one piece."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbb\r\n3\r\nccc\r\n0\r\n\r\n")
        await reader.read(1)

    pools = Pools(Limits())
    async with speaking(talk) as url:
        reply = await ask(pools, url)
        pieces = []
        while (piece := await reply.piece()) is not None:
            pieces.append(piece)
        pools.close()
    assert pieces == [b"a", b"bb", b"ccc"]


async def test_an_answer_that_ends_with_its_connection_is_whole():
    """HTTP/1.0 style: no length, no chunks."""
    async with speaking(answering(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nall of it", seen=[])) as url:
        assert await (await ask(Pools(Limits()), url)).read(99) == b"all of it"


async def test_an_answer_cut_before_its_length_is_lost():
    """Less than was promised is no answer."""
    async with speaking(answering(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nfour", seen=[])) as url:
        reply = await ask(Pools(Limits()), url)
        with pytest.raises(LostError):
            await reply.read(99)


async def test_a_reply_read_late_leaves_the_next_one_on_its_connection_alone():
    """A reply may still be held while its connection serves the next: draining it must not lift that one's brake."""
    big = 300_000

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for size in (big, 64 * big):
            await request(reader)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + b"x" * size)
            await writer.drain()

    pools = Pools(Limits())
    async with speaking(talk) as url:
        first = await ask(pools, url)
        await until(lambda: first.complete, "the first reply")
        second = await ask(pools, url)
        await until(lambda: second.backed_up, "the second reply")
        held = second._size
        assert len(await first.read(big)) == big
        await asyncio.sleep(0.1)
        assert second._size == held
        second.abort()
        await asyncio.sleep(0)
