"""References collect themselves: on a real store, from the sums that workers leave."""

from __future__ import annotations

import logging
import math
from dataclasses import replace

import numpy as np
import pytest

from canary import references
from canary.core.arms import Endpoint
from canary.core.policy import Guard, Policy
from canary.core.reference import Reference
from canary.core.signals import NOISE
from canary.core.state import Phase, Release
from canary.core.tally import parse
from canary.references import Collected, Sides, control_and_rest, machines, read, sides_of
from canary.storage import keys
from canary.storage.store import Batch, Store
from tests.canary.core.releases import opened
from tests.canary.specs import changed
from tests.canary.world import World

TWO = changed(
    "engine: base, served_model: base,",
    'engine: base, served_model: base, digest: d-base, replicas: ["http://127.0.0.1:1", "http://127.0.0.1:2"],',
)
POLICY = Policy((Guard("ttft_p95", 1.1),))


@pytest.fixture
async def world(store: Store) -> World:
    """A control plane without a release."""
    return World(store)


def halves(first: int, blocks: int, shift: int = 0, seed: int = 1) -> dict[str, int | float]:
    """Sums of so many blocks from a number on, 100 requests a half each, the even ones `shift` buckets slower."""
    chance, fields = np.random.default_rng(seed), {}
    for number in range(first, first + blocks):
        for half, more in (("even", shift), ("odd", 0)):
            k = np.rint(chance.normal(400 + more, 20, 100)).astype(int)
            for latency in NOISE:
                sums = {"n": len(k), "k": int(k.sum()), "kk": int((k * k).sum())}
                fields |= {f"0|{half}||{latency}@{number}.{word}": amount for word, amount in sums.items()}
    return fields


async def compare(world: World, blocks: int, shift: int = 0) -> None:
    """Let workers compare the halves over the next blocks, and time pass until all of them are closed."""
    first = math.ceil(world.now / 10)
    world.seq += 1
    await world.store.flush("w", world.seq, [Batch("m", "", 0, halves(first, blocks, shift, world.seq))])
    await world.step(10 * (first + blocks) + 41 - world.now)


async def start(world: World, spec: str = TWO, **args: bool) -> None:
    """Start a release of which the stack knows the candidate's engine alone: the baseline is served elsewhere."""
    await world.engines()
    await world.store.forget_engine("base")
    await world.start(spec, **args)


async def known(world: World) -> Collected:
    """What the store keeps."""
    return read(await world.store.reference("m"))


async def test_the_halves_of_a_baseline_are_compared_while_nothing_is_released(world: World) -> None:
    """Closed blocks are taken in and dropped; what is not closed yet waits."""
    await start(world)
    await world.say("abort")
    await compare(world, 120)
    found = (await known(world)).sources["replicas"]
    assert found.sides == Sides("base d-base", 1, 1)
    for latency in NOISE:
        assert found.references[latency].seconds > 600
        assert found.references[latency].likeliest.sigma == 0
    left = await world.store.tallies("m", "", 0)
    assert all(int(name.partition("@")[2].partition(".")[0]) * 10 >= world.now - 40 for name in left)
    text = (await world.metrics.render(world.store)).decode()
    assert 'linnet_reference_seconds{latency="ttft",model="m"} 1170.0' in text
    assert 'linnet_reference_noise{latency="ttft",model="m"} 0.' in text
    soon = math.ceil(world.now / 10)
    await world.store.flush("w", 99, [Batch("m", "", 0, halves(soon, 1))])
    await world.step(12)
    assert len(await world.store.tallies("m", "", 0)) >= 12


async def test_it_goes_on_under_another_leader_and_takes_no_block_twice(world: World) -> None:
    """All memory is in the store."""
    await start(world)
    await compare(world, 80)
    before = (await known(world)).sources["replicas"].references["ttft"].seconds
    await world.controller._resign()
    world.controller = world.another("c2")
    await compare(world, 20)
    after = (await known(world)).sources["replicas"].references["ttft"]
    assert after.seconds == before + 200
    await world.step(20)
    assert (await known(world)).sources["replicas"].references["ttft"].seconds == after.seconds


async def test_other_machines_begin_a_reference_anew(world: World) -> None:
    """A third replica: what two have shown is not of these."""
    await start(world)
    await compare(world, 80)
    three = changed('"http://127.0.0.1:2"]', '"http://127.0.0.1:2", "http://127.0.0.1:3"]', TWO)
    await start(world, three, supersede=True)
    await compare(world, 30)
    found = (await known(world)).sources["replicas"]
    assert found.sides == Sides("base d-base", 2, 1)
    assert found.references["ttft"].seconds < 300
    assert found.references["ttft"].most == Reference.of_replicas(NOISE["ttft"], 2, 1).most


async def test_a_damaged_reference_begins_afresh_with_one_line(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever lies in the store, the release is looked at."""
    await start(world)
    await world.store._redis.set(keys.reference("m"), '{"replicas": {"sides": 3}}')
    with caplog.at_level(logging.WARNING):
        await compare(world, 80)
        await world.step(20)
    assert len([one for one in caplog.records if "collected afresh" in one.getMessage()]) == 1
    assert (await known(world)).sources["replicas"].references["ttft"].seconds > 600


async def test_sums_that_cannot_be_read_are_told_once(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """And hold nothing else up."""
    await start(world)
    await compare(world, 5)
    await world.store._redis.hset(keys.tally("m", "", 0), "0|even||ttft@1.n", "many")
    for _ in range(3):
        await world.step(11)
    told = [one.getMessage() for one in caplog.records if "no reference is collected" in one.getMessage()]
    assert len(told) == 1
    assert "ttft@1.n" in told[0]


async def test_a_sleeper_writes_no_reference(world: World) -> None:
    """The lease is another's: nothing is written, nothing dropped."""
    await start(world)
    await world.step()
    await world.controller._resign()
    sleeper = world.another("sleeper")
    await sleeper.step()
    lease = sleeper._lease
    await sleeper._resign()
    await world.another("other").step()
    await world.store.flush("w", 7, [Batch("m", "", 0, halves(math.ceil(world.now / 10), 10))])
    assert not await references.collect(world.store, lease, "m", frozenset({"m"}), world.now + 1000)
    assert len(await world.store.tallies("m", "", 0)) == 120


def control(stage: int, number: int, control_k: int, rest_k: int, n: int = 50) -> dict[str, str]:
    """One block: the control's requests, which the baseline's sums have too."""
    fields = {}
    for arm, k, many in (("control", control_k, n), ("baseline", control_k + rest_k, 2 * n)):
        sums = {"n": many, "k": n * k, "kk": n * k * k}
        fields |= {f"{stage}|{arm}|law|ttft@{number}.{word}": str(amount) for word, amount in sums.items()}
    return fields


def test_the_control_is_compared_with_the_rest_of_the_baseline() -> None:
    """What both counted is taken from the whole; a block in which the share changed is left out."""
    sums = control(1, 100, 410, 400) | control(1, 101, 410, 400) | control(2, 101, 390, 400) | control(2, 104, 390, 400)
    found = control_and_rest(parse(sums), 1080.0)["ttft"]
    assert list(found) == [1000.0, 1040.0]
    block = found[1000.0]
    assert (block.candidate.n, block.candidate.k, block.baseline.n, block.baseline.k) == (50, 20500, 50, 20000)
    assert list(control_and_rest(parse(sums), 1079.9)["ttft"]) == [1000.0]
    assert control_and_rest(parse(sums), 2000.0)["tpot"] == {}


def test_sums_that_contradict_themselves_are_no_block() -> None:
    """A control with more requests than the baseline it is a part of."""
    sums = control(1, 100, 410, 400) | {"1|baseline|law|ttft@100.n": "20"}
    assert control_and_rest(parse(sums), 2000.0)["ttft"] == {}


def test_sides_are_the_machines_of_the_release() -> None:
    """One replica has nothing to be compared with; a control counts while it is exposed."""
    three = Endpoint("base", "base", ("http://a", "http://b", "http://c"), "d-base")
    spare = Endpoint("spare", "base", ("http://d",), "d-base")
    release: Release = replace(opened(), baseline=three, control=spare)
    assert sides_of(opened()) == {}
    assert sides_of(release) == {"replicas": Sides("base d-base", 2, 1)}
    canary = replace(release, phase=Phase.CANARY)
    assert sides_of(canary)["control"] == Sides("spare base d-base", 1, 3)


def test_the_longer_reference_is_believed_where_the_noise_is_the_usual() -> None:
    """A spec that assumes other noise gets none: it was collected under these assumptions."""
    sums = parse({name: str(amount) for name, amount in halves(0, 100).items()})
    found = Collected().take("replicas", Sides("a", 1, 1), references.halves(sums, 2000.0), 2000.0)
    some = parse({name: str(amount) for name, amount in halves(0, 80).items()})
    found = found.take("control", Sides("b", 1, 2), references.halves(some, 2000.0), 2000.0)
    release = replace(opened(), baseline=replace(opened().baseline, replicas=("http://a", "http://b")))
    seen = machines(release, POLICY, found, 2000.0)
    assert (seen.candidate, seen.baseline) == (1, 2)
    assert seen.references["ttft"].seconds == 10 * (100 - 3)
    assert found.best("ttft", 2000.0)[0] == "replicas"
    quiet = Policy((Guard("ttft_p95", 1.1),), noise={"ttft": 0.0, "tpot": NOISE["tpot"]})
    assert set(machines(release, quiet, found, 2000.0).references) == {"tpot"}
    assert machines(release, POLICY, found, 2000.0 + 90_000).references == {}
    assert read(found.to_json()).to_json() == found.to_json()
    assert read("") == Collected()
