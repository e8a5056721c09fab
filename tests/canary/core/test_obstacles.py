"""What keeps a release from advancing: room on the baseline, the card's success, and time that is up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from canary.core import events
from canary.core.events import Evidence
from canary.core.finding import Verdict
from canary.core.obstacles import obstacle
from canary.core.plan import AtEnd, Limits, Plan, ShadowPlan, Step
from canary.core.release import NotAllowed, Phase, Release, advance
from tests.canary.core.releases import PLAN, cause, enough, opened


def look(release: Release, now: float, evidence: Evidence | None = None) -> Release:
    """One look of the controller."""
    return advance(release, events.Look(cause(now), evidence or enough()))[0]


def at(phase: Phase, plan: Plan = PLAN) -> Release:
    """Walk a release to a phase, a look each 20 s."""
    release, now = opened(plan), 0.0
    while release.phase is not phase:
        now += 20
        gate = release.phase is Phase.CANARY and release.plan.steps[release.step].manual
        release = advance(release, events.Promote(cause(now), enough()))[0] if gate else look(release, now)
    return release


@pytest.mark.parametrize(
    ("rps", "served", "known", "word"),
    [
        (9.0, 8.0, False, "9 requests/s arrive, and under load the baseline served 8/s"),
        (8.0, 8.0, False, ""),
        (None, 8.0, False, ""),
        (None, 8.0, True, "the traffic (10 s of it) is not known"),
        (9.0, None, True, "the load test's throughput is not known"),
        (8.0, 9.0, True, ""),
    ],
)
def test_the_baseline_must_be_able_to_take_everything(rps, served, known, word) -> None:
    """What is unknown holds only where the spec demands to know it."""
    release = at(Phase.PREFLIGHT, replace(PLAN, known_capacity=known))
    moved = look(release, 100, enough(rps=rps, baseline_rps=served))
    assert (moved.phase is Phase.PREFLIGHT) == bool(word)
    assert word in moved.held


def test_promotion_waits_for_the_cards_success() -> None:
    """A person may promote past it only by saying that they skip the analysis."""
    release = at(Phase.BAKE)
    lacking = enough(unmet=("no evaluation proves domain_accuracy: run `linnet eval SPEC`",))
    held = look(release, release.entered + 20, lacking)
    assert (held.phase, "run `linnet eval SPEC`" in held.held) == (Phase.BAKE, True)
    with pytest.raises(NotAllowed, match="no evaluation proves"):
        advance(held, events.Promote(cause(500), lacking))
    assert advance(held, events.Promote(cause(500), None, skip_analysis=True))[0].phase is Phase.PROMOTED
    assert look(held, 500).phase is Phase.PROMOTED


def limited(**step) -> Plan:
    """A plan whose first step has 60 s."""
    return replace(PLAN, steps=(Step(1, 10, 5, max_duration=60, **step), Step(50, 10, 5)))


@pytest.mark.parametrize(
    ("plan", "evidence", "phase"),
    [
        (limited(), enough(samples=1), Phase.CANARY),
        (limited(on_inconclusive=AtEnd.ABORT), enough(samples=1), Phase.ABORTED),
        (limited(on_inconclusive=AtEnd.ROLLBACK), enough(Verdict.UNKNOWN), Phase.ROLLED_BACK),
        (limited(on_inconclusive=AtEnd.ROLLBACK), enough(unready=("engine base is dead",)), Phase.CANARY),
        (limited(on_timeout=AtEnd.ABORT), enough(unready=("engine base is dead",)), Phase.ABORTED),
        (replace(limited(), limits=Limits(0, AtEnd.HOLD, AtEnd.ROLLBACK)), enough(samples=1), Phase.ROLLED_BACK),
        (
            replace(limited(on_inconclusive=AtEnd.HOLD), limits=Limits(0, AtEnd.HOLD, AtEnd.ROLLBACK)),
            enough(samples=1),
            Phase.CANARY,
        ),
    ],
)
def test_what_still_stands_when_a_steps_time_is_up(plan, evidence, phase) -> None:
    """It holds, or ends the attempt, by whether evidence is what lacks; the step's own word wins over the release's."""
    release = at(Phase.CANARY, plan)
    assert look(release, release.entered + 60, evidence).phase is Phase.CANARY
    over = look(release, release.entered + 61, evidence)
    assert over.phase is phase
    said = over.held if over.active else over.reason
    assert said.startswith("over the 60 s at canary 1 %: ")
    assert said.endswith(obstacle(release, evidence, release.entered + 30).reason)


def test_a_candidate_with_nothing_in_its_way_goes_on_however_late() -> None:
    """The controller may have been away; time ends what does not get on, not what does."""
    release = at(Phase.CANARY, limited(on_timeout=AtEnd.ABORT, on_inconclusive=AtEnd.ROLLBACK))
    assert look(release, release.entered + 1000).percent == 50


def test_a_held_timeout_goes_on_by_itself_when_evidence_comes() -> None:
    """It is a hold like any other."""
    release = at(Phase.CANARY, limited())
    held = look(release, release.entered + 70, enough(samples=1))
    assert held.held_key == "late samples"
    assert look(held, release.entered + 80).percent == 50


def test_shadow_bake_and_the_whole_release_have_limits_too() -> None:
    """Each says which."""
    plan = replace(PLAN, shadow=ShadowPlan(20, 5, 2, 10, 30), limits=Limits(1000, AtEnd.ABORT, AtEnd.ABORT))
    shadow = at(Phase.SHADOW, plan)
    assert look(shadow, shadow.entered + 31, enough(pairs=1)).reason.startswith("over the 30 s at shadow 0 %: 1 of 5")
    bake = at(Phase.BAKE, replace(PLAN, bake=replace(PLAN.bake, max_duration=30)))
    assert look(bake, bake.entered + 31, enough(samples=1)).held.startswith("over the 30 s at bake 95 %")
    missing = enough(missing=("no load report",))
    late = look(at(Phase.PREFLIGHT, plan), 1001, missing)
    assert (late.phase, late.reason) == (Phase.ABORTED, "over the 1000 s of the release: no load report")


@pytest.mark.parametrize("overlay", [events.Pause, events.Freeze])
def test_no_overlay_makes_the_time_longer(overlay) -> None:
    """What goes to the baseline is never blocked."""
    release = at(Phase.CANARY, limited(on_inconclusive=AtEnd.ABORT))
    kept = advance(release, overlay(cause(release.entered + 1)))[0]
    assert look(kept, release.entered + 61, enough(samples=1)).phase is Phase.ABORTED
