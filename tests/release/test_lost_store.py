"""The store is killed between any two commands and comes back with its file: nothing is lost, doubled or early."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from canary.core.release import Phase, Release
from canary.storage.store import Store, StoreError
from tests.release import laws
from tests.release.life import Fragile, Life
from tests.release.test_crashes import STORIES, Story
from tests.support.valkey import Valkey


class Killer:
    """Kills the store before some of the controller's commands, and starts it again on its data."""

    def __init__(self, valkey: Valkey, chance: random.Random) -> None:
        self.kills = 0
        self._valkey, self._chance = valkey, chance
        self._left = 0
        self._draw()

    def _draw(self) -> None:
        self._left = self._chance.randint(1, 24)

    async def command(self) -> None:
        """A command is about to be sent."""
        self._left -= 1
        if not self._left:
            self._draw()
            self.kills += 1
            self._valkey.kill()
            self._valkey.start()


class Patient(Life):
    """A life that goes on through any number of lost stores."""

    async def again(self, act: Callable[..., Awaitable[object]]) -> None:
        """Do it until the store lets it be done."""
        for _ in range(20):
            try:
                await act(self.controller)
            except StoreError:
                await self.leading()
            else:
                return
        raise AssertionError("the store was lost twenty times in a row")

    async def leading(self) -> None:
        """Get a leader, for as long as that takes."""
        while not self.controller.leading:
            try:
                await self.succeed()
            except StoreError:
                continue


@pytest.fixture
async def own(valkey: Valkey) -> AsyncIterator[Patient]:
    """A life on a store that may be killed, whose file is written through as the local stack does it."""
    assert valkey.ask("CONFIG SET appendfsync everysec").startswith(b"+OK")
    store, fragile = Store.connect(valkey.url), Fragile.connect(valkey.url)
    assert isinstance(fragile, Fragile)
    yield Patient(store, fragile)
    await store.close()
    await fragile.close()


@pytest.mark.parametrize("name", STORIES)
async def test_a_store_that_is_killed_again_and_again_tells_the_same_story(
    own: Patient, valkey: Valkey, store: Store, name: str
) -> None:
    """Signal 9 before one command in a dozen: the audit has each change once, as if the store had lived."""
    story, kills = STORIES[name], 0
    well = await _told(Life(store, Fragile(store._redis, store.url)), story)
    for seed in range(5):
        await own.clear()
        life, killer = Patient(own.store, own.fragile), Killer(valkey, random.Random(seed))
        assert await _told(life, story, killer) == well, f"seed {seed}"
        kills += killer.kills
    assert kills >= 5


async def _told(life: Life, story: Story, killer: Killer | None = None) -> list[tuple[str, ...]]:
    await story.opening(life)
    life.fragile.between = None if killer is None else killer.command
    await story.rest(life)
    life.fragile.between = None
    return laws.story(await laws.hold(life.store))


async def test_a_worker_that_dies_with_its_acknowledgement_unsaid_is_no_lie(life: Life) -> None:
    """It routes by the new split and cannot say so: nobody says it for it, until it is known to be gone."""
    await life.begin()
    await life.until(lambda release: release.percent == 50)
    await life.store.heartbeat("dying", int(life.now * 1000))
    split = await life.store.read_split("m")
    assert split is not None
    await life.store.acknowledge("m", "dying", split.generation, int(life.now * 1000))
    release = await _rolled_back(life)
    await life.acknowledge()
    for _ in range(4):
        life.now += 1
        await life.acknowledge()
        await life.controller.step()
        assert "acknowledged" not in [entry["what"] for entry in await life.store.audit("m")]
        state = await life.say("freeze")
        assert state["workers"]["behind"] == ["dying"]
        assert state["rollback"] is None
    life.now += 2
    await life.acknowledge()
    await life.controller.step()
    told = [entry for entry in await life.store.audit("m") if entry["what"] == "acknowledged"]
    assert [(entry["generation"], entry["why"][:14]) for entry in told] == [(str(release.generation), "1 live workers")]
    await laws.hold(life.store)


async def _rolled_back(life: Life) -> Release:
    release = await life.until(lambda release: not release.active, errors=200)
    assert release.phase is Phase.ROLLED_BACK
    return release
