"""loadtest/gates.py."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.gates import Limits, Verdict, cost_ratio, faults, judge

LIMITS = Limits(slo={"ttft_p95": 500.0, "tpot_p95": 40.0}, max_usd_per_million_tokens=2.0, max_cost_ratio=1.1)


def figures(**changes):
    """The figures of a good run."""
    good = {
        "sent": 100,
        "unsent": 0,
        "ok": 100,
        "failed": 0,
        "in_flight": 256,
        "asked": 4.0,
        "achieved": 4.0,
        "lag_p99_ms": 5.0,
        "cpu_share": 0.2,
        "ttft": {"p95": 300.0},
        "tpot": {"p95": 20.0},
        "capacity": {"in_flight": 8, "seconds": 7.5, "requests": 16, "failed": 0, "cpu_share": 0.4},
        "usd_per_million_tokens": 1.0,
        "invalid_reasons": (),
    }
    return {**good, **changes}


def both(**candidate):
    """A good baseline and a candidate with changes."""
    return {"baseline": figures(), "candidate": figures(**candidate)}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"sent": 0, "achieved": 0.0, "asked": 0.0}, "no request was sent"),
        ({"unsent": 3}, "3 requests were not sent: in-flight limit (256) reached"),
        ({"lag_p99_ms": 20.1}, "lag p99 20.1 ms > 20 ms"),
        ({"achieved": 3.9}, "achieved 3.9/s < 98% of the 4/s asked"),
        ({"cpu_share": 0.91}, "the client used 91% of its core > 90%"),
    ],
)
def test_a_client_that_did_not_keep_up_proves_nothing(change, reason):
    """Each reason carries its numbers."""
    assert any(reason in said for said in faults(figures(**change), LIMITS))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"requests": 15}, "saturation: 15 good answers in 7.5 s < 16; raise its duration (gates.load)"),
        ({"failed": 1}, "saturation: 15 good answers"),
        ({"requests": 0}, "saturation: 0 good answers"),
        ({"in_flight": 0, "requests": 0}, "saturation: 0 good answers"),
        ({"cpu_share": 0.91}, "saturation: the client used 91% of its core > 90%"),
    ],
)
def test_a_saturation_run_of_few_answers_proves_nothing(change, reason):
    """Nor does one whose client was at its limit: no cost is told from either."""
    (found,) = faults(figures(capacity=figures()["capacity"] | change), LIMITS)
    assert found.startswith(reason)


def test_an_arm_that_answered_nothing_well_has_failed_without_a_price():
    """It must not hide behind a saturation run that proves nothing."""
    capacity = figures()["capacity"] | {"requests": 0}
    assert faults(figures(ok=0, failed=100, capacity=capacity), LIMITS) == ()


@pytest.mark.parametrize("change", [{}, {"lag_p99_ms": 20.0}, {"achieved": 3.92}, {"cpu_share": 0.9}])
def test_at_the_limit_a_run_is_valid(change):
    """Limits are the last good value."""
    assert faults(figures(**change), LIMITS) == ()


@pytest.mark.parametrize(
    ("change", "verdict", "reason"),
    [
        ({}, Verdict.PASS, "candidate: ttft_p95 300 ms <= 500 ms"),
        ({"ttft": {"p95": 500.0}}, Verdict.PASS, "ttft_p95 500 ms <= 500 ms"),
        ({"ttft": {"p95": 501.0}}, Verdict.FAIL, "candidate: ttft_p95 501 ms > 500 ms"),
        ({"tpot": {"p95": 41.0}}, Verdict.FAIL, "tpot_p95 41 ms > 40 ms"),
        ({"ttft": {"p95": None}, "ok": 90, "failed": 10}, Verdict.FAIL, "10 of 100 requests failed"),
        ({"ok": 94, "failed": 6}, Verdict.FAIL, "failed 6 of 100 requests > 5%"),
        ({"ok": 95, "failed": 5}, Verdict.PASS, "failed 5 of 100 requests <= 5%"),
        ({"usd_per_million_tokens": 1.2}, Verdict.FAIL, "cost ratio 1.2 > 1.1"),
        ({"usd_per_million_tokens": 2.1}, Verdict.FAIL, "2.1 USD per million tokens > 2"),
        ({"ok": 0, "failed": 100, "usd_per_million_tokens": None}, Verdict.FAIL, "no good answer"),
        ({"invalid_reasons": ("lag",)}, Verdict.INVALID, "candidate: lag"),
        ({"invalid_reasons": ("lag",), "ttft": {"p95": 900.0}}, Verdict.INVALID, "candidate: lag"),
    ],
)
def test_the_table_of_verdicts(change, verdict, reason):
    """Worst first: an invalid run is neither pass nor fail."""
    found = judge(both(**change), LIMITS)
    assert found.verdict is verdict
    assert any(reason in said for said in found.reasons)


def test_an_invalid_baseline_spoils_the_comparison():
    """A ratio to nothing is nothing."""
    found = judge({"baseline": figures(invalid_reasons=("lag",)), "candidate": figures()}, LIMITS)
    assert (found.verdict, found.reasons) == (Verdict.INVALID, ("baseline: lag",))


def test_a_ratio_that_was_asked_for_needs_both_arms():
    """One arm alone cannot pass a gate on the ratio; without that gate it can."""
    assert judge({"candidate": figures()}, LIMITS).verdict is Verdict.INVALID
    assert judge({"candidate": figures()}, Limits()).verdict is Verdict.PASS
    assert judge({"baseline": figures(failed=50)}, Limits()).verdict is Verdict.FAIL


@given(st.integers(0, 100), st.floats(0, 1000), st.floats(0, 100), st.floats(0.001, 5))
def test_a_worse_candidate_never_turns_fail_into_pass(failed, ttft, tpot, cost):
    """Monotone in every figure: more failures, slower or dearer is never better."""
    run = {
        "failed": failed,
        "ok": 100 - failed,
        "ttft": {"p95": ttft},
        "tpot": {"p95": tpot},
        "usd_per_million_tokens": cost,
    }
    worse = {
        **run,
        "failed": 100,
        "ok": 0,
        "ttft": {"p95": ttft + 1},
        "tpot": {"p95": tpot + 1},
        "usd_per_million_tokens": cost + 1,
    }
    order = [Verdict.PASS, Verdict.FAIL]
    assert order.index(judge(both(**run), LIMITS).verdict) <= order.index(judge(both(**worse), LIMITS).verdict)


@pytest.mark.parametrize(
    ("candidate", "baseline", "expected"), [(3.0, 2.0, 1.5), (None, 2.0, None), (3.0, None, None), (3.0, 0.0, None)]
)
def test_the_cost_ratio_is_known_or_none(candidate, baseline, expected):
    """Never infinite, never made up."""
    arms = {"baseline": {"usd_per_million_tokens": baseline}, "candidate": {"usd_per_million_tokens": candidate}}
    assert cost_ratio(arms) == expected
