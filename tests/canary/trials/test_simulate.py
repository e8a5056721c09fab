from dataclasses import replace

import numpy as np
import pytest

from canary.core.ledger import Ledger
from canary.core.policy import Guard, Policy
from canary.core.tally import parse
from canary.trials import drawing, simulate
from canary.trials.recording import read
from canary.trials.simulate import Harm, Step, Sums, World, tell
from tests.canary.recordings import entries, lines

POLICY = Policy(
    (Guard("error_rate", 0.05), Guard("ttft_p95", 1.5), Guard("tpot_p95", 1.5), Guard("shadow_quality", -0.05))
)
EVEN = World([Step(0.5, 120)])


def test_a_seeded_story_repeats_exactly():
    """The same world and seed, the same requests; another seed, others."""
    assert tell(EVEN, POLICY, 7, 10) == tell(EVEN, POLICY, 7, 10)
    assert tell(EVEN, POLICY, 7, 10) != tell(EVEN, POLICY, 8, 10)


@pytest.mark.parametrize(
    ("harm", "guardrail"),
    [
        (Harm(error=0.3), "error_rate"),
        (Harm(ttft=3.0), "ttft_p95"),
        (Harm(tpot=3.0), "tpot_p95"),
        (Harm(quality=0.3), "shadow_quality"),
    ],
)
def test_harm_is_found(harm, guardrail):
    """By its own guardrail, before the story is over."""
    told = tell(replace(EVEN, harm=harm), POLICY, 3, 5)
    assert told.failed == guardrail
    assert 0 < told.seconds < EVEN.seconds
    assert 0 < told.requests < 10 * EVEN.seconds


def test_an_equal_candidate_stays():
    """To the end of the story."""
    told = tell(EVEN, POLICY, 3, 10)
    assert (told.failed, told.seconds) == ("", 120)
    assert told.requests == pytest.approx(1200, rel=0.1)


def test_a_share_of_zero_asks_nobody():
    """However bad the candidate is."""
    told = tell(World([Step(0.0, 60)], harm=Harm(error=0.9, ttft=9.0)), POLICY, 1, 5)
    assert (told.requests, told.failed) == (0, "")


@pytest.mark.parametrize(
    ("harm", "guardrail"), [(Harm(error=0.3), "error_rate"), (Harm(ttft=3.0), "ttft_p95"), (Harm(cost=3.0), "cost")]
)
def test_harm_is_found_over_a_recording(harm, guardrail):
    """And on the slices that it knows; an equal candidate stays."""
    guards = (
        Guard("error_rate", 0.05, ("law", "general")),
        Guard("ttft_p95", 1.5, ("law",)),
        Guard("cost_per_token", 1.5),
    )
    policy = Policy(guards)
    world = World([Step(0.5, 240)], recording=read(lines(entries(3000, gap=0.05, slices=("law", "general"))), "m"))
    assert tell(world, policy, 3, 10).failed == ""
    assert tell(replace(world, harm=harm), policy, 3, 10).failed.startswith(guardrail)


def test_while_the_arms_warm_up_no_latency_fails():
    """As in a release."""
    harmed = replace(EVEN, harm=Harm(tpot=3.0), steps=[Step(0.5, 240)])
    warm, cold = tell(harmed, POLICY, 3, 5), tell(replace(harmed, warm_up=60.0), POLICY, 3, 5)
    assert warm.failed == cold.failed == "tpot_p95"
    assert cold.seconds == pytest.approx(warm.seconds + 60, abs=20)


def test_sums_are_what_a_store_would_hold():
    """However often they are added to: the tallies of all that was drained."""
    sums, amounts, ledger = Sums(), dict[str, float](), Ledger()
    for second in drawing.seconds(replace(EVEN, control=True), np.random.default_rng(1)):
        simulate._count(ledger, second)
        if second.number % 7 == 0 or second.number == EVEN.seconds:
            drained = ledger.drain()
            sums.add(drained)
            for name, amount in drained.items():
                amounts[name] = amounts.get(name, 0) + amount
    (stage,) = sums.evidence(EVEN.steps)
    assert (stage.stage, stage.share) == (1, 0.5)
    stored = parse({name: str(amount) for name, amount in amounts.items()})
    assert {(1, *key): tally for key, tally in stage.tallies.items()} == stored


def test_what_was_looked_at_stays_as_it_was():
    """The guardrails keep what they saw: sums that are added later change no older tally."""
    sums = Sums()
    sums.add({"1|candidate||ok": 1, "1|candidate||sum.cost": 0.5})
    (before,) = sums.evidence(EVEN.steps)
    tally = before.tallies["candidate", ""]
    sums.add({"1|candidate||ok": 1, "1|candidate||sum.cost": 0.5})
    assert (tally.count("ok"), tally.total("sum.cost")) == (1, 0.5)
    assert sums.evidence(EVEN.steps)[0].tallies["candidate", ""].count("ok") == 2
