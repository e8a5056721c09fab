from __future__ import annotations

import asyncio
from time import monotonic

from gateway.pool.options import PoolOptions
from gateway.pool.pool import Pools
from gateway.settings import Limits
from tests.gateway.pool.talks import NOWHERE, OK, Heard, answering, ask, ask_pool, errand, request, speaking
from tests.gateway.rig import until


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
            pools.send_to(pools.pool(url, "baseline", (url,)), errand(), heard, monotonic())
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
        pools.send_to(pools.pool("m", "candidate", urls), errand(), heard, monotonic())
        await until(lambda: pools.connections, "a connection")
        pools.keep(())
        pool = pools.pool("m", "candidate", urls)
        hold.set()
        await until(lambda: heard.last, "the last word")
        await ask_pool(pools, pool)
        assert (seen, len(pools.replicas)) == ([2], 1)
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
