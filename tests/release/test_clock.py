"""The clock jumps an hour, forward or back, of the controller or of the workers: nothing is proved by it."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from canary.core.arms import Arm
from canary.core.finding import Verdict
from canary.core.ledger import Ledger
from canary.core.outcome import Outcome, Result
from canary.core.release import Phase
from canary.store import Batch
from tests.canary.specs import changed
from tests.release import laws
from tests.release.life import Life

HOUR = 3600.0
A_SECOND = 40  # requests of both arms
TTFT = changed(
    "bake: {duration: 2s}",
    "bake: {duration: 2s}\nanalysis: {warm_up: 0s}",
    changed("max_increase: 5pp}", "max_increase: 5pp}\n  ttft_p95: {max_ratio: 1.25}").replace(
        "min_duration: 2s", "min_duration: 30s"
    ),
)


@pytest.mark.parametrize("jump", [HOUR, -HOUR], ids=["forward", "back"])
async def test_a_jump_replaces_no_evidence(life: Life, jump: float) -> None:
    """Time may seem to be over, or yet to come: without samples of this step nothing advances, however long."""
    await life.begin(TTFT)
    release = await life.until(lambda release: release.percent == 5)
    life.now += jump
    for _ in range(20):
        life.now += 1
        await life.acknowledge(0)
        await life.controller.step()
        assert (await life.release()).at == release.at
    await laws.hold(life.store)


async def test_a_jump_back_holds_as_long_and_a_person_need_not_wait(life: Life) -> None:
    """What the clock took away is waited for again, not more; `promote` waives time, and evidence suffices for it."""
    await life.begin()
    since = (await life.until(lambda release: release.percent == 5)).entered
    life.now -= HOUR
    for _ in range(20):
        assert (await life.second()).percent == 5
    assert (await life.say("promote"))["percent"] == 50
    await life.say("abort")
    await life.say("retry")
    await life.until(lambda release: release.percent == 5)
    life.now -= HOUR
    await life.second()
    life.now = since + HOUR
    await life.second()
    assert (await life.second()).percent == 50


@pytest.mark.parametrize("jump", [HOUR, -HOUR], ids=["forward", "back"])
async def test_a_rollback_asks_no_clock(life: Life, jump: float) -> None:
    """A breach, a trip and a person's word end an attempt at once, whatever the clock has done."""
    await life.begin()
    for attempt in range(3):
        await life.until(lambda release: release.percent == 5)
        life.now += jump
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


@pytest.mark.parametrize("jump", [HOUR, -HOUR], ids=["forward", "back"])
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
            life.now += moved if whose != "the workers'" else 0
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


def requests(chance: random.Random, stage: int, at: float) -> Iterator[Outcome]:
    """A second's requests, half to each arm, both alike."""
    for _ in range(A_SECOND):
        arm, ttft = chance.choice(list(Arm)), chance.lognormvariate(-1.5, 0.4)
        yield Outcome(
            arm, Result.OK, stage=stage, e2e=ttft + 0.1, ttft=ttft, completion_tokens=8, finish_reason="stop", at=at
        )
