from __future__ import annotations

import pytest
from rich.console import Console

from canary.console import explain, figures, render
from tests.canary import materials

STATE = {
    "model": "mathdocs",
    "release": "mathdocs-adapted",
    "attempt": 1,
    "phase": "canary",
    "step": 1,
    "steps": [{"percent": 10}, {"percent": 50}],
    "generation": 5,
    "desired": {"baseline": 0.5, "candidate": 0.5},
    "actual": {"baseline": 0.52, "candidate": 0.48},
    "workers": {"live": 2, "acknowledged": 1, "behind": ["gateway-2"]},
    "overlays": {"paused": "", "held": "ttft_p95 is inconclusive: [not] proved", "frozen": ""},
    "guardrails": [
        {**finding.to_dict(), "name": finding.guardrail} for finding in (*materials.FINDINGS[:2], materials.BREACH)
    ],
    "spend_usd": 0.0688,
    "budget_usd": 5.0,
    "reason": "",
    "to_go": {"seconds": 7.2, "samples": 22},
    "waiting": "22 of 60 samples at canary 50 %",
    "timeline": list(materials.AUDIT[:5]),
}

REFERENCE = {
    "source": "replicas",
    "replicas": [1, 1],
    "seconds": 22_320.0,
    "age_s": 12.0,
    "tells": True,
    "likeliest": {"sd": 0.0, "tau_s": 20.0},
    "largest": {"sd": 0.045, "tau_s": 600.0},
    "outside": False,
}
LOAD = {
    "candidate": {"in_flight": 1.2, "per_second": 0.5, "cached": 0.31, "replicas": 1},
    "baseline": {"in_flight": 0.6, "per_second": 9.5, "cached": 0.3, "replicas": 2},
}


def text(renderable, width: int = 120) -> str:
    """What a pipe gets."""
    console = Console(width=width, highlight=False, color_system=None)
    with console.capture() as capture:
        console.print(renderable)
    return "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"


def test_the_face_stays_as_it_is(snapshot_dir):
    """The glance, to the letter."""
    assert text(render.status(STATE)) == (snapshot_dir / "status.txt").read_text()


def test_the_conditions_have_a_line_each():
    """The machines' reference and the arms' load, as soon as they are known."""
    known = {**STATE, "reference": {"ttft": REFERENCE, "tpot": None}, "load": LOAD}
    said = text(render.status(known), width=160)
    assert "reference  6.2 h of 2 replicas, last block 12 s ago: own noise of TTFT at most 4.5 %" in said
    assert "load       candidate 1.2 in flight a replica (1), 31 % of prompt tokens cached; baseline 0.6" in said


@pytest.mark.parametrize("state", [{}, {"model": "m", "phase": None, "guardrails": None, "overlays": None}])
@pytest.mark.parametrize("face", [render.status, explain.draw, render.line])
def test_a_status_with_nothing_in_it_is_still_drawn(face, state):
    """A model without a release, or an older control plane, breaks nothing."""
    assert text(face(state)).strip()


def test_outside_text_is_never_read_as_markup():
    """Brackets in reasons stay brackets."""
    assert "[not] proved" in text(render.status(STATE))
    assert "[red]x[/red]" in text(render.entries([{"who": "[red]x[/red]", "what": "[bold]y"}]))


def test_an_obstacle_that_holds_is_said_once():
    """The overlay's reason is not repeated as what is waited for."""
    held = {**STATE, "waiting": STATE["overlays"]["held"], "to_go": {}}
    assert text(render.status(held), width=200).count("inconclusive: [not] proved") == 1


def test_a_line_is_one_line():
    """Pipes and logs get no line break out of a reason."""
    assert "\n" not in render.line({**STATE, "reason": "first\nsecond"})


@pytest.mark.parametrize(
    ("evidence", "threshold", "part"),
    [(None, 6.0, None), (-2.0, 6.0, 0.0), (3.0, 6.0, 0.5), (9.0, 6.0, 1.0), (1.0, 0, None)],
)
def test_progress_is_the_evidence_over_its_threshold(evidence, threshold, part):
    """From nothing (0) to proved (1), unknown where either is."""
    assert figures.progress({"evidence": evidence, "threshold": threshold}) == part


@pytest.mark.parametrize(
    ("estimate", "margin", "part"), [(1.3, 1.5, 0.0), (1.6, 1.5, 1.0), (0.01, -0.02, 0.0), (-0.03, -0.02, 1.0)]
)
def test_a_difference_that_is_allowed_is_no_way_towards_a_breach(estimate, margin, part):
    """Proved to differ, and within the margin: nobody has to fear anything."""
    finding = {"evidence": 9.0, "threshold": 6.0, "estimate": estimate, "margin": margin}
    assert figures.progress(finding) == part


def test_a_milestone_changes_with_a_verdict_and_not_with_a_number():
    """Watching in a pipe prints when something happened, not each second."""
    moved = {**STATE, "guardrails": [{**STATE["guardrails"][0], "evidence": 1.0}, *STATE["guardrails"][1:]]}
    failed = {**STATE, "guardrails": [{**STATE["guardrails"][0], "verdict": "fail"}, *STATE["guardrails"][1:]]}
    assert render.milestone(moved) == render.milestone(STATE)
    assert render.milestone(failed) != render.milestone(STATE)


@pytest.mark.parametrize(
    ("value", "words"),
    [(None, figures.MISSING), (0.0, "$0.00"), (0.0455, "$0.0455"), (4.5, "$4.50"), (12_345.0, "$12,345.00")],
)
def test_dollars(value, words):
    """Small sums keep their digits."""
    assert figures.usd(value) == words


@pytest.mark.parametrize(
    ("value", "words"), [(7.2, "7 s"), (75, "1 min 15 s"), (7_260, "2 h 1 min"), (None, figures.MISSING)]
)
def test_lengths_of_time(value, words):
    """The two largest units."""
    assert figures.seconds(value) == words


@pytest.mark.parametrize("width", [80, 100, 120])
def test_a_glance_shortens_no_figure(width):
    """What does not fit is left out as a whole column; `explain` tells it."""
    said = text(render.status(STATE), width)
    assert "…" not in said
    assert max(map(len, said.splitlines())) <= width
    assert ("95 % interval" in said) is (width > 80)


def test_the_bar_goes_where_the_estimate_lies():
    """Within the margin evidence counts towards a pass, beyond it towards a fail."""
    one = {"name": "ttft_p95", "verdict": "inconclusive", "estimate": 1.0, "margin": 1.1}
    both = {"evidence": 2.0, "threshold": 4.0, "passing": 0.75, "pass_threshold": 3.0}
    assert "pass ██░░░░░░░░  25 %" in text(render.status({"guardrails": [{**one, **both}]}))
    assert "fail █████░░░░░  50 %" in text(render.status({"guardrails": [{**one, **both, "estimate": 1.2}]}))


def test_spend_shows_its_parts_and_where_it_ends():
    """Budget, stop loss and what was paid for; the rehearsal of the way back once there was one."""
    paid = {"before": 1.0, "engines": 2.0, "load_tests": 0.0}
    said = text(render.status({**STATE, "spend": paid, "stop_loss_usd": 8.0, "rehearsal_ms": 212}))
    assert "of $5.00, ends at $8.00 (before $1.00, engines $2.00)" in said
    assert "tokens of the candidate" not in said
    assert "212 ms" in said


def test_what_the_shadow_asked_of_the_candidate_is_told():
    """Spend, whoever is paid how."""
    asked = {"baseline": {"prompt": 9, "completion": 9}, "candidate": {"prompt": 1200, "completion": 34}}
    assert "1,200 prompt and 34 completion tokens of the candidate" in text(
        render.status({**STATE, "shadow_tokens": asked})
    )


def test_what_stands_under_to_go_is_not_said_twice():
    """Time and samples are counted once."""
    assert "waiting  " not in text(render.status({**STATE, "obstacle": "samples"}))
    assert "waiting  " in text(render.status({**STATE, "obstacle": "gate"}))


def test_a_ramp_and_a_warning_have_a_line_each():
    """What moves by itself, and what will end the release."""
    said = text(render.status({**STATE, "ramp": {"to": 50.0, "parts_left": 3}, "warnings": ["spent [all]"]}))
    assert "ramp     on the way to 50 %, in 3 more parts" in said
    assert "warning  spent [all]" in said


def test_explain_says_why_a_release_is_where_it_is():
    """Also where it ended before any guardrail looked."""
    said = text(explain.draw({"phase": "rolled_back", "reason": "the engine died"}))
    assert "why rolled_back: the engine died" in said
