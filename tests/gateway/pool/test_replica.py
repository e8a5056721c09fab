from __future__ import annotations

import asyncio
from time import monotonic

import pytest

from gateway.errors import ConnectError
from gateway.pool.breaker import State
from gateway.pool.connection import Connection
from gateway.pool.pool import Pools
from gateway.pool.replica import Replica
from gateway.settings import Limits
from tests.gateway.pool.talks import NOWHERE, OK, Heard, answering, ask, ask_pool, errand, speaking
from tests.gateway.rig import until


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


@pytest.mark.source
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
        pools.send_to(pool, errand(), one, monotonic())
    await until(lambda: all(one.last for one in heard), "last words")
    assert most == 8


async def test_a_replica_knows_when_it_last_answered():
    """The health checks ask for it."""
    pools, before = Pools(Limits()), monotonic()
    async with speaking(answering(OK, seen=[])) as url:
        await ask(pools, url)
        assert [before <= replica.answered_at <= monotonic() for replica in pools.replicas] == [True]
        pools.close()


async def test_every_arm_learns_that_nobody_can_be_reached():
    """One arm's refused connection spares the other arms theirs."""
    pools = Pools(Limits())
    base, lora = (pools.pool("m", arm, (NOWHERE,)) for arm in ("baseline", "candidate"))
    await ask_pool(pools, base)
    assert lora._known[NOWHERE].breaker.state is State.OPEN
