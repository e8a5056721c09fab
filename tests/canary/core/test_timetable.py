from dataclasses import replace

import pytest

from canary.core.forecast import Baseline, Traffic
from canary.core.plan import BakePlan, Money, Plan, ShadowPlan, Step
from canary.core.policy import Guard, Policy
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
    assert list(found) == ["50 % instead of 30 %", "ttft_p95 with margin 1.15 instead of 1.1"]
    again = timetable(replace(intent, plan=replace(plan, steps=(Step(50, 60.0),))))
    assert found["50 % instead of 30 %"].after == total(again) < total(timetable(intent))
    more = [saving.what for saving in savings(INTENT, timetable(INTENT))]
    assert "a shadow of 100 % instead of 20 %" in more
    slow = replace(INTENT, traffic=replace(INTENT.traffic, pairs=1.0))
    assert any("max_concurrency 8 instead of 4" in saving.what for saving in savings(slow, timetable(slow)))


def test_a_reference_finds_slow_candidates_sooner_and_shortens_nothing():
    """Only FAIL of a latency gains by it, and with one there is nothing left to say."""
    found = [saving for saving in savings(INTENT, timetable(INTENT)) if saving.what.startswith("a reference of 6 h")]
    assert [saving.of.partition(" at ")[0] for saving in found] == ["FAIL of ttft_p95"]
    assert found[0].after < found[0].before / 5
    known = replace(INTENT, traffic=replace(INTENT.traffic, reference=6 * 3600.0))
    assert not any("reference" in saving.what for saving in savings(known, timetable(known)))
    assert total(timetable(known)) == total(timetable(INTENT))
