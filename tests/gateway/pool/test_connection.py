from __future__ import annotations

import asyncio

import pytest

from gateway.errors import BadAnswerError, LateError, LostError
from gateway.pool.fetch import fetch
from gateway.pool.pool import Pools
from gateway.pool.sink import Headers, Patience
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


# a head that the engine says again

KEPT = b"HTTP/1.1 200 OK\r\ndate: now\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"


def kept(body: bytes, *, old: bytes = b"", new: bytes = b"") -> bytes:
    """A reply as it is said each time, or a little different."""
    return (KEPT % (len(body), body)).replace(old, new)


class Blind:
    """A parser that must not be asked to read."""

    def feed_data(self, data: bytes) -> None:
        """Fail."""
        raise AssertionError(f"read again: {data!r}")


def blinded(pools: Pools) -> None:
    """Let nothing more be parsed on the one idle connection."""
    (replica,) = pools.replicas
    (connection,) = replica._idle
    connection._parser = Blind()


async def ask_whole(pools: Pools, url: str) -> tuple[int, dict[bytes, bytes], bytes]:
    """Send `{}` and return the reply."""
    status, headers, body = await fetch(pools, [url], errand(), 1 << 20)
    return status, dict(headers), body


async def test_a_repeated_head_is_not_read_again():
    """Bodies of any length, none included; the parser hears of the first alone."""
    bodies = [b"ok", b"", b"x", b"\r\n\r\n", b"content-length: 2\r\n\r\nok", b"{}" * 4000, b""]
    seen: list[int] = []
    pools = Pools(Limits())
    async with speaking(answering(*(kept(body) for body in bodies), b"", seen=seen)) as url:
        replies = [await ask_whole(pools, url)]
        blinded(pools)
        replies += [await ask_whole(pools, url) for _ in bodies[1:]]
        pools.close()
    assert [body for _, _, body in replies] == bodies
    assert {(status, headers[b"content-type"]) for status, headers, _ in replies} == {(200, b"application/json")}
    assert seen == [7]


async def test_an_empty_reply_is_remembered_too():
    """A length of nothing is a length."""
    pools, seen = Pools(Limits()), []
    async with speaking(answering(kept(b""), kept(b"ok"), b"", seen=seen)) as url:
        assert await ask(pools, url) == b""
        blinded(pools)
        assert await ask(pools, url) == b"ok"
        pools.close()


@pytest.mark.parametrize(
    ("old", "new", "status", "headers"),
    [
        (b"200 OK", b"503 Service Unavailable", 503, {}),
        (b"200 OK", b"201 OK", 201, {}),
        (b"date: now", b"date: then", 200, {b"date": b"then"}),
        (b"application/json", b"text/event-stream", 200, {b"content-type": b"text/event-stream"}),
        (b"content-type", b"Content-Type", 200, {b"content-type": b"application/json"}),
        (b"date: now\r\n", b"date: now\r\nx: y\r\n", 200, {b"x": b"y"}),
        (b"date: now\r\n", b"", 200, {}),
    ],
)
async def test_another_head_is_read(old: bytes, new: bytes, status: int, headers: dict[bytes, bytes]):
    """What the new reply says holds, and is what is known from then on."""
    other, seen = kept(b"other", old=old, new=new), []
    pools = Pools(Limits())
    async with speaking(answering(kept(b"ok"), other, kept(b"again", old=old, new=new), b"", seen=seen)) as url:
        await ask(pools, url)
        replies = [await ask_whole(pools, url)]
        blinded(pools)
        replies += [await ask_whole(pools, url)]
        pools.close()
    assert [body for _, _, body in replies] == [b"other", b"again"]
    assert all(reply[0] == status and headers.items() <= reply[1].items() for reply in replies)
    assert (b"date" in replies[0][1]) is (new != b"")


@pytest.mark.parametrize("at", [1, 40, len(kept(b"")) - 1, len(kept(b"")), len(kept(b"")) + 2])
async def test_a_repeated_reply_in_two_pieces_is_read(at: int):
    """Wherever it is cut; the head stays known."""
    await cut_in_two(b"cut in two", at)


async def test_a_piece_of_a_body_that_is_a_known_reply_is_a_piece():
    """Only what comes first after a request can be its reply."""
    within = kept(b"within")
    await cut_in_two(within, len(kept(within)) - len(within))


async def cut_in_two(body: bytes, at: int) -> None:
    """Let a reply whose head is known come in two pieces."""
    whole = kept(body)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for pieces in ([kept(b"ok")], [whole[:at], whole[at:]], [kept(b"again")]):
            await request(reader)
            for piece in pieces:
                writer.write(piece)
                await asyncio.sleep(0.03)
        await reader.read(1)

    pools = Pools(Limits())
    async with speaking(talk) as url:
        assert [await ask(pools, url) for _ in range(2)] == [b"ok", body]
        blinded(pools)
        assert await ask(pools, url) == b"again"
        pools.close()


@pytest.mark.parametrize("stray", [b"x", b"\r\n\r\nx", kept(b"unasked"), b"HTTP/1.1 200 OK\r\n"])
async def test_bytes_behind_a_repeated_reply_end_its_connection(stray: bytes):
    """In one piece with it: the answer is whole, and the next request takes a fresh connection."""
    seen: list[int] = []
    pools = Pools(Limits())
    async with speaking(answering(kept(b"ok"), kept(b"good") + stray, b"", seen=seen)) as url:
        assert [await ask(pools, url) for _ in range(3)] == [b"ok", b"good", b"ok"]
        assert seen == [2, 1]
        pools.close()


async def test_bytes_that_come_after_a_repeated_reply_end_its_connection():
    """An engine that speaks unasked is not asked again."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for body in (b"ok", b"good"):
            await request(reader)
            writer.write(kept(body))
        await asyncio.sleep(0.05)
        writer.write(kept(b"unasked"))
        await reader.read(1)

    pools = Pools(Limits())
    async with speaking(talk) as url:
        assert [await ask(pools, url) for _ in range(2)] == [b"ok", b"good"]
        await until(lambda: pools.connections == 0, "closed")
        pools.close()


class Failing(Heard):
    """A sink that raises where it is told to."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where

    def head(self, status: int, headers: Headers, at: float) -> None:
        """Raise, or keep the status."""
        if self.where == "head":
            raise RuntimeError
        super().head(status, headers, at)

    def body(self, piece: bytes, at: float) -> None:
        """Raise, or keep a piece."""
        if self.where == "body":
            raise RuntimeError
        super().body(piece, at)

    def ended(self, at: float) -> None:
        """Raise, or keep the last word."""
        if self.where == "ended":
            raise RuntimeError
        super().ended(at)


@pytest.mark.parametrize("where", ["head", "body", "ended"])
async def test_who_cannot_take_a_repeated_reply_hears_that_it_failed(where: str):
    """A client is not left waiting, and the connection is not used again half read."""
    seen: list[int] = []
    pools, failing = Pools(Limits()), Failing(where)
    async with speaking(answering(kept(b"ok"), kept(b"lost"), kept(b"last"), b"", seen=seen)) as url:
        await ask(pools, url)
        blinded(pools)
        pools.send([url], errand(), failing)
        await until(lambda: failing.last, "the last word", seconds=2)
        assert isinstance(failing.last, BadAnswerError)
        assert await ask(pools, url) == (b"last" if where == "ended" else b"ok")
        assert seen == ([3] if where == "ended" else [2, 1])
        pools.close()


async def test_who_leaves_at_the_head_of_a_repeated_reply_hears_no_more():
    """Nothing follows, and the connection goes with them."""

    class Leaving(Heard):
        def head(self, status: int, headers: Headers, at: float) -> None:
            """Leave."""
            super().head(status, headers, at)
            sending.abandon()

    pools, leaving = Pools(Limits()), Leaving()
    async with speaking(answering(kept(b"ok"), kept(b"lost"), seen=[])) as url:
        await ask(pools, url)
        sending = pools.send([url], errand(), leaving)
        await until(lambda: leaving.status and pools.connections == 0, "closed")
        assert (leaving.pieces, leaving.last) == ([], "")
        pools.close()


@pytest.mark.parametrize("raw", [b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok", OK + b"x"])
async def test_a_connection_that_is_not_kept_remembers_nothing(raw: bytes):
    """Each reply of it is the first."""
    seen: list[int] = []
    pools = Pools(Limits())
    async with speaking(answering(raw, seen=seen)) as url:
        assert [await ask(pools, url) for _ in range(2)] == [b"ok", b"ok"]
        assert seen == [1, 1]
        pools.close()


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
async def test_a_status_without_a_body_has_none_when_it_is_repeated_either(status: bytes):
    """What stands behind its head belongs to nobody, whatever length is named."""
    pools = Pools(Limits())
    nothing, something = (kept(body, old=b"200 OK", new=status) for body in (b"", b"hello"))
    async with speaking(answering(nothing, something, b"", seen=[])) as url:
        assert [await ask(pools, url) for _ in range(2)] == [b"", b""]
        assert pools.connections == 0
        pools.close()
