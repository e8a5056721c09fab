from __future__ import annotations

import asyncio

import pytest

from gateway.errors import BadAnswerError, LateError, LostError
from gateway.pool.connection import Patience
from gateway.pool.pool import Pools
from gateway.settings import Limits
from tests.gateway.pool.talks import OK, Heard, answering, ask, errand, request, speaking
from tests.gateway.rig import until


async def test_a_connection_is_kept_and_used_again():
    """Keep-alive: two requests, one connection."""
    seen: list[int] = []
    pools = Pools(Limits())
    async with speaking(answering(OK, OK, OK, seen=seen)) as url:
        assert [await ask(pools, url) for _ in range(2)] == [b"ok", b"ok"]
        assert (seen, pools.connections) == ([2], 1)
        pools.close()


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

    pools, heard = Pools(Limits()), Heard()
    async with speaking(talk) as url:
        pools.send([url], errand(), heard)
        await until(lambda: heard.last, "the last word")
        pools.close()
    assert (heard.pieces, heard.last) == ([b"a", b"bb", b"ccc"], "ended")


async def test_an_answer_that_ends_with_its_connection_is_whole():
    """HTTP/1.0 style: no length, no chunks."""
    async with speaking(answering(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nall of it", seen=[])) as url:
        assert await ask(Pools(Limits()), url) == b"all of it"


async def test_an_answer_cut_before_its_length_is_lost():
    """Less than was promised is no answer."""
    async with speaking(answering(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nfour", seen=[])) as url:
        with pytest.raises(LostError):
            await ask(Pools(Limits()), url)


async def test_a_paused_reply_waits_for_its_client_and_that_is_not_the_engines_fault():
    """Nothing is read while the client cannot take it, and no limit between pieces runs."""
    size = 64_000_000

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + b"x" * size)
        await writer.drain()

    pools, heard = Pools(Limits()), Heard()
    async with speaking(talk) as url:
        sending = pools.send([url], errand(Patience(1, 0.2, 20)), heard)
        await until(lambda: heard.pieces, "the first piece")
        sending.pause()
        await asyncio.sleep(0.1)
        held = heard.size
        await asyncio.sleep(0.5)
        assert (heard.size, heard.last) == (held, "")
        sending.resume()
        await until(lambda: heard.last, "the last word")
        assert (heard.size, heard.last) == (size, "ended")
        pools.close()


async def test_bytes_after_a_complete_reply_end_its_connection():
    """A second answer that nobody asked for must not become the next request's."""
    seen: list[int] = []
    pools = Pools(Limits())
    async with speaking(answering(OK + OK, OK, seen=seen)) as url:
        assert await ask(pools, url) == b"ok"
        assert await ask(pools, url) == b"ok"
        assert seen == [1, 1]
        pools.close()
