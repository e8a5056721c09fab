from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from canary import simulate
from canary.core.arms import Arm
from canary.core.policy import Guard, Policy
from canary.simulate import Harm, OwnNoise, Step, Traffic, World, tell

POLICY = Policy(
    (Guard("error_rate", 0.05), Guard("ttft_p95", 1.5), Guard("tpot_p95", 1.5), Guard("shadow_quality", -0.05))
)
EVEN = World([Step(0.5, 120)])


def outcomes(world, seed=1):
    """Every outcome of a story, by arm."""
    found = {Arm.CANDIDATE: [], Arm.BASELINE: []}
    for _, _, drawn, _ in simulate._seconds(world, np.random.default_rng(seed)):
        for outcome in drawn:
            found[outcome.arm].append(outcome)
    return found


def test_a_seeded_story_repeats_exactly():
    """The same world and seed, the same requests; another seed, others."""
    assert tell(EVEN, POLICY, 7, 10) == tell(EVEN, POLICY, 7, 10)
    assert outcomes(EVEN, 7) == outcomes(EVEN, 7)
    assert outcomes(EVEN, 7) != outcomes(EVEN, 8)


@pytest.mark.parametrize("noise", [OwnNoise(), OwnNoise(0.18, 0.1, 5.0, both=True)])
def test_equal_arms_are_equal_in_distribution(noise):
    """As many requests, the same latencies, costs and rates, but for chance."""
    found = outcomes(replace(EVEN, steps=[Step(0.5, 1000)], noise=noise))
    candidate, baseline = found[Arm.CANDIDATE], found[Arm.BASELINE]
    assert len(candidate) == pytest.approx(len(baseline), rel=0.06)
    for name, near in (("ttft", 0.05), ("tpot", 0.05), ("cost_usd", 0.03)):
        means = [np.mean(np.log([getattr(one, name) for one in arm])) for arm in (candidate, baseline)]
        assert means[0] == pytest.approx(means[1], abs=near), name
    errors = [Counter(one.result for one in arm)["error"] / len(arm) for arm in (candidate, baseline)]
    assert errors[0] == pytest.approx(errors[1], abs=0.005)


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


def test_shares_and_loads_are_followed():
    """A step has its share of its own traffic."""
    found = outcomes(World([Step(0.1, 100, load=2.0), Step(0.5, 100)], Traffic(rate=10.0)))
    counts = Counter(one.stage for one in found[Arm.CANDIDATE])
    assert counts[1] == pytest.approx(200, rel=0.25)
    assert counts[2] == pytest.approx(500, rel=0.2)
