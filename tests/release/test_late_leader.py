"""A leader that sleeps through its lease, at whatever command, wakes up and changes nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import count

import pytest

from canary.controller import Controller
from canary.storage import keys
from canary.storage.store import Store
from tests.release import laws
from tests.release.life import Fragile, Life

Act = Callable[[Life, Controller], Awaitable[object]]


async def contents(store: Store) -> dict[str, bytes | None]:
    """Return everything that is in the store, but how long the present lease lasts."""
    found = sorted(await store._redis.keys("*"))
    return {key: await store._redis.execute_command("DUMP", key, NEVER_DECODE=True) for key in found}


async def due(life: Life) -> None:
    """The next look would take the release to 50 %."""
    await life.begin()
    await life.until(lambda release: release.percent == 5)
    await life.second()
    life.now += 1
    await life.users()


async def broken(life: Life) -> None:
    """The next look would roll back."""
    await due(life)
    await life.traffic(300, 200)


async def ended(life: Life) -> None:
    """The next look would tell that every worker has heard of the end."""
    await due(life)
    await life.say("rollback")
    await life.acknowledge()


async def look(_life: Life, sleeper: Controller) -> None:
    """The sleeper looks at everything, as it does each second."""
    await sleeper.step()


async def hear(life: Life, sleeper: Controller) -> None:
    """The sleeper hears of a trip."""
    await sleeper.tripped(await life.trip())


CASES = {"due": (due, look), "broken": (broken, look), "ended": (ended, look), "tripped": (due, hear)}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("rival_looks", [False, True], ids=["leads", "leads and looks"])
async def test_a_leader_that_slept_at_any_command_writes_nothing(
    store: Store, fragile: Fragile, name: str, *, rival_looks: bool
) -> None:
    """The lease runs out between two of its commands: from then on the store stays as the others make it."""
    opening, act = CASES[name]
    for at in count(1):
        fragile.between = None
        life = Life(store, fragile)
        await life.clear()
        await opening(life)
        left = Sleep(life, at, rival_looks=rival_looks)
        fragile.between = left.command
        await act(life, life.controller)
        fragile.between = None
        if left.woke is None:
            break
        await life.controller.step()
        assert not life.controller.leading
        assert await contents(store) == left.woke, f"command {at}"
        await laws.hold(store)
    assert at > 2


class Sleep:
    """Counts a leader's commands and lets it sleep before one of them; `woke` is the store when it woke up."""

    def __init__(self, life: Life, at: int, *, rival_looks: bool) -> None:
        self.commands = 0
        self.woke: dict[str, bytes | None] | None = None
        self._life, self._at, self._rival_looks = life, at, rival_looks

    async def command(self) -> None:
        """Another command of the leader's is about to be sent."""
        self.commands += 1
        if self.commands != self._at:
            return
        store = self._life.store
        await store._redis.delete(keys.LEADER)
        assert await store.lead("rival", None, 60_000)
        if self._rival_looks:
            await store._redis.delete(keys.LEADER)
            plain = Life(store, Fragile(store._redis, store.url))
            plain.now = self._life.now
            await plain.another("other", 60_000).step()
        self.woke = await contents(store)
