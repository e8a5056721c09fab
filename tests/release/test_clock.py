"""The clock jumps an hour, forward or back, of the controller or of the workers: nothing is proved or served by it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator

import pytest

from canary.controller import Controller
from canary.core.arms import Arm
from canary.core.finding import Verdict
from canary.core.ledger import Ledger
from canary.core.outcome import Outcome, Result
from canary.core.release import Phase
from canary.report.facts import build
from canary.status import glance, material
from canary.storage.store import Batch, StoreError
from tests.canary.specs import changed
from tests.release import laws
from tests.release.life import SHORT, Life

HOUR = 3600.0
A_SECOND = 40  # requests of both arms
TTFT = changed(
    "bake: {duration: 2s}",
    "bake: {duration: 2s}\nanalysis: {warm_up: 0s}",
    changed("max_increase: 5pp}", "max_increase: 5pp}\n  ttft_p95: {max_ratio: 1.25}").replace(
        "min_duration: 2s", "min_duration: 30s"
    ),
)


SLOW = (
    SHORT.replace("min_pairs: 30}", "min_pairs: 30, min_duration: 6s, max_duration: 60s}")
    .replace("percent: 5, min_duration: 2s,", "percent: 5, min_duration: 6s, max_duration: 60s, ramp: 6s,")
    .replace("percent: 50, min_duration: 2s,", "percent: 50, min_duration: 6s, max_duration: 60s,")
    .replace("bake: {duration: 2s}", "bake: {duration: 6s, max_duration: 60s}\nanalysis: {warm_up: 8s}")
    + "max_duration: 300s\non_timeout: rollback\non_inconclusive: rollback\n"
)
BOTH = pytest.mark.parametrize("jump", [HOUR, -HOUR], ids=["forward", "back"])


async def lived(life: Life, spec: str, jumps: Callable[[int], float], errors: int = 0) -> list[str]:
    """Live from the start of a release to its end, or for two minutes; return where it stood at each second."""
    release, places = await life.begin(spec), list[str]()
    while release.active and len(places) < 120:
        if jumped := jumps(len(places)):
            life.jump(jumped)
        release = await life.second(errors)
        places.append(f"{release.place}: {release.held}")
    return places


@pytest.mark.parametrize(
    "jumps",
    [
        lambda second: HOUR if second % 2 else 0,
        lambda second: -HOUR if second % 2 else 0,
        lambda second: [HOUR, 0, -HOUR, -HOUR, 0, 0, HOUR][second % 7],
    ],
    ids=["forward", "back", "there and back"],
)
@pytest.mark.parametrize(
    "spec",
    [SLOW, SLOW.replace("min_samples: 500", "min_samples: 999999"), SLOW.replace("30, min", "9999, min")],
    ids=["to promotion", "to a timeout in the canary", "to a timeout in the shadow"],
)
async def test_every_place_lasts_as_long_as_with_a_clock_that_never_jumps(
    life: Life, spec: str, jumps: Callable[[int], float]
) -> None:
    """Shadow, ramp, step, bake, and the time that may be up: each second finds the release where it would have been."""
    expected = await lived(life, spec, lambda _: 0)
    await life.clear()
    assert await lived(life, spec, jumps) == expected
    build(await material(life.store, "m", life.now), life.now * 1000)  # a report can be made of it
    told = await laws.hold(life.store)
    assert sum(entry["what"] == "clock-jumped" for entry in told) > len(expected) / 3


@BOTH
async def test_a_jump_is_told_and_moves_nothing_else(life: Life, jump: float) -> None:
    """The audit says by how much; what is to go, how cold the caches are and what was spent is what it was."""
    await life.begin(SLOW)
    await life.until(lambda release: release.percent == 5 and release.ramp is None)
    before = await life.second()
    seen = await glance(life.store, "m", life.now)
    life.jump(jump)
    await life.controller.step()
    after, now = await life.release(), await glance(life.store, "m", life.now)
    assert (after.at, after.held, after.reason) == (before.at, before.held, before.reason)
    assert now["to_go"] == {**seen["to_go"], "seconds": pytest.approx(seen["to_go"]["seconds"])}
    assert now["spend_usd"] == pytest.approx(seen["spend_usd"])
    assert after.warm_until - before.warm_until == pytest.approx(jump)
    split = await life.store.read_split("m")
    assert split is not None
    assert split.warm_until == after.warm_until
    entry = (await laws.hold(life.store))[-1]
    assert entry["why"] == f"the controller's clock jumped by {jump:+,.0f} s; the release's times were shifted with it"
    assert json.loads(entry["evidence"]) == {"jumped_s": pytest.approx(jump)}


@BOTH
async def test_a_jump_replaces_no_evidence(life: Life, jump: float) -> None:
    """Without samples of this step nothing advances, however long."""
    await life.begin(TTFT)
    release = await life.until(lambda release: release.percent == 5)
    life.jump(jump)
    for _ in range(20):
        life.now += 1
        await life.acknowledge(0)
        await life.controller.step()
        assert (await life.release()).at == release.at
    await laws.hold(life.store)


@BOTH
async def test_what_a_person_says_after_a_jump_counts_from_then(life: Life, jump: float) -> None:
    """Before the controller's next look: the step that they began is neither over at once nor an hour late."""
    await life.begin(SLOW)
    await life.until(lambda release: release.percent == 5 and release.ramp is None)
    life.now += 0.3
    life.jump(jump)
    life.now += 0.2
    await life.say("set-weight", args={"percent": 50.0})
    await life.say("resume")
    assert [(await life.second()).percent for _ in range(6)] == [50] * 5 + [95]


@BOTH
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_a_jump_is_told_once_though_the_store_is_lost_at_any_command(
    life: Life, jump: float, *, after: bool
) -> None:
    """Also where the change was written and only its answer was lost."""
    await life.begin(SLOW)
    before = await life.until(lambda release: release.percent == 5 and release.ramp is None)
    first = life.fragile.commands
    await life.controller.step()
    for at in range(1, life.fragile.commands - first + 3):
        life.jump(jump)
        life.fragile.fail(at, after=after, failure=StoreError)
        await life.again(Controller.step)
        life.fragile.left = None
        await life.again(Controller.step)
        release = await life.release()
        assert release.jumped == pytest.approx(at * jump)
        assert release.entered - life.now == pytest.approx(before.entered - (life.now - release.jumped))
        assert release.at == before.at


@BOTH
async def test_workers_that_look_dead_for_a_jump_hold_for_a_moment(life: Life, jump: float) -> None:
    """Their last heartbeat is by the old clock; with the next one all goes on, and nothing of theirs was dropped."""
    await life.begin(SLOW)
    await life.second()
    await life.second()
    assert (await life.release()).phase is Phase.PREFLIGHT
    acks = await life.store.acks("m")
    life.jump(2 * jump)
    await life.controller.step()
    assert (await life.release()).phase is Phase.PREFLIGHT
    assert await life.store.acks("m") == acks
    await life.until(lambda release: release.phase is Phase.SHADOW, 3)


async def test_who_takes_over_measures_from_then_on(life: Life) -> None:
    """It cannot know what the clock did before: it takes the times as they are, and says nothing of a jump."""
    await life.begin(SLOW)
    release = await life.until(lambda release: release.percent == 5 and release.ramp is None)
    life.jump(-HOUR)
    await life.succeed()
    assert (await life.release()).entered == release.entered
    life.jump(-HOUR)
    assert (await life.second()).entered == release.entered - HOUR
    assert sum(entry["what"] == "clock-jumped" for entry in await laws.hold(life.store)) == 1


@BOTH
async def test_a_rollback_asks_no_clock(life: Life, jump: float) -> None:
    """A breach, a trip and a person's word end an attempt at once, whatever the clock has done."""
    await life.begin()
    for attempt in range(3):
        await life.until(lambda release: release.percent == 5)
        life.jump(jump)
        if attempt == 0:
            await life.traffic(300, 200)
            await life.controller.step()
        elif attempt == 1:
            await life.hear(await life.trip())
        else:
            await life.say("rollback")
        assert (await life.release()).phase is Phase.ROLLED_BACK
        split = await life.store.read_split("m")
        assert split is not None
        assert split.percent == 0
        await life.say("retry")
    await laws.hold(life.store)


@BOTH
@pytest.mark.parametrize("whose", ["the controller's", "the workers'", "everybody's"])
async def test_equal_arms_are_never_rolled_back_for_a_clock(life: Life, whose: str, jump: float) -> None:
    """Blocks of time that end early, never, or twice are no harm of the candidate's."""
    await life.begin(TTFT)
    await life.until(lambda release: release.percent == 5)
    await life.say("set-weight", args={"percent": 50.0})
    chance, ledger, apart = random.Random(5), Ledger(), 0.0
    for number in range(120):
        if number in (40, 80):  # there and back again
            moved = jump if number == 40 else -jump
            life.jump(moved if whose != "the workers'" else 0)
            apart += {"the controller's": -moved, "the workers'": moved}.get(whose, 0)
        life.now += 1
        stage = (await life.release()).stage
        for outcome in requests(chance, stage, life.now + apart):
            ledger.assigned(stage, outcome.arm, "")
            ledger.record(outcome)
        life.seq += 1
        await life.store.flush("w", life.seq, [Batch("m", "r1", 1, ledger.drain(), ledger.claims())])
        await life.acknowledge(0)
        await life.controller.step()
        assert (await life.release()).active, (await life.release()).reason
    found = {one["guardrail"]: one for one in (await life.say("pause"))["guardrails"]}
    assert {one["verdict"] for one in found.values()} <= {Verdict.PASS, Verdict.INCONCLUSIVE}, found


@BOTH
@pytest.mark.parametrize("whose", ["the controller's", "everybody's"])
async def test_a_slow_candidate_is_rolled_back_as_soon(life: Life, whose: str, jump: float) -> None:
    """It becomes three times as slow when the clock jumps; without a jump it takes 14 s to be sure."""
    await life.begin(TTFT)
    await life.until(lambda release: release.percent == 5)
    await life.say("set-weight", args={"percent": 50.0})
    chance, ledger, apart = random.Random(5), Ledger(), 0.0
    for number in range(80):
        if number == 60:
            life.jump(jump)
            apart = -jump if whose == "the controller's" else 0.0
        life.now += 1
        stage = (await life.release()).stage
        for outcome in requests(chance, stage, life.now + apart, 3.0 if number >= 60 else 1.0):
            ledger.assigned(stage, outcome.arm, "")
            ledger.record(outcome)
        life.seq += 1
        await life.store.flush("w", life.seq, [Batch("m", "r1", 1, ledger.drain(), ledger.claims())])
        await life.acknowledge(0)
        await life.controller.step()
        assert number >= 60 or (await life.release()).active
    release = await life.release()
    assert (release.phase, release.reason[:8]) == (Phase.ROLLED_BACK, "ttft_p95")


def requests(chance: random.Random, stage: int, at: float, slow: float = 1.0) -> Iterator[Outcome]:
    """A second's requests, half to each arm; the candidate is so many times slower."""
    for _ in range(A_SECOND):
        arm, ttft = chance.choice(list(Arm)), chance.lognormvariate(-1.5, 0.4)
        ttft *= slow if arm is Arm.CANDIDATE else 1.0
        yield Outcome(
            arm, Result.OK, stage=stage, e2e=ttft + 0.1, ttft=ttft, completion_tokens=8, finish_reason="stop", at=at
        )
