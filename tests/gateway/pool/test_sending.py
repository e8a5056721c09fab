from __future__ import annotations

import asyncio
from dataclasses import replace
from time import monotonic

import pytest

from gateway.errors import ConnectError, LostError
from gateway.pool.breaker import State
from gateway.pool.connection import Connection
from gateway.pool.options import PoolOptions
from gateway.pool.pool import Pools
from gateway.pool.replica import Replica
from gateway.settings import Limits
from tests.gateway.pool.talks import NOWHERE, OK, Heard, answering, ask, ask_pool, errand, request, speaking, spread
from tests.gateway.rig import until


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


async def test_a_replica_that_cannot_be_reached_is_passed_over():
    """The next replica answers; only when none can is it an error."""
    seen: list[int] = []
    pools = Pools(Limits())
    async with speaking(answering(*[OK] * 8, seen=seen)) as url:
        assert [await ask(pools, NOWHERE, url) for _ in range(8)] == [b"ok"] * 8
        pools.close()
    with pytest.raises(ConnectError):
        await ask(pools, NOWHERE)


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
        sending = pools.send_to(pool, errand(), heard, monotonic())
        await until(lambda: pools.connections, "a connection")
        await asyncio.sleep(0.05)
        assert pool.held == 1
        sending.abandon()
        await asyncio.wait_for(ended.wait(), 1)
    assert (heard.status, heard.last, pool.held) == (0, "", 0)


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
        pools.send_to(pool, errand(), heard, monotonic()).abandon()
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


@pytest.mark.source
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


@pytest.mark.parametrize(("asked", "counted"), [(0, 1), (700, 700), (10**18, 131_072)])
async def test_a_number_that_a_client_names_does_not_make_a_load(asked: int, counted: int):
    """Or one request could drive everybody away from a replica."""
    pools, heard = Pools(Limits()), Heard()
    async with speaking(answering(OK, OK, seen=[])) as url:
        pool = pools.pool("m", "baseline", (url,))
        pools.send_to(pool, replace(errand(), tokens=asked), heard, monotonic())
        assert pool.held == counted
        await until(lambda: heard.last, "the last word")
        assert pool.held == 0
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
        sending = pools.send_to(pool, errand(), heard, monotonic())
        assert seat.breaker.state is State.PROBING
        await asyncio.sleep(0.05)
        sending.abandon()
        assert seat.breaker.due(monotonic())


async def test_a_probe_that_may_not_even_try_to_connect_has_failed():
    """Too many others are trying: it must not stay the probe for ever."""
    pools = Pools(Limits())
    pool = pools.pool("m", "baseline", (NOWHERE,), PoolOptions(open_s=0.01))
    await ask_pool(pools, pool)
    (replica,) = pools.replicas
    await until(lambda: pool._known[NOWHERE].breaker.due(monotonic()), "its time")
    replica._connecting = 8
    assert isinstance((await ask_pool(pools, pool)).last, ConnectError)
    assert pool._known[NOWHERE].breaker.state is State.OPEN


async def test_a_sending_knows_which_replica_has_the_request():
    """The one that it was sent to last, also once it is over; none before."""
    pools, heard = Pools(Limits()), Heard()
    async with speaking(answering(*[OK] * 8, seen=[])) as url:
        pool = pools.pool("m", "baseline", (NOWHERE, url))
        for _ in range(4):
            sending = pools.send_to(pool, errand(), heard, monotonic())
            assert sending.replica in {0, 1}
            await until(lambda: heard.last, "an answer")
            assert (heard.last, sending.replica) == ("ended", 1)
            heard.last = ""
        pools.close()
    empty = pools.send_to(pools.pool("m", "candidate", ()), errand(), heard, monotonic())
    assert empty.replica == -1
