"""Where a release goes when a guardrail pauses it."""

from __future__ import annotations

from dataclasses import replace

from canary.core import events
from canary.core.finding import Finding, OnBreach, Verdict
from canary.core.release import Phase, Release, advance
from canary.core.state import ACTIVE
from tests.canary.core.releases import cause, enough, finding, opened

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
