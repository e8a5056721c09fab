"""Who is let in, who is turned away, and who may be asked again: the pools' rules as exchanges follow them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from canary.core.arms import Arm, Split
from canary.core.assignment import assign
from canary.storage.store import Store
from gateway.pool.options import PoolOptions
from tests.gateway.conftest import acknowledged
from tests.gateway.rig import MODEL, House, Sim, gateway, publish, until

Start = Callable[..., AbstractAsyncContextManager[House]]


@pytest.fixture
def start(split: Split, base: Sim, store: Store, valkey_url: str, tmp_path: Path) -> Start:
    """Start a worker with a release at half; both arms follow the options."""

    @asynccontextmanager
    async def started(options: PoolOptions, **changes: float) -> AsyncIterator[House]:
        await publish(store, replace(split, **changes))
        pools = {MODEL: options}
        async with gateway(tmp_path, Split(MODEL, 0, base.endpoint()), valkey_url, pools=pools) as house:
            await until(lambda: acknowledged(store, 1), "acknowledgement")
            yield house

    return started


def sessions(split: Split, arm: Arm) -> list[dict[str, str]]:
    """Headers of requests that belong to an arm."""
    names = [f"s{number}" for number in range(100)]
    return [{"x-linnet-session": name} for name in names if assign(split, f"session:{name}") is arm]


def count(house: House, name: str, *labels: str) -> float:
    """What the worker has counted."""
    return house.app.desk.metrics.series(name, MODEL, *labels)[0]


@pytest.mark.parametrize(("saved", "answered"), [(2, [200, 200, 500, 500]), (0, [500] * 4), (9, [200] * 4)])
async def test_the_baseline_answers_for_a_failing_candidate_within_the_retry_budget(
    start: Start, split: Split, cand: Sim, saved: int, answered: list[int]
):
    """Beyond it the client is told the candidate's own error: a storm of failures must not double the load."""
    cand.behave(error_rate=1)
    async with start(PoolOptions(retry_part=0, retry_per_s=0, retry_burst=saved)) as house:
        theirs = sessions(split, Arm.CANDIDATE)[:4]
        assert [(await house.ask(headers=headers)).status_code for headers in theirs] == answered
        assert count(house, "linnet_fail_overs_total") == answered.count(200)


async def test_where_the_candidate_has_no_room_the_baseline_answers(start: Start, split: Split, cand: Sim):
    """It is counted as shed, and the client is none the worse."""
    cand.behave(ttft_ms=500)
    async with start(PoolOptions(slots=1, queue=0)) as house:
        first, second = sessions(split, Arm.CANDIDATE)[:2]
        slow = asyncio.ensure_future(house.ask(headers=first))
        await until(lambda: cand.running, "a request under way")
        answer = await house.ask(headers=second)
        assert (answer.status_code, answer.headers["x-linnet-arm"]) == (200, "baseline")
        assert (await slow).headers["x-linnet-arm"] == "candidate"
        assert count(house, "linnet_shed_total", "queue_full") == 1


async def test_shadows_are_shed_first(start: Start, split: Split, cand: Sim):
    """While the candidate has no slot free, no mirror is sent to it: attempted = mirrored + dropped."""
    cand.behave(ttft_ms=500)
    async with start(PoolOptions(slots=1), shadow_percent=100, shadow_concurrency=9) as house:
        slow = asyncio.ensure_future(house.ask(headers=sessions(split, Arm.CANDIDATE)[0]))
        await until(lambda: cand.running, "a request under way")
        for headers in sessions(split, Arm.BASELINE)[:3]:
            assert (await house.ask(headers=headers)).status_code == 200
        assert count(house, "linnet_shadow_dropped_total", "shed") == 3
        assert cand.engine.counts["started"] == 1
        await slow
        await house.ask(headers=sessions(split, Arm.BASELINE)[0])
        assert count(house, "linnet_shadow_dropped_total", "shed") == 3
        assert count(house, "linnet_shadow_attempted_total") == 4


async def test_a_request_that_waited_too_long_for_the_candidate_is_answered_by_the_baseline(
    start: Start, split: Split, cand: Sim
):
    """Its slot was never free; the wait is over before the client's patience is."""
    cand.behave(ttft_ms=800)
    async with start(PoolOptions(slots=1, queue_s=0.1)) as house:
        first, second = sessions(split, Arm.CANDIDATE)[:2]
        slow = asyncio.ensure_future(house.ask(headers=first))
        await until(lambda: cand.running, "a request under way")
        assert (await house.ask(headers=second)).headers["x-linnet-arm"] == "baseline"
        assert count(house, "linnet_shed_total", "deadline") == 1
        await slow


async def test_who_waits_for_a_candidate_that_is_withdrawn_is_answered_by_the_baseline(
    start: Start, split: Split, cand: Sim
):
    """A slot of a candidate that has tripped is worth nothing, and nobody is blamed for not using it."""
    cand.behave(ttft_ms=5000)
    async with start(PoolOptions(slots=1, retry_part=0, retry_per_s=0, retry_burst=0)) as house:
        first, second = sessions(split, Arm.CANDIDATE)[:2]
        slow = asyncio.ensure_future(house.ask(headers=first))
        await until(lambda: cand.running, "a request under way")
        waits = asyncio.ensure_future(house.ask(headers=second))
        await until(lambda: house.app.desk.pools.waiting(MODEL, Arm.CANDIDATE), "a request in the queue")
        house.app.parts.splits.trip(split, "tripped", 0.0)
        slow.cancel()
        assert (await asyncio.wait_for(waits, 2)).headers["x-linnet-arm"] == "baseline"
        assert cand.engine.counts["started"] == 1
