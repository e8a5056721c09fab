"""The rehearsal of a rollback, before anybody is exposed."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from canary.core import events
from canary.core.events import NOBODY, Evidence, Heard
from canary.core.obstacles import obstacle
from canary.core.release import Phase, Release, advance
from canary.core.state import Release as State
from tests.canary.core.releases import NEW, cause, enough, opened


def heard(generation: int, ms: int = 0, workers: int = 2) -> Evidence:
    """All that is needed, and what the slowest worker routes by since when."""
    return enough(heard=Heard(workers, generation, "w2", ms))


def look(release: Release, now: float, evidence: Evidence) -> tuple[Release, tuple[events.Effect, ...]]:
    """One look of the controller."""
    return advance(release, events.Look(cause(now, actor="controller"), evidence))


def preflight() -> Release:
    """A release whose gates are passed and whose workers know the candidate."""
    return look(opened(rehearsed=False), 100, enough())[0]


def withdrawn() -> Release:
    """In the middle of a rehearsal that began at 101 s."""
    release = preflight()
    return look(release, 101, heard(release.generation))[0]


def test_a_rollback_is_rehearsed_before_anybody_is_exposed() -> None:
    """The candidate is withdrawn by a generation of its own, every worker follows, and it is known again."""
    before = preflight()
    out, effects = look(before, 101, heard(before.generation))
    assert (out.phase, out.rehearsing, out.generation) == (Phase.PREFLIGHT, True, before.generation + 1)
    assert out.split().candidate is None
    assert {type(effect) for effect in effects} == {events.Publish, events.Note}
    assert look(out, 101.2, heard(before.generation)) == (out, ())  # one has not followed yet
    back, effects = look(out, 101.4, heard(out.generation, 101_034))
    assert (back.rehearsal_ms, back.split().candidate) == (34, NEW)
    assert events.Note("rehearsed", "controller", "a rollback rehearsed in 34 ms", 101_400) in effects
    assert look(back, 102, heard(back.generation))[0].phase is Phase.SHADOW


@pytest.mark.parametrize(
    ("evidence", "word", "holds"),
    [
        (enough(heard=NOBODY), "no live worker", True),
        (heard(0), "worker w2 has not acknowledged generation 2", False),
    ],
)
def test_without_every_worker_nothing_is_rehearsed(evidence: Evidence, word: str, holds: bool) -> None:
    """A way back that nobody follows proves nothing; a worker is given a moment before that holds."""
    release = preflight()
    stayed = look(release, 101, evidence)[0]
    found = obstacle(release, evidence, 101)
    assert (stayed.phase, stayed.rehearsing) == (Phase.PREFLIGHT, False)
    assert (word in found.reason, found.holds) == (True, holds)
    assert obstacle(release, evidence, 106).holds


def test_a_slow_rollback_holds_and_is_tried_again() -> None:
    """Over the bound it is given up, the candidate is known again, and a minute later the next try may pass."""
    release = withdrawn()
    assert look(release, 105.9, heard(0)) == (release, ())
    slow = look(release, 106.1, heard(0))[0]
    assert (slow.rehearsal_ms, slow.rehearsing, slow.split().candidate) == (5_100, False, NEW)
    held = look(slow, 107, heard(slow.generation))[0]
    assert (held.phase, "took over 5 s (5100 ms)" in held.held) == (Phase.PREFLIGHT, True)
    again = look(held, 170, heard(held.generation))[0]
    assert again.rehearsing
    passed = look(again, 171, heard(again.generation, 170_100))[0]
    assert look(passed, 172, heard(passed.generation))[0].phase is Phase.SHADOW


def test_an_acknowledgement_counts_within_the_time_that_passed() -> None:
    """A worker's clock may be wrong by an hour: the way back took neither less than nothing nor longer than watched."""
    for ms, took in ((0, 0), (101_034, 34), (9_999_999, 400)):
        assert look(withdrawn(), 101.4, heard(10_000, ms))[0].rehearsal_ms == took


@pytest.mark.parametrize("event", [events.Abort(cause(102)), events.Rollback(cause(102)), events.Supersede(cause(102))])
def test_a_rehearsal_blocks_no_end(event: events.Event) -> None:
    """And nothing of it is left in the next attempt."""
    ended, effects = advance(withdrawn(), event)
    assert not ended.active
    assert isinstance(effects[0], events.Publish)
    if ended.phase is not Phase.SUPERSEDED:
        retried = advance(ended, events.Retry(cause(103)))[0]
        assert (retried.withdrawn_ms, retried.rehearsal_ms) == (0, None)


def test_an_overlay_keeps_a_rehearsal_from_beginning_and_none_keeps_it_from_ending() -> None:
    """The candidate does not stay withdrawn because a person paused meanwhile."""
    paused = advance(preflight(), events.Pause(cause(100.5)))[0]
    assert not look(paused, 101, heard(paused.generation))[0].rehearsing
    frozen = advance(withdrawn(), events.Freeze(cause(101.1)))[0]
    assert look(frozen, 102, heard(frozen.generation, 101_500))[0].rehearsal_ms == 500


def test_states_and_evidence_of_an_older_version_still_load() -> None:
    """In preflight they have a rehearsal before them."""
    value = json.loads(preflight().to_json())
    for name in ("withdrawn_ms", "rehearsal_ms", "ramp"):
        del value[name]
    for name in ("limits", "max_rollback", "known_capacity"):
        del value["plan"][name]
    for step in value["plan"]["steps"]:
        for name in ("max_duration", "on_timeout", "on_inconclusive", "ramp"):
            del step[name]
    assert State.from_json(json.dumps(value)) == preflight()
    seen = {
        name: one for name, one in enough().to_dict().items() if name not in {"heard", "rps", "baseline_rps", "unmet"}
    }
    assert Evidence.from_dict(seen) == replace(enough(), heard=NOBODY)
    assert Evidence.from_dict(json.loads(json.dumps(enough().to_dict()))) == enough()
