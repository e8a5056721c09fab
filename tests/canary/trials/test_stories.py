from dataclasses import replace

import pytest

from canary.card import spec
from canary.core.finding import OnBreach
from canary.core.policy import Guard, Policy
from canary.trials import stories
from canary.trials.recording import read
from canary.trials.simulate import Told
from canary.trials.stories import Scenario, Setting, Summary
from canary.trials.world import OwnNoise, Step, World
from tests.canary.recordings import entries, lines
from tests.canary.specs import SPEC, changed

FULL = Policy(
    (
        Guard("error_rate", 0.005),
        Guard("ttft_p95", 1.1, ("law", "general")),
        Guard("tpot_p95", 1.2),
        Guard("cost_per_token", 1.5),
        Guard("shadow_quality", -0.02),
    )
)
EQUAL = Scenario(0, "equal", equal=True)


def told(rolled_back: int, runs: int) -> Summary:
    """So many of so many equal candidates rolled back."""
    back = [Told(10 + n, 100 + n, "error_rate") for n in range(rolled_back)]
    return stories.summary(EQUAL, back + [Told(600, 6000)] * (runs - rolled_back))


def test_harm_is_twice_the_margin():
    """As `linnet plan` has it, each in its guardrail's unit."""
    names = [one.name for one in stories.scenarios(FULL)]
    assert names == [
        "equal",
        "equal, own noise 0.18/0.1 of 3 min",
        "errors +1 pp",
        "TTFT x1.2",
        "TPOT x1.4",
        "cost x2",
        "quality -0.04",
    ]
    harms = [one.harm for one in stories.scenarios(FULL)]
    assert (harms[2].error, harms[5].cost, harms[6].quality) == (0.01, 2.0, 0.04)
    assert harms[3].ttft == pytest.approx(1.2)


@pytest.mark.parametrize(
    ("guard", "name"),
    [
        (Guard("refusal", 0.05), "refusals +10 pp"),
        (Guard("malformed", 0.05), "malformed +10 pp"),
        (Guard("repetition", 0.05), "repetition +10 pp"),
        (Guard("truncated", 0.05), "truncated +10 pp"),
        (Guard("empty", 0.05), "empty +10 pp"),
        (Guard("stall_p99", 2.0), "stalls x3"),
        (Guard("output_length", 1.25), "length x1.5"),
        (Guard("error_rate_limit", 0.05), "errors of 10 %"),
        (Guard("ttft_p95_limit", 2.0), "TTFT p95 of 4000 ms"),
        (Guard("ttft_p99_limit", 3.0), "TTFT p99 of 6000 ms"),
        (Guard("tpot_p95_limit", 0.05), "TPOT p95 of 100 ms"),
    ],
)
def test_every_guardrail_has_a_story_that_it_ends(guard, name):
    """What is made up shows each kind of harm, and an equal candidate none of it."""
    policy = Policy((guard,), noise={"ttft": 0.0, "tpot": 0.0})
    equal, _, harmed = stories.scenarios(policy)
    assert harmed.name == name
    setting = Setting(World([Step(0.5, 240)]), 3, 1, 10)
    told = [stories.hold(one) for one in stories.trials(harmed, policy, setting)]
    assert [story.failed for story in told] == [guard.name] * 3
    assert [stories.hold(one).failed for one in stories.trials(equal, policy, setting)] == [""] * 3


def test_what_cannot_be_made_up_is_said():
    """The end to end time of made-up answers has no tail of its own."""
    assert stories.untold(FULL) == ()
    assert stories.untold(Policy((*FULL.guards, Guard("e2e_p95", 1.5, weight=0.1)))) == ("e2e_p95",)
    assert stories.untold(Policy((*FULL.guards, Guard("e2e_p95", 1.5, on_breach=OnBreach.WARN)))) == ()


def test_only_what_rolls_back_is_tried():
    """A guardrail that warns, or that is not named, has no scenario."""
    policy = Policy((Guard("error_rate", 0.1), Guard("ttft_p95", 2.0, on_breach=OnBreach.WARN), Guard("ttft_p99", 3.0)))
    assert [one.name for one in stories.scenarios(policy)][2:] == ["errors +20 pp", "TTFT x5"]


def test_own_noise_is_everywhere_but_in_its_scenario():
    """That one keeps the most that the guardrails are made for."""
    own = OwnNoise(0.3, 0.2, 60.0)
    noises = [one.noise for one in stories.scenarios(FULL, own)]
    assert noises[1] == stories.NOISE
    assert {noises[0], *noises[2:]} == {own}


def test_steps_last_as_long_as_they_ask():
    """For their duration or their samples; the last takes the rest, and time may run out before it."""
    found = spec.parse(SPEC)
    assert stories.steps(found, 20.0, 100) == (Step(0.05, 20), Step(0.5, 80))
    assert stories.steps(found, 1000.0, 100) == (Step(0.05, 2), Step(0.5, 98))
    assert stories.steps(found, 1.0, 100) == (Step(0.05, 100),)


def test_pairs_are_what_the_mirrors_have_room_for():
    """Of the traffic at the last step; none without a shadow."""
    assert stories.traffic(spec.parse(SPEC), 10.0).pairs_per_s == pytest.approx(1.0)
    assert stories.traffic(spec.parse(SPEC), 10_000.0).pairs_per_s < 100
    assert stories.traffic(spec.parse(changed("shadow: {percent: 20, min_pairs: 30}\n", "")), 10.0).pairs_per_s == 0


def test_a_world_is_the_specs():
    """Its steps and shadow, its warm-up, and whether it has a control; equal and quiet as yet."""
    text = changed("usd_per_hour: 0.2}", "usd_per_hour: 0.2}\n  control: {engine: base2}")
    found = stories.world(spec.parse(text), 20.0, 100)
    assert (found.steps, found.traffic.rate) == ((Step(0.05, 20), Step(0.5, 80)), 20.0)
    assert (found.warm_up, found.control, found.recording) == (60.0, True, None)
    assert not stories.world(spec.parse(SPEC), 20.0, 100).control


def test_harm_to_a_limit_begins_where_the_recording_is():
    """A baseline that fails 2 % needs 2 % more to fail 4 %; what a log lacks has no story."""
    guards = (
        Guard("error_rate_limit", 0.02),
        Guard("ttft_p95_limit", 0.5),
        Guard("tpot_p95", 1.2),
        Guard("refusal", 0.1),
    )
    usual = read(lines(entries(5000)), "m").usual
    refusals, errors, ttft = (
        next(one.harm for one in stories.scenarios(Policy(guards), usual=usual) if one.name.startswith(word))
        for word in ("refusals", "errors of", "TTFT p95 of")
    )
    assert errors.error == pytest.approx(0.04 - usual.error)
    assert ttft.ttft == pytest.approx(1.0 / usual.ttft_p95)
    assert refusals.refusal == pytest.approx(0.2)
    bare = read(lines([replace(one, ttft_ms=None) for one in entries(100)]), "m").usual
    assert stories.untold(Policy(guards), bare) == ("ttft_p95_limit", "tpot_p95")
    assert len(stories.scenarios(Policy(guards), usual=bare)) == 4


def test_a_guardrail_is_held_to_all_traffic():
    """What is made up has no slices."""
    assert {guard.slices for guard in stories.whole(FULL).guards} == {("",)}


def test_each_story_has_a_seed_of_its_own():
    """The same every time, and another in another scenario or with another seed."""
    kinds, settings = stories.scenarios(FULL)[:2], [Setting(World([Step(0.5, 60)]), 50, n, 5) for n in (1, 2)]
    seeds = [[one.seed for one in stories.trials(kind, FULL, setting)] for kind in kinds for setting in settings]
    assert seeds[0] == [one.seed for one in stories.trials(kinds[0], FULL, settings[0])]
    assert len({seed for some in seeds for seed in some}) == 200


def test_the_interval_is_exact():
    """Clopper's and Pearson's: none of 200 is at most 1.83 %."""
    found = told(0, 200)
    assert (found.rolled_back, found.low, found.failed, found.longest) == (0, 0.0, {}, (6000, 600))
    assert found.high == pytest.approx(1 - 0.025 ** (1 / 200))


def test_a_median_is_of_all_runs():
    """Those that were not rolled back count as later than all others."""
    assert (told(4, 10).requests, told(4, 10).seconds) == (None, None)
    assert (told(5, 10).requests, told(5, 10).seconds) == (104, 14)
    assert told(9, 9).requests == 104
    assert (told(8, 10).late, told(9, 10).late, told(100, 110).late) == (None, 18, 108)
    assert told(9, 9).longest is None


def test_summaries_keep_scenarios_apart():
    """Each has its own stories, in their order."""
    other = Scenario(2, "errors")
    found = stories.summaries((EQUAL, other), [Told(60, 9), Told(60, 9), Told(5, 2, "error_rate"), Told(6, 3, "empty")])
    assert [(one.scenario, one.rolled_back) for one in found] == [(EQUAL, 0), (other, 2)]
    assert found[1].failed == {"error_rate": 1, "empty": 1}


@pytest.mark.parametrize(("back", "runs", "holds"), [(0, 1000, True), (0, 200, None), (2, 200, None), (20, 200, False)])
def test_the_bound_is_judged_by_the_interval(back, runs, holds):
    """It holds if its upper limit is at most alpha, and is broken if its lower one is more."""
    assert stories.bound([told(0, runs), told(back, runs)], 0.01)[0] is holds


def test_harm_does_not_judge_the_bound():
    """Only an equal candidate is rolled back falsely."""
    harmed = stories.summary(Scenario(2, "errors"), [Told(5, 2, "error_rate")] * 500)
    assert stories.bound([told(0, 500), harmed], 0.01)[0] is True


def test_the_runs_that_are_needed_suffice():
    """And one fewer does not."""
    needed = stories.runs_needed(0.01)
    assert told(0, needed).high <= 0.01 < told(0, needed - 1).high
