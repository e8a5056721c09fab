"""Where a release goes when a guardrail pauses it, and how its share moves by a ramp."""

from __future__ import annotations

from dataclasses import replace

import pytest

from canary.core import events
from canary.core.finding import Finding, OnBreach, Verdict
from canary.core.plan import Step, ramp_parts
from canary.core.release import NotAllowed, Phase, Release, advance
from canary.core.state import ACTIVE, Ramp
from tests.canary.core.releases import PLAN, cause, enough, finding, opened

SKEWED = Finding(
    "sample_ratio",
    "",
    Verdict.FAIL,
    "sample_ratio: 700 of 10000 units (7.00%) got the candidate, 5.00% were meant; chance did not divide them",
    on_breach=OnBreach.PAUSE,
)


def canary() -> Release:
    """A release at its first step."""
    release = replace(opened(), phase=Phase.CANARY, shares=(0.0, 1.0))
    assert release.phase in ACTIVE
    return release


def look(release: Release, now: float, *findings: Finding) -> Release:
    """One look with those findings."""
    return advance(release, events.Look(cause(now), enough(findings=findings)))[0]


def test_a_skewed_division_pauses_with_its_numbers_and_rolls_nothing_back() -> None:
    """Somebody has to look; users stay where they are."""
    paused = look(canary(), 100, finding(Verdict.PASS), SKEWED)
    assert (paused.phase, paused.percent) == (Phase.CANARY, 1)
    assert paused.paused == SKEWED.reason
    assert "7.00%" in paused.paused
    assert look(paused, 200, finding(Verdict.PASS), SKEWED) == paused


def test_who_resumes_is_not_paused_for_it_again() -> None:
    """The person has seen it: the release goes on although the numbers still say so."""
    paused = look(canary(), 100, finding(Verdict.PASS), SKEWED)
    resumed = advance(paused, events.Resume(cause(150)))[0]
    assert resumed.paused == ""
    on = look(resumed, 200, finding(Verdict.PASS), SKEWED)
    assert (on.paused, on.percent) == ("", 5)
    assert look(on, 300, finding(Verdict.PASS), SKEWED).percent == 50


def test_a_pause_names_only_what_is_new() -> None:
    """What a person has resumed from is not told once more."""
    paused = look(canary(), 100, finding(Verdict.PASS), SKEWED)
    resumed = advance(paused, events.Resume(cause(150)))[0]
    slow = finding(Verdict.FAIL, "e2e_p95", OnBreach.PAUSE)
    again = look(resumed, 200, finding(Verdict.PASS), SKEWED, slow)
    assert again.paused == slow.reason
    assert again.breaches == ("sample_ratio/", "e2e_p95/")


def test_a_skewed_division_of_another_attempt_pauses_anew() -> None:
    """Other users are drawn, so it is another division."""
    paused = look(canary(), 100, SKEWED)
    ended = advance(paused, events.Abort(cause(150)))[0]
    retried = replace(advance(ended, events.Retry(cause(200)))[0], phase=Phase.CANARY, shares=(0.0, 1.0))
    assert look(retried, 300, SKEWED).paused == SKEWED.reason


RAMPED = replace(PLAN, steps=(Step(1, 10, 5), Step(11, 10, 5, ramp=8), Step(50, 10, 5)))


def shares(release: Release, until: float, every: float = 1.0, **more) -> list[float]:
    """Look each `every` seconds up to a time; return the shares there were."""
    found, now = [release.percent], 100.0
    while now < until:
        now += every
        release = advance(release, events.Look(cause(now), enough(**more)))[0]
        if release.percent != found[-1]:
            found.append(release.percent)
    return found


def ramping() -> Release:
    """At 3 %, the first of five parts on the way from 1 % to 11 %, since 100 s."""
    first = replace(opened(RAMPED), phase=Phase.CANARY, shares=(0.0, 1.0))
    release, effects = advance(first, events.Look(cause(100), enough()))
    assert events.Note("step", "ann", release.reason, 100_000) in effects
    return release


@pytest.mark.parametrize(("seconds", "parts"), [(0, 1), (0.5, 2), (8, 5), (120, 10), (1e9, 10)])
def test_a_ramp_has_few_parts(seconds: float, parts: int) -> None:
    """Each is a stage of evidence of its own."""
    assert ramp_parts(seconds) == parts


def test_a_ramp_moves_in_equal_parts_and_the_step_begins_at_its_end() -> None:
    """The first part at once, the last when its time is over; then the step's time and samples count."""
    release = ramping()
    assert (release.percent, release.step, release.ramp.to, release.ramp.left) == (3, 1, 11, 4)
    assert shares(release, 117) == [3, 5, 7, 9, 11]
    assert shares(release, 118) == [3, 5, 7, 9, 11, 50]  # arrived at 108 s, and 10 s there
    assert Release.from_json(release.to_json()) == release


@pytest.mark.parametrize("lack", [{"unready": ("engine base is dead",)}, {"verdict": Verdict.UNKNOWN}, {"frozen": "x"}])
def test_a_ramp_stands_while_something_speaks_against_it(lack: dict) -> None:
    """And a breach ends it as it ends everything."""
    assert shares(ramping(), 200, **lack) == [3]
    assert shares(ramping(), 200, verdict=Verdict.FAIL) == [3, 0]


def test_a_ramp_waits_while_paused_and_goes_on_without_catching_up() -> None:
    """Its parts stay as far apart as they were."""
    paused = advance(ramping(), events.Pause(cause(100)))[0]
    assert shares(paused, 200) == [3]
    resumed = advance(paused, events.Resume(cause(150)))[0]
    assert advance(resumed, events.Look(cause(151), enough()))[0].percent == 5
    assert shares(resumed, 104) == [3, 5, 7]


def test_a_share_ramps_by_hand_in_both_directions() -> None:
    """Automation is paused meanwhile; `pause` and `resume` stop it where it is."""
    for percent, found in ((0.0, [2.4, 1.8, 1.2, 0.6, 0]), (10.0, [4.4, 5.8, 7.2, 8.6, 10])):
        moved, effects = advance(ramping(), events.SetWeight(cause(100), percent, 8))
        assert shares(moved, 200) == pytest.approx(found)
        assert f"set by hand to {percent:g} % over 8 s" in moved.paused
        assert isinstance(effects[0], events.Publish)
    for stop in (events.Pause, events.Resume):
        stopped = advance(moved, stop(cause(101)))[0]
        assert (stopped.ramp, stopped.percent) == (None, 4.4)


def test_a_freeze_stops_a_ramp_by_hand_that_grows_and_none_that_shrinks() -> None:
    """Nothing blocks the way back."""
    down, up = (advance(ramping(), events.SetWeight(cause(100), percent, 8))[0] for percent in (0, 10))
    assert shares(advance(down, events.Freeze(cause(100)))[0], 200)[-1] == 0
    assert shares(advance(up, events.Freeze(cause(100)))[0], 200) == [4.4]
    for seconds in (-1, float("nan"), float("inf")):
        with pytest.raises(NotAllowed, match="no duration"):
            advance(ramping(), events.SetWeight(cause(100), 5, seconds))


HOUR = 3600.0
NOW = 1e6  # by the clock before it jumps


def jumped(by: float, since: float = 0.0) -> events.ClockJumped:
    """The clock jumps at NOW, and the controller notices `since` seconds later."""
    return events.ClockJumped(cause(NOW + by + since, "why", "controller"), by, NOW + by)


def timed(**times: float) -> Release:
    """A canary that has begun long ago, with times of its own."""
    plan = replace(PLAN, warm_up=100.0)
    return replace(canary(), plan=plan, **({"started": NOW - 900, "entered": NOW - 60, "staged": NOW - 60} | times))


@pytest.mark.parametrize("by", [HOUR, -HOUR], ids=["forward", "back"])
def test_a_jump_of_the_clock_takes_every_time_with_it(by) -> None:
    """What lies behind and what is to go is what it was; the audit says why, and what routes is untouched."""
    before = timed(ramp=Ramp(5.0, 3, 20.0, NOW + 15), withdrawn_ms=int(NOW - 800) * 1000)
    after, (note,) = advance(before, jumped(by))
    assert (after.started, after.entered, after.staged) == (NOW - 900 + by, NOW - 60 + by, NOW - 60 + by)
    assert after.ramp == Ramp(5.0, 3, 20.0, NOW + 15 + by)
    assert after.withdrawn_ms == (NOW - 800 + by) * 1000
    assert (after.jumped, after.at, after.reason) == (by, before.at, before.reason)
    assert (note.what, note.actor, note.why) == ("clock-jumped", "controller", "why")
    assert advance(after, jumped(-by))[0].entered == before.entered


def test_what_never_was_stays_never() -> None:
    """A share that has not begun, caches that do not warm, a rehearsal that is yet to come."""
    after = advance(timed(staged=0.0, withdrawn_ms=0), jumped(-HOUR))[0]
    assert (after.staged, after.warm_until, after.withdrawn_ms, after.ramp) == (0.0, 0.0, 0, None)


@pytest.mark.parametrize("by", [HOUR, -HOUR], ids=["forward", "back"])
def test_what_a_person_wrote_by_the_new_clock_stays(by) -> None:
    """Between the jump and the controller's next look: those times are right."""
    before = timed(ramp=Ramp(5.0, 3, 20.0, NOW + by + 20.2), entered=NOW + by + 0.2, staged=NOW + by + 0.2)
    after = advance(before, jumped(by, since=0.5))[0]
    assert (after.entered, after.staged, after.ramp) == (before.entered, before.staged, before.ramp)
    assert after.started == NOW - 900 + by


@pytest.mark.parametrize(
    ("by", "warm_until", "then", "generations"),
    [
        (HOUR, NOW + 40, NOW + 40 + HOUR, 1),  # cold: as long as it was
        (-HOUR, NOW + 40, NOW + 40 - HOUR, 1),
        (HOUR, NOW - 10, NOW - 10, 0),  # warm: workers whose clocks did not jump must not think them cold
        (-HOUR, NOW - 10, NOW - 10 - HOUR, 1),  # nor those whose did
    ],
)
def test_full_caches_stay_full_for_workers_whose_clock_jumped_and_others(by, warm_until, then, generations) -> None:
    """A worker asks its own clock whether a latency is evidence; what it is to ask by is published."""
    before = timed(warm_until=warm_until)
    after, effects = advance(before, jumped(by))
    assert after.warm_until == then
    assert after.generation == before.generation + generations
    assert sum(isinstance(effect, events.Publish) for effect in effects) == generations


@pytest.mark.parametrize("phase", sorted(set(Phase) - set(ACTIVE)))
def test_an_end_keeps_the_time_it_was_written_with(phase) -> None:
    """Nothing waits there any more."""
    ended = replace(timed(), phase=phase)
    assert advance(ended, jumped(HOUR)) == (ended, ())
