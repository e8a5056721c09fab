"""Why a guardrail says what it says, and what would change it: short words for three in the morning."""

from __future__ import annotations

import pytest

from canary.console import explain
from tests.canary import materials
from tests.canary.console.test_render import LOAD, REFERENCE, STATE, text

SLOW = {
    "name": "ttft_p95",
    "guardrail": "ttft_p95",
    "slice": "",
    "verdict": "inconclusive",
    "estimate": 1.02,
    "low": 0.9,
    "high": 1.16,
    "margin": 1.104,
    "evidence": 0.4,
    "threshold": 6.8,
    "passing": 1.0,
    "pass_threshold": 3.0,
    "n": 300,
    "on_breach": "rollback",
    "reason": "ttft_p95 210 ms against 206 ms, x1.02 <= x1.10 allowed; not yet proved",
}
KNOWN = {**STATE, "desired": {"baseline": 0.95, "candidate": 0.05}, "load": LOAD}
KNOWN["reference"] = {"ttft": REFERENCE, "tpot": None}


def mends(state: dict = KNOWN, **finding: object) -> str:
    """What would change the verdict of a finding, in lines."""
    return "\n".join(explain.mends({**SLOW, **finding}, state))


def test_the_face_stays_as_it_is(snapshot_dir) -> None:
    """To the letter; without conditions, and with them."""
    assert text(explain.draw(STATE)) == (snapshot_dir / "explain.txt").read_text()
    full = {**KNOWN, "guardrails": [SLOW, *STATE["guardrails"]]}
    assert text(explain.draw(full)) == (snapshot_dir / "explain_full.txt").read_text()


def test_more_requests_are_counted_and_timed() -> None:
    """As evidence has grown so far: 300 requests bought 1 + 2 nats, 2 more are needed."""
    assert "as it looks now it passes after some 200 more of the candidate's, 6 min 40 s at this rate" in mends()
    beyond = mends(estimate=1.5, high=1.8, evidence=4.0)
    assert "it fails, which means rollback after some 140 more of the candidate's" in beyond
    assert "a wider margin" not in beyond
    short = mends(reason="ttft_p95: needs 200 requests with a ttft an arm, has 34 and 650")
    assert "more requests: 166 more of the candidate's, 5 min 32 s at this rate" in short
    assert "166 more of the candidate's" in mends(STATE, reason="x: needs 200 requests an arm, has 34 and 650")


def test_nobody_is_told_to_wait_for_ever() -> None:
    """Evidence that shrinks, or that has not begun, says nothing of when; nor do requests that do not count."""
    assert "more requests" not in mends(passing=-2.5)
    assert "more requests" not in mends(passing=0.0)
    assert "more requests" not in mends(reason="x; not load-matched: the candidate has x9")
    assert "more requests" not in mends(n=0)


def test_a_larger_share_and_a_wider_margin_are_named() -> None:
    """With what they would bring."""
    assert "a larger share: at 50 % evidence grows 5.3 times as fast" in mends()
    assert "a wider margin: one beyond ×1.160 would pass about now" in mends()  # noqa: RUF001
    even = {**KNOWN, "desired": {"candidate": 0.5}}
    assert "larger share" not in mends(even)
    assert "wider margin" not in mends(high=1.1)


def test_a_reference_is_asked_for_where_it_helps() -> None:
    """Of a latency whose machines are not known, or hardly."""
    nothing = {**KNOWN, "reference": {"ttft": None, "tpot": None}}
    assert "a reference: a second replica of the baseline, or a control" in mends(nothing)
    young = {**KNOWN, "reference": {"ttft": {**REFERENCE, "seconds": 4000.0}}}
    assert "a longer reference: 1 h 6 min so far; 10 min tell something" in mends(young)
    assert "reference" not in mends()
    assert "reference" not in mends(nothing, guardrail="error_rate")


@pytest.mark.parametrize(
    ("finding", "said"),
    [
        ({"reason": "x; not load-matched: the candidate has x9"}, "load-match: arms.control"),
        ({"reason": "x; the baseline is over it too: the environment"}, "the baseline first"),
        ({"verdict": "unknown"}, "mend: what the reason names"),
        ({"verdict": "fail"}, "final for this attempt"),
        ({"verdict": "fail", "on_breach": "pause"}, "it does not pause for this again"),
        ({"verdict": "fail", "on_breach": "warn"}, "advice: nothing follows by itself"),
    ],
)
def test_each_verdict_has_its_mend(finding: dict, said: str) -> None:
    """One short line."""
    assert said in mends(**finding)


def test_a_pass_needs_nothing() -> None:
    """Nobody has to do anything."""
    assert mends(verdict="pass") == ""


def test_scripts_get_the_same() -> None:
    """The mends beside each finding, the conditions, and what comes next."""
    found = explain.to_json({**KNOWN, "guardrails": [SLOW]})
    assert found["guardrails"][0]["mends"] == list(explain.mends(SLOW, KNOWN))
    assert found["reference"]["ttft"] == REFERENCE
    assert found["load"] == LOAD
    assert "the next step begins" in found["next"]
    assert explain.to_json({})["guardrails"] == []


def test_a_pause_says_how_it_ends() -> None:
    """Who paused it may be asleep."""
    found = explain.to_json({"phase": "canary", "overlays": {"paused": "wait for Ann", "held": "", "frozen": ""}})
    assert found["next"].endswith("now paused (wait for Ann); `linnet resume` hands it back to automation")


def test_an_older_control_plane_is_explained_too() -> None:
    """Without conditions, without what speaks for a pass."""
    old = [{**finding.to_dict(), "name": finding.guardrail} for finding in materials.FINDINGS]
    for one in old:
        one.pop("passing", None)
        one.pop("pass_threshold", None)
    assert "towards pass" not in text(explain.draw({"guardrails": old}))
