"""The pools as a worker's clients meet them: several simulated engines behind one model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from time import monotonic
from typing import Any

import httpx
import pytest

from canary.core.arms import Endpoint, Split
from gateway.pool.breaker import State
from gateway.pool.options import Balance, PoolOptions
from gateway.pool.pool import Pools
from gateway.pool.seats import Pool, Seat
from gateway.pool.sending import Errand, head_of
from gateway.pool.sink import Patience
from tests.gateway.pool.talks import Heard
from tests.gateway.rig import LIMITS, MODEL, House, Sim, gateway, simulated, until

QUICK = PoolOptions(failures=2, open_s=0.2, open_most_s=0.4, slow_start_s=0, health_s=0)
AFFINITY = replace(QUICK, balance=Balance.AFFINITY)
Start = Callable[..., AbstractAsyncContextManager[House]]


@pytest.fixture
async def engines() -> AsyncIterator[list[Sim]]:
    """Three replicas of one engine."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(simulated("base")) for _ in range(3)]


@pytest.fixture
def start(engines: list[Sim], tmp_path: Path) -> Start:
    """Start a worker before them."""

    @asynccontextmanager
    async def started(options: PoolOptions, **limits: float) -> AsyncIterator[House]:
        endpoint = Endpoint("base", "base", tuple(sim.url for sim in engines))
        more = {"limits": replace(LIMITS, **limits), "pools": {MODEL: options}}
        async with gateway(tmp_path, Split(MODEL, 0, endpoint), **more) as house:
            yield house

    return started


def pool(house: House) -> Pool:
    """The baseline's pool."""
    pools = house.app.desk.pools
    return pools.pool(MODEL, "baseline", *_asked(house))


def _asked(house: House) -> tuple[Any, PoolOptions]:
    route = house.app.parts.splits.route(MODEL)
    assert route is not None
    return route.split.baseline.replicas, route.pool


def seat(house: House, sim: Sim) -> Seat:
    """One replica's seat."""
    return pool(house)._known[sim.url]


def started(engines: list[Sim]) -> list[int]:
    """How many requests each engine has seen."""
    return [sim.engine.counts["started"] for sim in engines]


async def statuses(house: House, times: int, **more: Any) -> list[int]:
    """Ask one after the other."""
    return [(await house.ask(**more)).status_code for _ in range(times)]


async def test_requests_are_spread(start: Start, engines: list[Sim]):
    """Every replica answers some."""
    async with start(QUICK) as house:
        assert set(await statuses(house, 30)) == {200}
        assert min(started(engines)) >= 3


async def test_an_engine_that_is_gone_costs_no_answer(start: Start, engines: list[Sim]):
    """Nothing reached it, so another one is asked; after the first refusal it is left alone."""
    async with start(replace(QUICK, open_s=30, open_most_s=30)) as house:
        await statuses(house, 3)
        engines[0].kill()
        assert set(await statuses(house, 20)) == {200}
        assert seat(house, engines[0]).breaker.state is State.OPEN


async def test_an_engine_that_fails_is_left_alone_and_tried_again_by_one_request_at_a_time(
    start: Start, engines: list[Sim]
):
    """Two 500s open its breaker. Later one stream probes it, and its beginning closes the breaker."""
    bad = engines[0]
    bad.behave(error_rate=1)
    async with start(replace(QUICK, open_s=1, open_most_s=1)) as house:
        assert (await statuses(house, 20)).count(500) == 2
        await until(lambda: seat(house, bad).breaker.due(monotonic()), "its time")
        assert (await statuses(house, 5)).count(500) == 1
        bad.behave(error_rate=0, ttft_ms=200, tpot_ms=100)
        await until(lambda: seat(house, bad).breaker.due(monotonic()), "its time")
        before = bad.engine.counts["started"]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(house.ask(stream=True)) for _ in range(9)]
            await until(lambda: seat(house, bad).breaker.state is State.PROBING, "a probe")
            await asyncio.sleep(0.1)
            assert bad.engine.counts["started"] == before + 1
            await until(lambda: seat(house, bad).breaker.state is State.CLOSED, "a good answer")
            assert any(not task.done() for task in tasks)
        bad.behave(ttft_ms=2, tpot_ms=1)
        await statuses(house, 30)
        assert bad.engine.counts["started"] > before + 1


async def test_a_frozen_engine_is_left_alone_though_its_health_is_fine(start: Start, engines: list[Sim]):
    """/health says 200 all the while; the requests that get no answer say more."""
    engines[0].behave(stall=True)
    async with start(replace(QUICK, open_s=30, open_most_s=30, health_s=0.05), first_byte_s=0.2) as house:
        got = await statuses(house, 30, stream=True)
        await asyncio.sleep(1.2)
        assert (got.count(504), seat(house, engines[0]).breaker.state) == (2, State.OPEN)
        assert not seat(house, engines[0]).replica.down
        engines[0].behave(stall=False)


@pytest.mark.parametrize("wrong", [{"max_tokens": -1}, {"messages": "none"}])
async def test_what_clients_do_wrong_opens_no_breaker(start: Start, engines: list[Sim], wrong: dict[str, Any]):
    """However often they do it."""
    async with start(QUICK) as house:
        assert set(await statuses(house, 15, **wrong)) == {400}
        assert {seat(house, sim).breaker.state for sim in engines} == {State.CLOSED}


async def test_where_every_engine_fails_they_are_asked_all_the_same(start: Start, engines: list[Sim]):
    """And the first good answer is taken at its word."""
    for sim in engines:
        sim.behave(error_rate=1)
    async with start(replace(QUICK, open_s=30, open_most_s=30)) as house:
        assert set(await statuses(house, 20)) == {500}
        assert {seat(house, sim).breaker.state for sim in engines} == {State.OPEN}
        for sim in engines:
            sim.behave(error_rate=0)
        assert set(await statuses(house, 20)) == {200}


async def test_an_engine_that_comes_back_is_not_overrun(start: Start, engines: list[Sim]):
    """With a slow start it takes few of many requests at once, though it has nothing to do."""
    async with start(replace(QUICK, slow_start_s=60)) as house:
        fresh = engines[0]
        fresh.behave(error_rate=1)
        await statuses(house, 20)
        fresh.behave(error_rate=0)
        await asyncio.sleep(0.5)
        await statuses(house, 3)
        assert seat(house, fresh).breaker.state is State.CLOSED
        for sim in engines:
            sim.behave(ttft_ms=300)
        before = started(engines)
        await asyncio.gather(*[house.ask() for _ in range(40)])
        taken = [now - then for now, then in zip(started(engines), before, strict=True)]
        assert taken[0] <= 5 < min(taken[1:])


async def test_a_conversation_stays_on_its_engine(start: Start, engines: list[Sim]):
    """And conversations are spread over the engines."""
    async with start(AFFINITY) as house:
        for number in range(12):
            before = started(engines)
            await statuses(house, 4, headers={"X-Linnet-Session": f"s{number}"})
            assert sorted(now - then for now, then in zip(started(engines), before, strict=True)) == [0, 0, 4]
        assert min(started(engines)) > 0


async def test_a_conversation_leaves_an_overloaded_engine_and_comes_back(start: Start, engines: list[Sim]):
    """Its engine is busy with much more than its part: the next one on the ring answers."""
    async with start(replace(AFFINITY, load_floor=0)) as house:
        session = {"X-Linnet-Session": "s1"}
        await house.ask(headers=session)
        home = next(sim for sim in engines if sim.engine.counts["started"])
        home.behave(ttft_ms=500)
        busy = asyncio.gather(house.ask(headers=session, max_tokens=900))
        await until(lambda: home.running, "a request under way")
        assert set(await statuses(house, 5, headers=session)) == {200}
        assert sorted(started(engines)) == [0, 2, 5]
        await busy
        home.behave(ttft_ms=2)
        await statuses(house, 5, headers=session)
        assert (home.engine.counts["started"], sorted(started(engines))) == (7, [0, 5, 7])


async def test_conversations_on_their_engines_find_their_prefix_cached(start: Start, engines: list[Sim]):
    """Twelve talks of eight turns: three engines that forget nothing know far more of them if each keeps its own."""

    async def talk(house: House) -> float:
        chance, said = Random(1), {number: f"talk {number} " for number in range(12)}
        before = [sum(sim.engine.counts[what] for sim in engines) for what in ("cached", "prompt")]
        for _ in range(8):
            for number, text in said.items():
                said[number] = text + " ".join(str(chance.random()) for _ in range(20))
                await house.ask(said[number], headers={"X-Linnet-Session": f"s{number}"})
        after = [sum(sim.engine.counts[what] for sim in engines) for what in ("cached", "prompt")]
        return (after[0] - before[0]) / (after[1] - before[1])

    async with start(QUICK) as house:
        spread = await talk(house)
    for sim in engines:
        sim.engine._blocks.clear()
    async with start(AFFINITY) as house:
        kept = await talk(house)
    assert kept > 1.3 * spread
    assert kept > 0.7


async def test_too_many_requests_are_turned_away(start: Start, engines: list[Sim]):
    """One slot, one place to wait: the third is told 429, the second 503 when it has waited too long."""
    for sim in engines:
        sim.behave(ttft_ms=600)
    async with start(replace(QUICK, slots=1, queue=1, queue_s=0.2)) as house:
        first = asyncio.ensure_future(house.ask())
        await until(lambda: pool(house).gate.inside, "one inside")
        second = asyncio.ensure_future(house.ask())
        await until(lambda: pool(house).gate.waiting, "one waiting")
        full, late = await house.ask(), await second
        assert [(answer.status_code, _code(answer)) for answer in (full, late, await first)] == [
            (429, "overloaded"),
            (503, "overloaded"),
            (200, ""),
        ]
        for answer in (full, late):
            assert answer.headers["x-should-retry"] == "true"
            assert answer.headers["retry-after"] in {"1", "2"}
        assert sum(started(engines)) == 1
        assert (pool(house).gate.inside, pool(house).gate.waiting) == (0, 0)


def _code(answer: httpx.Response) -> str:
    return str(answer.json().get("error", {}).get("code", ""))


async def test_who_waits_is_let_in_when_a_slot_comes_free(start: Start, engines: list[Sim]):
    """Nobody is lost, and the engines never have more than the slots allow."""
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, sum(sim.running for sim in engines))
            await asyncio.sleep(0.005)

    async with start(replace(QUICK, slots=2)) as house, asyncio.TaskGroup() as group:
        watching = group.create_task(watch())
        answers = await asyncio.gather(*[house.ask() for _ in range(20)])
        watching.cancel()
    assert ({answer.status_code for answer in answers}, 1 <= most <= 2) == ({200}, True)


async def test_a_client_that_leaves_the_queue_takes_no_slot(start: Start, engines: list[Sim]):
    """Its request reaches no engine, and the next in the queue is let in."""
    for sim in engines:
        sim.behave(ttft_ms=400)
    async with start(replace(QUICK, slots=1)) as house:
        first = asyncio.ensure_future(house.ask())
        await until(lambda: pool(house).gate.inside, "one inside")
        with pytest.raises(httpx.ReadTimeout):
            async with httpx.AsyncClient(base_url=house.url, timeout=0.1) as hasty:
                await hasty.post("/v1/chat/completions", json={"model": MODEL, "messages": []})
        await until(lambda: not pool(house).gate.waiting, "the end of the queue")
        third = await house.ask()
        assert ((await first).status_code, third.status_code, sum(started(engines))) == (200, 200, 2)
        assert pool(house).gate.inside == 0


async def test_an_adapter_that_fails_breaks_nothing_for_its_base(tmp_path: Path):
    """Two arms on one engine. The candidate's name is unknown there: its 404s trip nothing, its 500s itself alone."""
    async with (
        simulated("base") as sim,
        gateway(tmp_path, Split(MODEL, 0, sim.endpoint()), pools={MODEL: QUICK}) as house,
    ):
        pools = house.app.desk.pools
        lora = pools.pool(MODEL, "candidate", (sim.url,), QUICK)
        body = b'{"model": "legal", "messages": [{"role": "user", "content": "hello"}]}'
        errand = Errand(b"/v1/chat/completions", head_of("r1"), body, Patience(5, 5, 5))
        assert {await answered(pools, lora, errand) for _ in range(4)} == {404}
        assert lora._known[sim.url].breaker.state is State.CLOSED
        sim.behave(error_rate=1)
        errand.body = body.replace(b"legal", b"base")
        assert {await answered(pools, lora, errand) for _ in range(4)} == {500}
        sim.behave(error_rate=0)
        assert set(await statuses(house, 4)) == {200}
        assert lora._known[sim.url].breaker.state is State.OPEN
        assert (seat(house, sim).breaker.state, len(pools.replicas)) == (State.CLOSED, 1)


async def answered(pools: Pools, pool: Pool, errand: Errand) -> int:
    """Send to a pool; return the status of the answer."""
    heard = Heard()
    pools.send_to(pool, errand, heard, monotonic())
    await until(lambda: heard.last, "the last word")
    return heard.status


async def test_the_health_checks_take_a_dead_engine_away_and_give_it_back(start: Start, engines: list[Sim]):
    """Without a single request."""
    options = replace(QUICK, health_s=0.05, health_failures=2)
    async with start(options) as house:
        await statuses(house, 1)
        replica = seat(house, engines[0]).replica
        port, replica.port = replica.port, 1
        await until(lambda: replica.down, "down")
        replica.port = port
        await until(lambda: not replica.down, "up")
