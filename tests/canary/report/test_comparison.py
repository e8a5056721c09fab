from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from canary.report import pages
from canary.report.comparison import Advice, Threshold, recommend, thresholds
from canary.report.facts import build
from canary.report.plot import Point, guard_intervals, share_over_time
from tests.canary import materials

NOW = materials.T0 + 200_000.0
EVIL = "<script>alert(1)</script>|[x](http://evil)\"'"


class Tags(HTMLParser):
    """Collects what a page loads or runs."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.links: list[str] = []

    def handle_starttag(self, tag, attrs):
        """Note the tag and whatever it would load or run."""
        self.names.add(tag)
        self.links += [
            value for name, value in attrs if name in {"src", "href", "srcset", "action"} or name.startswith("on")
        ]


def test_a_promoted_release_with_all_thresholds_met_is_kept():
    """Every demand measured and met, no guardrail failed: keep."""
    facts = build(materials.promoted(), NOW)
    assert facts.advice is Advice.KEEP
    assert [one.met for one in facts.thresholds] == [True, True, True]
    assert facts.missing == ()


def test_a_rolled_back_release_is_rejected_with_its_reason_first():
    """The first reason is the one the release ended with."""
    facts = build(materials.rolled_back(), NOW)
    assert facts.advice is Advice.REJECT
    assert facts.reasons[0].startswith("the release was rolled back: ttft_p95 is fail")


def test_a_rollback_is_timed_from_the_breach():
    """Decision and acknowledgement are milliseconds after the breach, from the record."""
    back = build(materials.rolled_back(), NOW).rollback
    assert back is not None
    assert (back.decision_ms, back.acknowledged_ms, back.who) == (12, 61, "controller")


def test_an_acknowledgement_of_an_earlier_generation_does_not_time_the_rollback():
    """Only the word of the workers on the rollback's own generation counts."""
    material = materials.rolled_back()
    material["audit"] = [
        {**entry, "generation": "5"} if entry["what"] == "acknowledged" else entry for entry in material["audit"]
    ]
    back = build(material, NOW).rollback
    assert back is not None
    assert back.acknowledged_ms is None


def test_without_a_live_worker_nobody_acknowledged():
    """The controller ends its wait without one: the report must not take that for a measurement."""
    material = materials.rolled_back()
    nobody = '{"acknowledged_ms": 1, "workers": 0}'
    material["audit"] = [{**entry, "evidence": nobody} for entry in material["audit"]]
    back = build(material, NOW).rollback
    assert back is not None
    assert back.acknowledged_ms is None


def test_a_report_of_another_digest_proves_nothing():
    """A gate's report binds to the candidate's digest."""
    material = materials.promoted()
    material["reports"] = {"load": {**materials.LOAD, "digest": "sha256:other"}, "eval": materials.EVALUATION}
    facts = build(material, NOW)
    assert facts.load is None
    assert facts.advice is Advice.WAIT
    assert "the load gate of this candidate (linnet loadtest SPEC)" in facts.missing


def test_missing_figures_are_said_and_never_made_up():
    """An empty store yields a report that claims nothing."""
    facts = build({"model": "mathdocs"}, NOW)
    assert facts.advice is Advice.WAIT
    assert facts.budget.spent is None
    assert len(facts.missing) >= 5
    page = pages.markdown(facts)
    assert "Not measured for this candidate." in page
    assert "$0.00" not in page


@pytest.mark.parametrize(
    ("phase", "met", "verdict", "expected"),
    [
        ("promoted", True, "pass", Advice.KEEP),
        ("promoted", None, "pass", Advice.WAIT),
        ("promoted", False, "pass", Advice.REJECT),
        ("promoted", True, "fail", Advice.REJECT),
        ("canary", True, "pass", Advice.WAIT),
        ("canary", True, "fail", Advice.REJECT),
        ("rolled_back", True, "pass", Advice.REJECT),
        ("aborted", True, "pass", Advice.NONE),
        ("superseded", True, "pass", Advice.NONE),
    ],
)
def test_the_advice_follows_from_phase_thresholds_and_guards(phase, met, verdict, expected):
    """An end speaks first, then failures, then what is not proved."""
    demand = Threshold("domain_accuracy", "w", "f", met, "evaluation")
    advice, reasons = recommend(phase, "because", (demand,), ({"guardrail": "error_rate", "verdict": verdict},))
    assert advice is expected
    assert reasons


def test_a_gain_that_is_not_proved_above_zero_misses():
    """The estimate alone is not enough."""
    evaluation = {
        **materials.EVALUATION,
        "slices": {"domain": {**materials.EVALUATION["slices"]["domain"], "low": -0.001}},
    }
    found = thresholds({"success": {"domain_accuracy": {"min_gain": 0.03}}}, materials.LOAD, evaluation)
    assert found[0].met is False


def test_spend_in_the_release_leaves_out_what_was_spent_before():
    """The ledger adds up: before + in the release = total."""
    budget = build(materials.promoted(), NOW).budget
    assert budget.spent == pytest.approx(0.0188)
    assert budget.total == pytest.approx(0.0688)


def test_the_spend_is_told_by_its_parts():
    """What was free is left out, and so is what was spent before: it has a line of its own."""
    spent = {"before": 0.05, "engines": 0.0, "tokens": 0.0128, "load_tests": 0.006}
    page = pages.markdown(build({**materials.promoted(), "status": {"spend": spent}}, NOW))
    assert "| of it tokens | $0.0128 |" in page
    assert "of it load tests" in page
    assert "of it engines" not in page


def test_counts_add_the_slices_of_a_stage():
    """Stage 1's candidate answered in two slices; one request timed out."""
    counts = {(count.stage, count.arm): count for count in build(materials.promoted(), NOW).counts}
    candidate = counts[1, "candidate"]
    assert (candidate.assigned, candidate.done, candidate.failed, candidate.tokens) == (10, 14, 1, 96)


def test_the_shadow_is_told_by_slice_beside_its_floor():
    """Agreement means little without what the baseline agrees with itself; stages add up."""
    material = materials.promoted()
    material["tallies"] = {
        "0|candidate|domain|pair.30": "3",
        "1|candidate|domain|pair.-10": "1",
        "0|candidate|domain|agree.20": "1",
        "1|candidate|domain|agree.60": "3",
        "1|baseline|domain|floor.90": "2",
        "1|candidate|general|done": "9",
    }
    facts = build(material, NOW)
    assert [(one.slice, one.pairs, one.agreement, one.compared) for one in facts.shadow] == [("domain", 4, 0.5, 4)]
    assert (facts.shadow[0].floor, facts.shadow[0].repeated) == (0.9, 2)
    assert "| domain | 4 | 50 % of 4 | 90 % of 2 |" in pages.markdown(facts)
    assert "Shadow" not in pages.markdown(build(materials.promoted(), NOW))


def test_the_page_runs_and_loads_nothing():
    """No script, no link, no resource: one file that needs only itself."""
    page = pages.html(build(materials.promoted(), NOW))
    tags = Tags()
    tags.feed(page)
    assert not tags.names & {"script", "link", "img", "iframe", "object", "embed", "base", "form"}
    assert tags.links == []
    assert "url(" not in page
    assert page.count("<svg") == 2


def test_what_came_from_outside_is_text_on_both_pages():
    """Names, reasons and actors can open no tag, cell or link."""
    material = materials.promoted()
    material["release"] = {**material["release"], "release": EVIL, "reason": EVIL}
    material["audit"] = [
        {**entry, "release": EVIL, "who": EVIL, "why": EVIL, "what": EVIL} for entry in material["audit"]
    ]
    material["findings"] = [{**finding, "slice": EVIL, "reason": EVIL} for finding in material["findings"]]
    facts = build(material, NOW)
    tags = Tags()
    tags.feed(pages.html(facts))
    assert "script" not in tags.names
    page = pages.markdown(facts)
    assert "<script" not in page
    assert re.search(r"(?<!\\)\[x", page) is None
    widths = {line.replace("\\|", "").count("|") for line in page.splitlines() if line.startswith("| 08:")}
    assert widths == {7}


def test_the_report_as_text(snapshot_dir):
    """The Markdown of both runs stays as it is, figure by figure."""
    for name in ("promoted", "rolled_back"):
        page = pages.markdown(build(getattr(materials, name)(), NOW))
        assert page == (snapshot_dir / f"report_{name}.md").read_text()


def test_json_has_the_contracts_fields():
    """`report --json`: thresholds, guards, recommendation, reasons."""
    value = build(materials.rolled_back(), NOW).to_json()
    assert value["recommendation"] == "reject the candidate"
    assert {"thresholds", "guards", "reasons"} <= value.keys()


def test_a_share_that_never_changed_draws_nothing():
    """One point is no line."""
    assert share_over_time([Point(1.0, 5.0, "x")]) == ""


def test_the_share_is_drawn_as_steps():
    """Each point holds until the next: horizontal, then vertical."""
    drawing = share_over_time([Point(0, 0, "a"), Point(1000, 50, "b"), Point(2000, 100, "c")])
    assert re.search(r'd="M56\.0 216\.0 H448\.0 V117\.0 H840\.0 V18\.0"', drawing)


def test_a_guardrail_without_numbers_is_not_drawn():
    """No estimate, no dot."""
    assert guard_intervals([{"guardrail": "error_rate", "verdict": "unknown"}]) == ""


def test_a_failing_guardrail_is_drawn_in_the_tone_of_failure_and_beyond_the_edge_as_an_arrow():
    """Far beyond the margin becomes an arrow, so that the rest stays readable."""
    drawing = guard_intervals([replace(materials.BREACH, estimate=9.0, high=12.0).to_dict()])
    assert 'class="spot bad"' in drawing
