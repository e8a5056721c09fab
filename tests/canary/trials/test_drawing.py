"""How requests are drawn: equal arms are equal, harm is what it says, and a recording is told as it was."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from canary.core.arms import Arm
from canary.core.outcome import Outcome, Result
from canary.trials import drawing
from canary.trials.recording import read
from canary.trials.world import START, Harm, OwnNoise, Step, Traffic, World
from tests.canary.recordings import entries, lines

EVEN = World([Step(0.5, 120)])
LONG = World([Step(0.5, 1000)])


def outcomes(world, seed=1):
    """Every outcome of a story, by arm."""
    found = {Arm.CANDIDATE: [], Arm.BASELINE: []}
    for second in drawing.seconds(world, np.random.default_rng(seed)):
        for outcome in second.outcomes:
            found[outcome.arm].append(outcome)
    return found


def recorded(**harm):
    """A world of a recording of 100 s, at half each."""
    return replace(LONG, recording=read(lines(entries(1000, slices=("law", "general"))), "m"), harm=Harm(**harm))


def part(of, has):
    """Return the part that has something."""
    return sum(map(has, of)) / len(of)


@pytest.mark.parametrize("noise", [OwnNoise(), OwnNoise(0.18, 0.1, 5.0, both=True)])
@pytest.mark.parametrize("world", [LONG, recorded()])
def test_equal_arms_are_equal_in_distribution(world, noise):
    """As many requests, the same latencies, costs and rates, but for chance."""
    found = outcomes(replace(world, noise=noise))
    candidate, baseline = found[Arm.CANDIDATE], found[Arm.BASELINE]
    assert len(candidate) == pytest.approx(len(baseline), rel=0.06)
    for name, near in (("ttft", 0.05), ("tpot", 0.05), ("cost_usd", 0.04), ("stall", 0.05)):
        means = [
            np.mean(np.log([value for one in arm if (value := getattr(one, name)) is not None]))
            for arm in (candidate, baseline)
        ]
        assert means[0] == pytest.approx(means[1], abs=near), name
    errors = [part(arm, lambda one: one.failed) for arm in (candidate, baseline)]
    assert errors[0] == pytest.approx(errors[1], abs=0.01)


@pytest.mark.parametrize("world", [LONG, recorded()])
def test_harm_is_the_candidates_and_as_large_as_it_says(world):
    """Factors of latency, cost and length; rates in points above the baseline's."""
    harm = Harm(2.0, 1.5, 3.0, error=0.1, empty=0.1, truncated=0.1, refusal=0.1, gap=2.0)
    found = outcomes(replace(world, harm=harm))
    for name, times in (("ttft", 2.0), ("tpot", 1.5), ("cost_usd", 3.0), ("stall", 2.0)):
        medians = [
            np.median([value for one in found[arm] if (value := getattr(one, name)) is not None])
            for arm in (Arm.CANDIDATE, Arm.BASELINE)
        ]
        assert medians[0] == pytest.approx(times * medians[1], rel=0.07), name
    for has in (
        lambda one: one.failed,
        lambda one: one.result is Result.OK and one.completion_tokens == 0,
        lambda one: one.finish_reason == "length",
        lambda one: "refusal" in one.flaws,
    ):
        more = part(found[Arm.CANDIDATE], has) - part(found[Arm.BASELINE], has)
        assert more == pytest.approx(0.1, abs=0.03)


def test_length_takes_its_time():
    """Half as many tokens take half as long, after the first."""
    found = outcomes(replace(LONG, harm=Harm(length=0.5)))
    for arm, tokens in ((Arm.CANDIDATE, 55), (Arm.BASELINE, 110)):
        assert np.mean([one.completion_tokens for one in found[arm]]) == pytest.approx(tokens, rel=0.05)
        assert all(
            one.e2e == pytest.approx(one.ttft + max(0, one.completion_tokens - 1) * one.tpot) for one in found[arm]
        )


def test_shares_and_loads_are_followed():
    """A step has its share of its own traffic."""
    found = outcomes(World([Step(0.1, 100, load=2.0), Step(0.5, 100)], Traffic(rate=10.0)))
    counts = Counter(one.stage for one in found[Arm.CANDIDATE])
    assert counts[1] == pytest.approx(200, rel=0.25)
    assert counts[2] == pytest.approx(500, rel=0.2)


def test_every_second_is_told_once():
    """In order, each with its own requests, in whatever pieces they are drawn."""
    world = World([Step(0.1, 61), Step(0.5, 7)])
    found = list(drawing.seconds(world, np.random.default_rng(1)))
    assert [second.number for second in found] == list(range(1, 69))
    assert [second.stage for second in found] == [1] * 61 + [2] * 7
    assert all(one.at == START + second.number - 1 for second in found for one in second.outcomes)
    assert all(one.stage == second.stage for second in found for one in second.outcomes)


def test_what_comes_while_the_arms_warm_up_is_cold():
    """As the spec's warm_up says, in seconds."""
    found = [one for arm in outcomes(replace(EVEN, warm_up=60.0)).values() for one in arm]
    assert all(one.cold == (one.at < START + 60) for one in found)


def test_a_control_answers_as_much_as_the_candidate():
    """Of the baseline's requests; or all that is left."""
    for share, least in ((0.2, 0.2), (0.7, 0.3)):
        found = outcomes(replace(LONG, steps=[Step(share, 500)], control=True))
        controls = [one for one in found[Arm.BASELINE] if one.control]
        assert len(controls) / sum(map(len, found.values())) == pytest.approx(least, rel=0.1)
    assert not any(one.control for one in outcomes(EVEN)[Arm.BASELINE])


def test_a_recording_keeps_its_requests_whole():
    """Each answer is one of the log's, with its slice, and in time as many as there were."""
    world = replace(recorded(), steps=[Step(0.5, 100)])
    logged = {(round(float(one["e2e"]), 5), int(one["completion"])) for one in world.recording.requests}
    found = [one for arm in outcomes(world).values() for one in arm]
    assert len(found) == pytest.approx(1000, rel=0.05)
    assert {(round(one.e2e, 5), one.completion_tokens) for one in found} <= logged
    assert {one.slice for one in found} == {"law", "general"}
    assert any(one.ttft is None and one.cost_usd is None for one in found)


def test_a_stretch_is_chances():
    """Another seed begins elsewhere in the log; the same one tells the same."""
    world = replace(recorded(), steps=[Step(0.5, 10)])
    first, again, other = (outcomes(world, seed) for seed in (1, 1, 2))
    assert first == again != other


def test_pairs_follow_the_traffic():
    """As many a second as there are, each in a slice that was asked just then."""
    for world in (LONG, recorded()):
        found = list(drawing.seconds(replace(world, traffic=Traffic(pairs_per_s=2.0)), np.random.default_rng(1)))
        pairs = [pair for second in found for pair in second.pairs]
        assert len(pairs) / 1000 == pytest.approx(2.0, rel=0.15)
        assert all(slice_ in {one.slice for one in second.outcomes} for second in found for slice_, _ in second.pairs)
        assert all(-1 <= score <= 1 for _, score in pairs)


def test_an_outcome_is_filled_in_its_own_order():
    """Every field has the kind of value that it is meant for."""
    one: Outcome = outcomes(EVEN)[Arm.BASELINE][0]
    assert (one.status, one.evidence, one.unit, one.replica, one.cached_tokens) == (0, True, 0, -1, 0)
    assert (one.prompt_tokens, one.control, one.cold) == (drawing.PROMPT, False, False)
    assert isinstance(one.flaws, tuple)
    assert one.finish_reason in drawing.REASONS
