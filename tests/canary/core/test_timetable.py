from dataclasses import replace

import pytest

from canary.core.location import Belief
from canary.core.noise import all_laws
from canary.core.plan import BakePlan, Money, Plan, ShadowPlan, Step
from canary.core.policy import Guard, Policy
from canary.core.premise import Baseline, Traffic
from canary.core.timetable import RELEASE, Intent, label, places, savings, timetable, total

PLAN = Plan(
    steps=(Step(5, 60.0, 20), Step(25, 60.0), Step(50, 60.0, manual=True)),
    bake=BakePlan(120.0),
    money=Money(5, 8),
    shadow=ShadowPlan(20, 100, 4, 10.0),
)
POLICY = Policy(
    (Guard("error_rate", 0.01), Guard("ttft_p95", 1.1), Guard("shadow_quality", -0.05, slices=("law", "code"))),
    stages=4,
)
INTENT = Intent(PLAN, POLICY, Traffic(20.0, {"law": 0.25, "code": 0.75}), Baseline())


def changed(**plan: object) -> Intent:
    """The release with another plan."""
    return replace(INTENT, plan=replace(PLAN, **plan))


def test_the_places_are_the_specs():
    """Shadow, steps, bake; what is mirrored is the baseline's part, and nothing in the bake."""
    found = list(places(INTENT))
    assert [place.name for place in found] == ["shadow", "5 %", "25 %", "50 %", "bake 95 %"]
    assert [place.at.pairs for place in found] == pytest.approx([0.2, 0.19, 0.15, 0.1, 0])
    assert [place.proved for place in found] == [False, False, True, True, True]
    assert found[3].manual
    slow = replace(INTENT, traffic=replace(INTENT.traffic, pairs=1.0))
    assert next(places(slow)).at.pairs == pytest.approx(1 / 20)


def test_early_steps_wait_for_time_and_samples_alone():
    """As the release machine does: proof is asked for from 25 % on."""
    shadow, first, *_ = timetable(INTENT)
    assert (shadow.seconds, shadow.decides) == (25, "pairs")
    assert (first.seconds, first.decides) == (60, "time")
    few = timetable(changed(steps=(Step(5, 1.0, 200), *PLAN.steps[1:])))[1]
    assert (few.seconds, few.decides) == (200, "samples")


def test_a_later_step_waits_for_its_slowest_proof():
    """What decides is the guardrail that passes last; a slice of a quarter of the traffic takes longest."""
    stay = timetable(INTENT)[2]
    assert stay.decides == label(stay.slowest.case)
    assert stay.seconds == max(wait.passed for wait in stay.waits) > 60
    law, code = (next(w for w in stay.waits if w.case.slice == name) for name in ("law", "code"))
    assert law.passed > code.passed


def test_what_has_passed_is_waited_for_no_more():
    """Evidence is carried along, so the last steps last as long as their durations."""
    stays = timetable(INTENT)
    assert [stay.decides for stay in stays[3:]] == ["time", "time"]
    assert stays[4].slowest is None
    assert total(stays) == pytest.approx(sum(stay.seconds for stay in stays))


def test_a_guardrail_that_only_warns_holds_nothing_up():
    """Only those that roll back are proved before an advance."""
    warn = replace(POLICY, guards=(POLICY.guards[0], *(replace(g, on_breach="warn") for g in POLICY.guards[1:])))
    assert timetable(replace(INTENT, policy=warn))[2].decides == "error_rate"


def test_what_cannot_be_proved_never_ends():
    """Without a shadow's pairs to come, and with a margin of nothing in a trickle of traffic."""
    trickle = replace(INTENT, traffic=replace(INTENT.traffic, rps=0.5), policy=Policy((Guard("error_rate", 0.0001),)))
    stays = timetable(trickle)
    assert (stays[2].seconds, total(stays)) == (None, None)
    assert savings(trickle, stays) == ()


def test_each_saving_is_a_release_of_its_own():
    """A larger share, more pairs and a wider margin, each with the length that it leads to."""
    plan = replace(PLAN, steps=(Step(30, 60.0),), shadow=None)
    intent = Intent(plan, Policy((Guard("ttft_p95", 1.1),), stages=2), INTENT.traffic, Baseline())
    found = {saving.what: saving for saving in savings(intent, timetable(intent)) if saving.of == RELEASE}
    assert list(found) == ["50 % instead of 30 %", "ttft_p95 with margin 1.15 instead of 1.1", "a reference of 6 h"]
    again = timetable(replace(intent, plan=replace(plan, steps=(Step(50, 60.0),))))
    assert found["50 % instead of 30 %"].after == total(again) < total(timetable(intent))
    more = [saving.what for saving in savings(INTENT, timetable(INTENT))]
    assert "a shadow of 100 % instead of 20 %" in more
    slow = replace(INTENT, traffic=replace(INTENT.traffic, pairs=1.0))
    assert any("max_concurrency 8 instead of 4" in saving.what for saving in savings(slow, timetable(slow)))


def test_a_reference_is_a_saving_where_nothing_is_known_of_the_machines():
    """A latency passes and fails sooner by it; with one, supposed or real, there is nothing left to say."""
    found = [saving for saving in savings(INTENT, timetable(INTENT)) if saving.what.startswith("a reference of 6 h")]
    assert [saving.of.partition(" at ")[0] for saving in found] == [RELEASE, "FAIL of ttft_p95"]
    assert found[1].after < found[1].before / 5
    known = replace(INTENT, traffic=replace(INTENT.traffic, reference=6 * 3600.0))
    assert not any("reference" in saving.what for saving in savings(known, timetable(known)))
    assert total(timetable(known)) == found[0].after
    real = replace(INTENT, traffic=replace(INTENT.traffic, beliefs={"ttft": Belief.without_reference(all_laws(0.25))}))
    assert not any("reference" in saving.what for saving in savings(real, timetable(real)))


def test_a_latency_that_passed_stays_so_where_the_loads_differ():
    """The bake's 95 % on as many replicas are not alike; the proof of the step before stands."""
    stays = timetable(INTENT)
    waits = {stay.place.name: wait.passed for stay in stays for wait in stay.waits if wait.case.located}
    assert waits["5 %"] is None
    assert waits["25 %"] > 0
    assert waits["bake 95 %"] == 0


def test_a_limit_and_a_length_have_their_place():
    """Every kind of guardrail is forecast."""
    names = {"error_rate_limit": 0.02, "ttft_p95_limit": 0.9, "output_length": 1.25, "stall_p99": 1.5, "refusal": 0.02}
    policy = Policy(tuple(Guard(name, margin) for name, margin in names.items()), stages=4)
    stays = timetable(replace(INTENT, policy=policy))
    assert {label(wait.case) for wait in stays[2].waits if wait.passed and wait.failed} == set(names)
    assert total(stays) is not None
