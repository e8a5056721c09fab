"""What a look reads of the engines: in preflight they are asked themselves."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest

from canary.core.release import Phase
from canary.health import HttpAsk
from canary.storage.store import Store
from tests.canary.world import BY, LOAD, World
from tests.support.simulated import SimulatedProcess

Start = Callable[..., SimulatedProcess]


@pytest.fixture
async def world(store: Store, simulated_process: Start) -> World:
    """A control plane in whose world engines are processes, and that asks them."""
    world = World(store)
    world.ask = HttpAsk(0.3)
    world.controller = world.another("c1")
    world.processes = {name: simulated_process(name) for name in ("base", "new")}
    world.urls = {name: engine.url for name, engine in world.processes.items()}
    await world.engines()
    await world.start()
    await store.put_report("m", "load", "d-new", LOAD, BY)
    assert (await world.step()).phase is Phase.PREFLIGHT
    return world


async def test_engines_that_answer_open_the_way(world: World) -> None:
    """As registered, and as they say."""
    assert (await world.step()).phase is Phase.SHADOW


@pytest.mark.parametrize(("arm", "name"), [("baseline", "base"), ("candidate", "new")])
async def test_an_engine_that_died_with_who_registered_it_holds(
    world: World, simulated_process: Start, arm: str, name: str
) -> None:
    """It is still called ready, and nobody is sent there; once another answers in its place, the release goes on."""
    world.processes[name].process.kill()
    held = await world.step()
    assert held.phase is Phase.PREFLIGHT
    where = f"the {arm}'s engine {name} at {world.urls[name]}: no health answer (no connection)"
    assert f"{where}; start it (linnet up)" in held.held
    world.urls[name] = simulated_process(name).url
    await world.engines()
    await world.step()
    await world.step()
    assert (await world.step()).phase is Phase.SHADOW


async def test_an_engine_that_hangs_holds_and_is_in_nobodys_way(world: World) -> None:
    """A look takes no longer than its patience, and an abort none at all."""
    os.kill(world.processes["new"].process.pid, signal.SIGSTOP)
    try:
        begun = time.monotonic()
        held = await world.step()
        assert time.monotonic() - begun < 1
        assert "no health answer (not yet)" in held.held
        await world.step()
        assert (await world.say("abort"))["phase"] == "aborted"
    finally:
        os.kill(world.processes["new"].process.pid, signal.SIGCONT)


async def test_from_the_shadow_on_the_workers_breakers_tell(world: World) -> None:
    """The controller asks no more: a release is not held by an engine that only it cannot reach."""
    assert (await world.step()).phase is Phase.SHADOW
    for engine in world.processes.values():
        engine.process.kill()
    await world.pairs()
    assert (await world.step()).phase is Phase.CANARY
