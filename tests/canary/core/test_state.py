"""What workers are told of a release: the control's share, the warm-up, what is examined."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from canary.core import events
from canary.core.arms import Endpoint, Split
from canary.core.release import Phase, Release, advance
from tests.canary.core.releases import PLAN, cause, enough, opened

CONTROL = Endpoint("spare", "base", ("http://127.0.0.1:8103",), "d-base")
WARM = replace(PLAN, warm_up=60.0, examined=("refusal",))
WITH = replace(opened(WARM), control=CONTROL)


def look(release: Release, now: float) -> Release:
    """One look with all it needs, manual gates passed by a person."""
    gate = release.phase is Phase.CANARY and release.plan.steps[release.step].manual
    event = events.Promote(cause(now), enough()) if gate else events.Look(cause(now), enough())
    return advance(release, event)[0]


def walk(release: Release) -> list[Release]:
    """Every place on the way to promotion, a look each 100 s."""
    found, now = [], 0.0
    while release.active:
        now += 100
        release = look(release, now)
        found.append(release)
    return found


def test_the_control_answers_as_much_as_the_candidate() -> None:
    """In the shadow as much as the first step gives; never more than the baseline has."""
    seen = [(one.phase.value, one.split().percent, one.split().control_percent) for one in walk(WITH)]
    assert seen == [
        ("preflight", 0, 0),
        ("shadow", 0, 1),
        ("canary", 1, 1),
        ("canary", 5, 5),
        ("canary", 50, 50),
        ("bake", 95, 5),
        ("promoted", 0, 0),
    ]
    assert [one.split().control is None for one in walk(WITH)] == [False] * 6 + [True]
    assert {one.split().control_percent for one in walk(opened(WARM))} == {0.0}


def test_caches_warm_up_with_the_first_share_and_then_stay_as_they_are() -> None:
    """A generation is never spent on warm-up alone; a control warms up when it gets its own first users."""
    assert [one.split().warm_until for one in walk(opened(WARM))] == [0, 0, 360, 360, 360, 360, 0]
    assert [one.split().warm_until for one in walk(WITH)] == [0, 260, 360, 360, 360, 360, 0]
    canary = walk(opened(WARM))[2]
    again = advance(canary, events.SetWeight(cause(900.0), 0.0))[0]
    again = advance(again, events.SetWeight(cause(1000.0), 5.0))[0]
    assert again.warm_until == 360


def test_an_arm_that_moved_warms_up_again() -> None:
    """Its caches are empty wherever it serves now; an engine of no arm changes nothing."""
    canary = walk(WITH)[3]
    for engine in ("base", "new", "spare"):
        moved = advance(canary, events.Relocated(cause(1000.0), {engine: ("http://127.0.0.1:9",)}))[0]
        assert moved.split().warm_until == 1060
        assert moved.generation == canary.generation + 1
    assert moved.split().control.replicas == ("http://127.0.0.1:9",)
    assert advance(canary, events.Relocated(cause(1000.0), {"other": ("http://127.0.0.1:9",)}))[0] == canary
    before = walk(opened(WARM))[0]
    moved = advance(before, events.Relocated(cause(150.0), {"new": ("http://127.0.0.1:9",)}))[0]
    assert moved.split().warm_until == 0


def test_what_is_examined_is_published_while_the_candidate_is_exposed() -> None:
    """And the control has the baseline's price."""
    seen = [one.split().examined for one in walk(WITH)]
    assert seen == [("refusal",)] * 6 + [()]
    priced = look(look(WITH, 100), 200)
    assert priced.control.price == priced.baseline.price
    priced = advance(
        walk(WITH)[0], events.Look(cause(200), enough(prices={"baseline": (0.0, 1e-6, 2e-6), "candidate": (0, 0, 0)}))
    )[0]
    assert priced.split().control.price == (0.0, 1e-6, 2e-6)


def test_another_attempt_keeps_its_control_and_warms_up_afresh() -> None:
    """`retry` begins with nothing but the arms."""
    ended = advance(walk(WITH)[2], events.Abort(cause(350.0)))[0]
    retried = advance(ended, events.Retry(cause(400.0)))[0]
    assert (retried.control, retried.warm_until, retried.shares) == (CONTROL, 0.0, (0.0,))


@pytest.mark.parametrize("release", [*walk(WITH), opened()])
def test_a_state_survives_the_store(release: Release) -> None:
    """To an equal value, and so does its split."""
    assert Release.from_json(release.to_json()) == release
    assert Split.from_json(release.split().to_json()) == release.split()


def test_a_state_of_an_older_version_still_loads() -> None:
    """Without control, warm-up, examined answers or the time of the share."""
    value = json.loads(walk(opened(WARM))[3].to_json())
    for name in ("control", "warm_until", "staged"):
        del value[name]
    for name in ("warm_up", "examined"):
        del value["plan"][name]
    old = Release.from_json(json.dumps(value))
    assert (old.control, old.warm_until, old.staged, old.plan.warm_up, old.plan.examined) == (None, 0.0, 0.0, 0.0, ())
    assert old.split().percent == 5


def test_the_share_knows_when_it_began() -> None:
    """A phase that begins at the same share does not begin a stage."""
    assert [one.staged for one in walk(opened(WARM))][1:6] == [0, 300, 400, 500, 600]
