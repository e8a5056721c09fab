from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from time import monotonic
from typing import Any

import pytest

from gateway.errors import BadAnswerError, ConnectError, LateError, LostError, UpstreamError
from gateway.pool.breaker import State
from gateway.pool.connection import Connection, Headers, Patience
from gateway.pool.fetch import fetch
from gateway.pool.options import PoolOptions
from gateway.pool.pool import Pools
from gateway.pool.replica import Replica
from gateway.pool.seats import Pool
from gateway.pool.sending import Errand, head_of
from gateway.settings import Limits
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

    def head(self, status: int, headers: Headers) -> None:
        """Keep the status."""
        self.status = status

    def body(self, piece: bytes) -> None:
        """Keep a piece."""
        self.pieces.append(piece)

    def ended(self) -> None:
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


async def test_a_connection_is_kept_and_used_again():
    """Keep-alive: two requests, one connection."""
    seen: list[int] = []
    pools = Pools(Limits())
    async with speaking(answering(OK, OK, OK, seen=seen)) as url:
        assert [await ask(pools, url) for _ in range(2)] == [b"ok", b"ok"]
        assert (seen, pools.connections) == ([2], 1)
        pools.close()


async def test_a_reused_connection_that_dies_unheard_is_tried_once_more():
    """The engine closed it in the moment it was used; a fresh one answers."""
    seen: list[int] = []
    pools = Pools(Limits())
    async with speaking(answering(OK, b"", seen=seen)) as url:
        await ask(pools, url)
        assert await ask(pools, url) == b"ok"
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
        await ask(pools, url)
        await asyncio.sleep(0.1)
        await ask(pools, url)
        assert seen == [1, 1]
        pools.close()


async def test_idle_connections_are_closed_though_nobody_asks():
    """Once a second; the engine may keep them for hours."""
    pools = Pools(Limits(idle_s=0.05))
    async with speaking(answering(OK, OK, seen=[])) as url:
        await ask(pools, url)
        pools.keep({url})
        assert pools.connections == 1
        await asyncio.sleep(0.1)
        pools.keep({url})
        await until(lambda: not pools.connections, "the end of the connection")


async def test_a_replica_that_cannot_be_reached_is_passed_over():
    """The next replica answers; only when none can is it an error."""
    seen: list[int] = []
    pools = Pools(Limits())
    async with speaking(answering(*[OK] * 8, seen=seen)) as url:
        assert [await ask(pools, NOWHERE, url) for _ in range(8)] == [b"ok"] * 8
        pools.close()
    with pytest.raises(ConnectError):
        await ask(pools, NOWHERE)


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


async def test_nothing_is_heard_of_a_request_that_was_abandoned():
    """The engine's connection ends at once, and its replica has nothing in hand any more."""
    ended = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        assert await reader.read() == b""
        ended.set()

    pools, heard = Pools(Limits()), Heard()
    async with speaking(talk) as url:
        pool = pools.pool("m", "baseline", (url,))
        sending = pools.send_to(pool, errand(), heard)
        await until(lambda: pools.connections, "a connection")
        await asyncio.sleep(0.05)
        assert pool.held == 1
        sending.abandon()
        await asyncio.wait_for(ended.wait(), 1)
    assert (heard.status, heard.last, pool.held) == (0, "", 0)


async def test_bytes_after_a_complete_reply_end_its_connection():
    """A second answer that nobody asked for must not become the next request's."""
    seen: list[int] = []
    pools = Pools(Limits())
    async with speaking(answering(OK + OK, OK, seen=seen)) as url:
        assert await ask(pools, url) == b"ok"
        assert await ask(pools, url) == b"ok"
        assert seen == [1, 1]
        pools.close()


async def ask_pool(pools: Pools, pool: Pool, **more: Any) -> Heard:
    """Send `{}` to a pool and wait for the last word."""
    heard = Heard()
    pools.send_to(pool, replace(errand(), **more), heard)
    await until(lambda: heard.last, "the last word")
    return heard


def spread(pools: Pools) -> dict[int, Replica]:
    """The replicas by their port."""
    return {replica.port: replica for replica in pools.replicas}


async def test_a_request_that_may_have_killed_its_engine_is_given_to_nobody_else():
    """A reused connection died unheard, and then the engine was gone: no idle connection was closed there."""
    seen: list[int] = []
    pools = Pools(Limits())

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(OK)
        await request(reader)
        server.close()
        writer.close()

    server = await asyncio.start_server(served, "127.0.0.1", 0)
    first = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with speaking(answering(OK, OK, seen=seen)) as second:
        await ask_pool(pools, pools.pool("m", "baseline", (first,)))
        pool = pools.pool("m", "baseline", (first, second))
        heard = await ask_pool(pools, pool)
        assert (isinstance(heard.last, LostError), seen, pool.held) == (True, [], 0)
        pools.close()


async def test_what_was_abandoned_while_connecting_is_sent_nowhere():
    """Its client is gone: the next replica must not be given it."""
    seen: list[int] = []
    pools, heard = Pools(Limits()), Heard()
    async with speaking(answering(OK, seen=seen)) as url:
        pool = pools.pool("m", "baseline", (NOWHERE, url))
        spread(pools)[int(url.rpartition(":")[2])].tokens = 9
        pools.send_to(pool, errand(), heard).abandon()
        await asyncio.sleep(0.1)
        assert (seen, heard.last, pool.held) == ([], "", 0)


async def test_another_replica_is_asked_as_long_as_there_is_one_and_each_time_is_counted():
    """Two that refuse, then one that answers."""
    retried: list[str] = []
    pools = Pools(Limits(), retried.append)
    async with speaking(answering(OK, OK, OK, seen=[])) as url:
        pool = pools.pool("m", "baseline", (NOWHERE, "http://127.0.0.1:2", url))
        spread(pools)[int(url.rpartition(":")[2])].tokens = 99
        heard = await ask_pool(pools, pool)
        assert (heard.last, retried) == ("ended", ["m", "m"])
        for _ in range(2):
            await ask_pool(pools, pool)
        assert retried == ["m", "m"]
        pools.close()


async def test_each_replica_is_tried_once():
    """Where all refuse, the client hears of it after one attempt each; and so does the next."""
    retried: list[str] = []
    pools = Pools(Limits(), retried.append)
    pool = pools.pool("m", "baseline", tuple(f"http://127.0.0.1:{port}" for port in (1, 2, 3)))
    for _ in range(2):
        assert isinstance((await ask_pool(pools, pool)).last, ConnectError)
    assert (retried, pool.held) == (["m"] * 4, 0)


async def test_nobody_waits_for_connection_after_connection(monkeypatch: pytest.MonkeyPatch):
    """Replicas that swallow every attempt to connect cost a client two of them, not twenty."""

    async def swallow(replica: Replica) -> Connection:
        await asyncio.sleep(0.05)
        raise ConnectError("timed out")

    monkeypatch.setattr(Replica, "connect", swallow)
    retried: list[str] = []
    pools = Pools(Limits(connect_s=0.05), retried.append)
    pool = pools.pool("m", "baseline", tuple(f"http://swallow-{number}:9" for number in range(20)))
    heard = await ask_pool(pools, pool)
    assert (type(heard.last), len(retried) <= 1) == (ConnectError, True)


async def test_a_host_that_swallows_attempts_does_not_eat_up_the_sockets(monkeypatch: pytest.MonkeyPatch):
    """Once one attempt has failed, a few try at a time, and the others are told at once."""
    trying = most = 0

    async def swallow(replica: Replica) -> Connection:
        nonlocal trying, most
        trying += 1
        most = max(most, trying)
        await asyncio.sleep(0.05)
        trying -= 1
        replica.refused = True
        raise ConnectError("timed out")

    monkeypatch.setattr(Replica, "_connect", swallow)
    pools = Pools(Limits())
    pool = pools.pool("m", "baseline", ("http://swallow:9",))
    await ask_pool(pools, pool)
    heard = [Heard() for _ in range(50)]
    for one in heard:
        pools.send_to(pool, errand(), one)
    await until(lambda: all(one.last for one in heard), "last words")
    assert most == 8


@pytest.mark.parametrize(
    ("status", "state"), [(400, State.CLOSED), (404, State.CLOSED), (429, State.CLOSED), (500, State.OPEN)]
)
async def test_what_clients_do_wrong_says_nothing_against_an_engine(status: int, state: State):
    """Six in a row: a 5xx opens its breaker, a 4xx never."""
    raw = b"HTTP/1.1 %d X\r\ncontent-length: 0\r\n\r\n" % status
    pools = Pools(Limits())
    async with speaking(answering(*[raw] * 6, seen=[])) as url:
        pool = pools.pool("m", "baseline", (url, NOWHERE))
        spread(pools)[1].found(up=False)
        for _ in range(6):
            assert (await ask_pool(pools, pool)).status == status
        assert pool._known[url].breaker.state is state
        pools.close()


async def test_a_probe_whose_client_leaves_frees_the_next_probe():
    """It said nothing about the engine."""
    pools, heard = Pools(Limits()), Heard()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with speaking(silent) as url:
        pool = pools.pool("m", "baseline", (url, NOWHERE), PoolOptions(open_s=0.01))
        seat = pool._known[url]
        seat.unreachable(monotonic())
        await asyncio.sleep(0.02)
        sending = pools.send_to(pool, errand(), heard)
        assert seat.breaker.state is State.PROBING
        await asyncio.sleep(0.05)
        sending.abandon()
        assert seat.breaker.due(monotonic())


async def test_arms_share_an_engines_connections():
    """A LoRA candidate beside its base: one engine, one set of connections, two pools."""
    seen: list[int] = []
    pools = Pools(Limits())
    async with speaking(answering(OK, OK, seen=seen)) as url:
        base, lora = (pools.pool("m", arm, (url,)) for arm in ("baseline", "candidate"))
        await ask_pool(pools, base)
        await ask_pool(pools, lora)
        assert (base is lora, seen) == (False, [2])
        pools.close()


async def test_an_arms_pool_is_one_and_the_same_from_one_generation_to_the_next():
    """Its breakers, its slots and its queue outlive a new split and new options."""
    pools = Pools(Limits())
    first = pools.pool("m", "baseline", ("http://a:1", "http://b:1"))
    assert pools.pool("m", "baseline", ("http://b:1", "http://c:1"), PoolOptions(slots=3)) is first
    assert (first.options.slots, sorted(replica.host for replica in pools.replicas)) == (3, ["a", "b", "c"])
    assert pools.pool("m", "candidate", ("http://b:1",)).budget is first.budget


async def test_what_nothing_names_any_more_is_closed_and_forgotten():
    """Idle connections at once, those under way when they are done; then nothing is left of it."""
    hold = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        await hold.wait()
        writer.write(OK)
        await reader.read()

    pools, heard = Pools(Limits()), Heard()
    async with speaking(talk) as gone, speaking(answering(OK, OK, seen=[])) as kept:
        for url in (gone, kept):
            pools.send_to(pools.pool(url, "baseline", (url,)), errand(), heard)
        await until(lambda: pools.connections == 2, "connections")
        pools.keep({kept})
        assert [replica.port for replica in pools.replicas] == [int(kept.rpartition(":")[2])]
        assert pools.connections == 2
        hold.set()
        heard.last = ""
        await until(lambda: heard.last, "the last word")
        await until(lambda: pools.connections == 1, "the end of the connection")
        pools.keep({kept})
        assert (heard.last, len(pools._replicas), len(pools._pools), len(pools._budgets)) == ("ended", 1, 1, 1)
        pools.close()


async def test_what_is_named_again_is_kept_again():
    """A candidate that was withdrawn for a moment, by the very same split."""
    seen: list[int] = []
    pools = Pools(Limits())
    async with speaking(answering(OK, OK, seen=seen)) as url:
        urls = (url,)
        for _ in range(3):
            await ask_pool(pools, pools.pool("m", "candidate", urls))
            pools.keep(())
        assert (seen, len(pools.replicas)) == ([1, 1, 1], 0)


async def test_what_is_named_again_while_a_request_is_under_way_is_kept():
    """It never was quite gone: the same replica, the same connection."""
    seen: list[int] = []
    pools, heard, hold = Pools(Limits()), Heard(), asyncio.Event()
    talk = answering(OK, OK, OK, seen=seen)

    async def held(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await hold.wait()
        await talk(reader, writer)

    async with speaking(held) as url:
        urls = (url,)
        pools.send_to(pools.pool("m", "candidate", urls), errand(), heard)
        await until(lambda: pools.connections, "a connection")
        pools.keep(())
        pool = pools.pool("m", "candidate", urls)
        hold.set()
        await until(lambda: heard.last, "the last word")
        await ask_pool(pools, pool)
        assert (seen, len(pools.replicas)) == ([2], 1)
        pools.close()


async def test_a_replica_knows_when_it_last_answered():
    """The health checks ask for it."""
    pools, before = Pools(Limits()), monotonic()
    async with speaking(answering(OK, seen=[])) as url:
        await ask(pools, url)
        assert [before <= replica.answered_at <= monotonic() for replica in pools.replicas] == [True]
        pools.close()


async def test_whether_an_arm_is_up():
    """Not when its only engine refuses; an arm that was never asked may be."""
    pools = Pools(Limits())
    assert pools.up("m", "baseline")
    await ask_pool(pools, pools.pool("m", "baseline", (NOWHERE,)))
    assert not pools.up("m", "baseline")
    async with speaking(answering(OK, seen=[])) as url:
        next(iter(pools.replicas)).port = int(url.rpartition(":")[2])
        await ask_pool(pools, pools.pool("m", "baseline", (NOWHERE,)))
    assert pools.up("m", "baseline")
