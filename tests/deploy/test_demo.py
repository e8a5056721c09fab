"""deploy/local/demo.py: the parts that need no engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from canary.card.spec import load
from deploy.local.catalogue import engine
from deploy.local.demo import BAD, DONE, GOOD, describe, faults, fresh_state, story
from deploy.local.settings import LocalSettings

BACK = {"breach_to_decision_ms": 41, "breach_to_acknowledged_ms": 60, "workers": 2}


@pytest.mark.parametrize("act", [GOOD, BAD], ids=lambda act: act.name)
def test_each_act_has_a_spec_of_its_name_and_engines_that_exist(act, tmp_path: Path):
    """What the demo plays is what the examples say."""
    spec = load(act.spec)
    assert spec.release == act.release
    for arm in (spec.arms.baseline, spec.arms.candidate):
        assert engine(arm.engine, tmp_path, 8101, 0).served_model == arm.served_model


def test_a_finished_demo_makes_room_and_an_interrupted_one_goes_on(tmp_path: Path):
    """Only what came to its end is put aside, and it is kept."""
    settings = LocalSettings(state=tmp_path)
    state = fresh_state(settings).state
    state.mkdir()
    (state / "store").touch()
    assert (fresh_state(settings).state / "store").exists()
    (state / DONE).touch()
    assert not fresh_state(settings).state.exists()
    assert (tmp_path / "demo.previous" / "store").exists()


@pytest.mark.parametrize(
    ("act", "status", "count"),
    [
        (GOOD, {"phase": "promoted"}, 0),
        (GOOD, {"phase": "rolled_back"}, 1),
        (GOOD, {"phase": "canary"}, 1),
        (BAD, {"phase": "rolled_back", "rollback": BACK}, 0),
        (BAD, {"phase": "rolled_back", "rollback": None}, 1),
        (BAD, {"phase": "promoted"}, 2),
        (BAD, {}, 2),
    ],
)
def test_the_demo_fails_unless_both_came_out_as_they_should(act, status, count):
    """The exit code rests on this table."""
    assert len(faults(act, status)) == count


def test_the_story_is_told_in_seconds_and_ends_with_the_way_back():
    """Breach, decision and acknowledgement are shown in milliseconds."""
    events = [
        {"unix_ms": 1000, "what": "start", "phase": "draft", "percent": 0.0, "why": "demo"},
        {"unix_ms": 3500, "what": "rolled_back", "phase": "rolled_back", "percent": 0.0, "why": "too slow"},
    ]
    told = story({"release": "r", "timeline": events, "rollback": BACK})
    assert "2.5 s  rolled_back" in told
    assert "breach -> decision 41 ms -> all 2 workers acknowledged 60 ms" in told


def test_what_holds_a_release_is_shown():
    """A release that waits says for what."""
    line = describe({"phase": "preflight", "generation": 2, "overlays": {"held": "no load report"}})
    assert line.endswith("held: no load report")
