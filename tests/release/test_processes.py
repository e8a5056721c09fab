"""Control planes as processes: killed at random moments, stopped and woken, with standbys beside them."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from itertools import groupby
from pathlib import Path

import pytest

from canary.core.release import Phase
from canary.storage import keys
from canary.storage.store import Store
from tests.canary.specs import changed
from tests.release import laws
from tests.release.controllers import Controllers
from tests.release.life import Fragile, Life
from tests.support.simulated import SimulatedThread
from tests.support.stack import until

pytestmark = pytest.mark.e2e

TAKEOVER_S = 5.0
BEAT_S = 0.1
QUICK = {"LOOK_SECONDS": "0.1", "LEASE_MS": "400"}
SLOW = changed("duration: 2s", "duration: 1500ms")  # every duration of the spec
KILLS = 5
WAY = ["draft 0 %", "preflight 0 %", "shadow 0 %", "canary 5 %", "canary 50 %", "bake 95 %", "promoted 100 %"]


@pytest.fixture
async def real(store: Store, fragile: Fragile, simulated: Callable[..., SimulatedThread]) -> Life:
    """A life by the real clock with engines that answer, whose own controller never looks."""
    life = Life(store, fragile)
    life.urls = {name: simulated(name).url for name in life.urls}
    life.now = time.time()
    return life


async def lived(life: Life, controllers: Controllers, end: Phase, errors: int = 0) -> int:
    """Live by the real clock until a release's end, killing a few leaders at random moments; return how many."""
    chance, kills, next_kill = random.Random(11), 0, time.time()
    deadline = time.time() + 60
    while (release := await life.release()).phase is not end:
        assert time.time() < deadline, (release.place, release.held)
        life.now = time.time()
        await life.users(errors if release.percent == 50 else 0)
        if kills < KILLS and life.now > next_kill and (pid := controllers.leader):
            controllers.kill(pid)
            controllers.begin()
            kills, next_kill = kills + 1, life.now + chance.uniform(0.2, 1.2)
        await asyncio.sleep(BEAT_S)
    return kills


@pytest.mark.parametrize(("end", "errors"), [(Phase.PROMOTED, 0), (Phase.ROLLED_BACK, 200)])
async def test_leaders_killed_at_random_moments_finish_what_they_began(
    real: Life, valkey_url: str, tmp_path: Path, end: Phase, errors: int
) -> None:
    """Signal 9 to whoever leads, again and again: each change is made once, at its time, and heard of by all."""
    with Controllers(tmp_path, valkey_url, 3, **QUICK) as controllers:
        controllers.led()
        await real.begin(SLOW)
        kills = await lived(real, controllers, end, errors)
        assert kills >= 3
        if end is Phase.ROLLED_BACK:
            while "acknowledged" not in [entry["what"] for entry in await real.store.audit("m")]:
                real.now = time.time()
                await real.acknowledge(0)
                await asyncio.sleep(BEAT_S)
    told = await laws.hold(real.store)
    way = [place for place, _ in groupby(entry["after"] for entry in told)]
    assert way == (WAY if end is Phase.PROMOTED else [*WAY[:5], "rolled_back 0 %"])


async def test_a_standby_takes_over_within_five_seconds_and_the_sleeper_changes_nothing(
    real: Life, valkey_url: str, tmp_path: Path
) -> None:
    """Two control planes as they come: the leader is stopped, the other looks in time; woken, the first stands by."""
    with Controllers(tmp_path, valkey_url, 2) as controllers:
        sleeper = controllers.led()
        await real.begin()
        await real.say("pause")
        stopped = controllers.stop(sleeper)
        heir = until(lambda: controllers.leader not in (0, sleeper) and controllers.leader, "another leader", 20)
        looked = await real.store.last_look("m")
        while await real.store.last_look("m") == looked:
            await asyncio.sleep(0.02)
            assert time.monotonic() - stopped < TAKEOVER_S
        assert time.monotonic() - stopped < TAKEOVER_S
        before = await _decided(real.store)
        controllers.wake(sleeper)
        await asyncio.sleep(1.5)
        assert await _decided(real.store) == before
        assert controllers.leader == heir
        assert (await real.say("abort"))["phase"] == "aborted"
    await laws.hold(real.store)


async def _decided(store: Store) -> tuple[object, ...]:
    """Return what only a decision changes: state, split, audit."""
    redis = store._redis
    return (
        await redis.get(keys.release("m")),
        await redis.get(keys.split("m")),
        await redis.xrange(keys.AUDIT),
    )
