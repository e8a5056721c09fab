"""Sums that no honest traffic leaves: nothing is raised, and nothing passes by them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from canary.core.finding import Finding, OnBreach, Verdict
from canary.core.guardrails import Analysis, Machines, StageEvidence, look
from canary.core.policy import Guard, Policy
from canary.core.reference import Reference
from canary.core.signals import SIGNALS
from canary.core.tally import Tally, TallyError, parse
from tests.canary.core.test_reference import QUIET

MARGINS = {"rate": 0.05, "difference": -0.1, "ratio": 1.5, "limit": 0.05, "seconds": 1.0}
ALL = Policy(
    tuple(
        Guard(
            name,
            MARGINS[signal.unit],
            ("", "a"),
            on_breach=OnBreach.ROLLBACK if signal.weight else OnBreach.WARN,
            strict=name in ("error_rate", "ttft_p95"),
        )
        for name, signal in SIGNALS.items()
    ),
    min_samples=1,
    min_pairs=1,
)
COUNTS = (
    *("assigned", "assigned_again", "done", "done_again", "ok", "error", "timeout", "failed_again", "empty", "cold"),
    *("empty_again", "truncated", "refusal", "refusal_again", "malformed", "unusable", "priced", "lengths", "busy_ms"),
    *("pairs_failed", "pair.0", "pair.-1000", "pair.1000", "a.1"),
    *(f"{name}.{at}" for name in ("ttft", "tpot", "e2e", "stall") for at in (0, 1, 300, 350, 999, 1000)),
    *(f"{name}@{at}.{word}" for name in ("ttft", "tpot") for at in (-5, 1, 2, 3, 10**8) for word in ("n", "k", "kk")),
    *(f"{name}_of.{at}" for name in ("cost", "tokens", "length", "answers", "lengths") for at in (0, 5, 63)),
)
SUMS = ("cost", "cost2", "tokens", "tokens2", "cost_tokens", "length", "length2")
NUMBERS = st.sampled_from([0, 1, 5, 40, 400, 10**6, 2**53, 2**63 - 1, -1, -400, -(2**63)]) | st.integers(0, 500)
AMOUNTS = st.sampled_from(["nan", "0", "-1", "1e-300", "5e-324", "9e18", "-9e18"]) | st.floats(0, 1e6).map(str)
PLACES = st.tuples(
    st.sampled_from(["0", "1", "2"]),
    st.sampled_from(["candidate", "baseline", "control", "odd"]),
    st.sampled_from("a|b"),
)
FIELDS = st.one_of(
    st.tuples(PLACES, st.sampled_from(COUNTS), NUMBERS.map(str)),
    st.tuples(PLACES, st.sampled_from([f"sum.{name}" for name in SUMS]), AMOUNTS),
)
CLOCKS = st.sampled_from([0.0, 1e3, 1.7e9, 1.7e9 - 3600, 1.7e9 + 3e7, -1e9, 1e18, math.nan, math.inf, -math.inf])
SHARES = st.sampled_from([0.0, 0.05, 0.5, 0.9, 1.0])


def evidence(fields: list[tuple[tuple[str, str, str], str, str]], shares: list[float]) -> list[StageEvidence]:
    """What the controller makes of a store's fields."""
    tallies = parse({f"{stage}|{arm}|{slice_.strip('|')}|{word}": text for (stage, arm, slice_), word, text in fields})
    return [
        StageEvidence(stage, shares[stage], {(arm, s): tally for (at, arm, s), tally in tallies.items() if at == stage})
        for stage in sorted({stage for stage, _, _ in tallies})
    ]


@settings(max_examples=200, deadline=None)
@given(
    looks=st.lists(st.tuples(st.lists(FIELDS, max_size=60), CLOCKS), min_size=1, max_size=3),
    shares=st.lists(SHARES, min_size=3, max_size=3),
    machines=st.builds(Machines, st.integers(-1, 3), st.integers(0, 3), st.sampled_from([{}, {"ttft": QUIET}])),
)
def test_no_sums_that_can_be_read_stop_a_look(looks, shares: list[float], machines: Machines) -> None:
    """Whatever the store holds, the clock says and comes and goes between two looks, also over a restart."""
    analysis, before = Analysis.initial(), dict[tuple[str, str], Verdict]()
    for fields, now in looks:
        analysis, found = look(analysis, ALL, evidence(fields, shares), now, machines)
        again = Analysis.from_json(analysis.to_json())
        assert again.to_json() == analysis.to_json()
        for one in found:
            assert before.get((one.guardrail, one.slice)) is not Verdict.FAIL or one.verdict is Verdict.FAIL
        before = {(one.guardrail, one.slice): one.verdict for one in found}
        analysis = again


def good(n: int = 400, **counts: int) -> Tally:
    """An arm that gives every guardrail something to pass by."""
    whole = {f"{name}.300": n for name in ("ttft", "tpot", "e2e", "stall")}
    sums = {"cost": 1e-5, "cost2": 1e-10, "tokens": 100.0, "tokens2": 1e4, "cost_tokens": 1e-3, "length": 50.0}
    return Tally(
        {"done": n, "ok": n, "assigned": n, "priced": n, "lengths": n, "pair.0": n} | whole | counts,
        {f"sum.{name}": n * amount for name, amount in (sums | {"length2": 2500.0}).items()},
    )


def verdicts(candidate: Tally, baseline: Tally, share: float = 0.5) -> Mapping[str, Finding]:
    """All findings of one look."""
    stage = StageEvidence(1, share, {("candidate", ""): candidate, ("baseline", ""): baseline})
    return {one.guardrail: one for one in look(Analysis.initial(), ALL, [stage], 0.0)[1] if not one.slice}


PASSED = {name for name, one in verdicts(good(), good()).items() if one.verdict is Verdict.PASS}


def test_what_is_damaged_below_would_pass_if_it_were_not() -> None:
    """Otherwise the next test shows nothing."""
    assert {"error_rate", "refusal", "cost_per_token", "output_length", "shadow_quality", "sample_ratio"} <= PASSED
    assert {"error_rate_limit", "ttft_p95_limit"} <= PASSED


@pytest.mark.parametrize("arm", ["candidate", "baseline"])
@pytest.mark.parametrize(
    "damaged",
    [
        good(ok=-1),
        good(unusable=50),
        good(done_again=500),
        Tally(good().counts, {**good().sums, "sum.cost": math.nan}),
        Tally(good().counts, {**good().sums, "sum.length": math.inf}),
        Tally(),
    ],
)
def test_damaged_sums_of_an_arm_pass_nothing_that_compares(damaged: Tally, arm: str) -> None:
    """Negative, not a number, infinite, contradictory or gone: unknown, in words; only shadow pairs need no arm."""
    arms = (damaged, good()) if arm == "candidate" else (good(), damaged)
    found = verdicts(*arms)
    for name in PASSED - {"shadow_quality", "sample_ratio"}:
        assert found[name].verdict is Verdict.UNKNOWN, found[name].reason


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("cost_per_token", [(Tally(good().counts, {**good().sums, "sum.cost": 5e-324, "sum.tokens": 9e18}), good())]),
        ("error_rate", [(good(9, error=9), good(9)), (good(5, error=5, done=0), good(4)), (good(), good())]),
        ("error_rate", [(good(2, error=2, done=1), good(2)), (good(99), good(1, error=60, done=1)), (good(), good())]),
    ],
)
def test_sums_that_are_numbers_and_make_none_are_unknown_or_not_proved(name: str, stages) -> None:
    """A ratio of nothing, and a stage of more failures than requests that the other stages hide."""
    found = look(
        Analysis.initial(),
        ALL,
        [StageEvidence(at, 0.5, {("candidate", ""): c, ("baseline", ""): b}) for at, (c, b) in enumerate(stages)],
        0.0,
    )[1]
    assert next(one for one in found if one.guardrail == name).verdict in (Verdict.UNKNOWN, Verdict.INCONCLUSIVE)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5, 1.5, math.nan])
def test_a_share_that_divides_nothing_passes_nothing_that_compares(share: float) -> None:
    """None, all, or none that can be."""
    found = verdicts(good(), good(), share)
    assert {name for name, one in found.items() if one.verdict is Verdict.PASS} <= {"shadow_quality"}


def test_a_stage_that_vanishes_and_counts_that_shrink_take_nothing_back() -> None:
    """What was proved stays; what is gone is unknown or not proved, never a pass of its own."""
    stage = StageEvidence(1, 0.5, {("candidate", ""): good(), ("baseline", ""): good()})
    analysis, _ = look(Analysis.initial(), ALL, [stage], 0.0)
    for later in ([], [StageEvidence(1, 0.5, {("candidate", ""): good(9), ("baseline", ""): good(7)})]):
        after, found = look(analysis, ALL, later, 9.0)
        kept = {one.guardrail: one.verdict for one in found if not one.slice}
        assert all(kept[name] in (Verdict.PASS, Verdict.UNKNOWN) for name in PASSED)
        assert dict(after.proofs) == dict(analysis.proofs)


def test_a_control_in_some_stages_only_is_compared_where_it_is() -> None:
    """A stage with one, a stage without, one that gets it late: no exception, and events of their own places."""
    both = {("candidate", ""): good(), ("baseline", ""): good()}
    first, second = StageEvidence(1, 0.5, both), StageEvidence(2, 0.5, both)
    analysis, _ = look(Analysis.initial(), ALL, [first, second], 0.0)
    late = StageEvidence(2, 0.5, {**both, ("control", ""): good(30)})
    analysis, found = look(analysis, ALL, [first, late], 1.0)
    grown = {("candidate", ""): good(500), ("baseline", ""): good(500), ("control", ""): good(130)}
    analysis, found = look(analysis, ALL, [first, StageEvidence(2, 0.5, grown)], 2.0)
    assert Verdict.FAIL not in {one.verdict for one in found}
    assert set(analysis.memories["ttft_p95", ""].events) == {~2}


def test_a_reference_of_other_machines_is_taken_by_parts() -> None:
    """Its laws are parts of the most that is assumed, whatever the numbers of replicas are."""
    wide = Reference.of_replicas(0.18, 8, 8).take({})
    stage = StageEvidence(1, 0.5, {("candidate", ""): good(), ("baseline", ""): good()})
    for reference in (wide, QUIET):
        analysis, _ = look(Analysis.initial(), ALL, [stage], 0.0, Machines(2, 3, {"ttft": reference}))
        course = analysis.courses["ttft", ""]
        assert course.most == pytest.approx(0.18 * math.sqrt(1 / 2 + 1 / 3))
        assert reference.belief is None or course.belief == reference.belief


def test_an_analysis_of_an_older_version_is_read() -> None:
    """Without courses, or with courses of other laws, or without recent histograms: what it proved holds."""
    stage = StageEvidence(1, 0.5, {("candidate", ""): good(), ("baseline", ""): good()})
    analysis, found = look(Analysis.initial(), ALL, [stage], 0.0)
    plain = json.loads(analysis.to_json())
    old = {"proofs": plain["proofs"], "memories": [["ttft_p95", "", {"seen": {}, "events": {"1": [0, 0]}}]]}
    for text in (old, {**old, "courses": [["ttft", "", {"most": 0.25, "spread": [None, 0, 0, 0, 0]}]]}):
        _, again = look(Analysis.from_json(json.dumps(text)), ALL, [stage], 1.0)
        assert [one.verdict for one in again] == [one.verdict for one in found]


def test_what_cannot_be_read_is_refused_before_a_look() -> None:
    """The controller then holds the release."""
    with pytest.raises(TallyError):
        evidence([(("1", "candidate", ""), "done", "1e5")], [0.5] * 3)
