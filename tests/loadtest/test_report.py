"""loadtest/report.py, loadtest/fit.py and loadtest/records.py."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.fit import price
from loadtest.gates import Limits
from loadtest.records import Client, Job, Record, Saturation, Trace
from loadtest.report import FORMULAS, Run, figures, quantile, report

SATURATION = Saturation(2, 4.0)
JOB = Job(
    "http://127.0.0.1:8080",
    "m",
    "w.jsonl",
    "out",
    rate=4.0,
    duration=10.0,
    max_tokens=24,
    session="s",
    arm="candidate",
    warmup=2.0,
    saturation=SATURATION,
)
CLIENT = Client(cpu_seconds=1.0, wall_seconds=10.0, sent=50)
LIMITS = Limits(slo={"ttft_p95": 100.0, "tpot_p95": 15.0})


def good(at=1.0, **changes):
    """One good answer: 11 tokens, 50 ms to the first, 10 ms each."""
    fields = {
        "ok": True,
        "status": 200,
        "ttft_ms": 50.0,
        "tpot_ms": 10.0,
        "e2e_ms": 150.0,
        "tokens": 11,
        "prompt_tokens": 20,
    }
    return Record(1000.0 + at, at, arm="candidate", **{**fields, **changes})


def bad(at=1.0, **changes):
    """One failed answer."""
    return Record(1000.0 + at, at, status=500, e2e_ms=1.0, error="status 500: no", **changes)


def run(*records, client=CLIENT, saturated=None):
    """What a run left behind; at capacity two users get 11 tokens each 0.15 s, unless told otherwise."""
    busy = [good(at=0.15 * (number // 2)) for number in range(50)] if saturated is None else saturated
    return Run(JOB, Trace(records, client), Trace(busy, client), "engine", "d" * 8, 3.6)


def test_figures_come_from_the_records():
    """Every number by hand: 40 good answers of 11 tokens in 10 s at 3.6 USD/h."""
    found = figures(run(*(good(at=number / 4) for number in range(40))), LIMITS)
    assert (found["sent"], found["ok"], found["failed"], found["completion_tokens"], found["prompt_tokens"]) == (
        40,
        40,
        0,
        440,
        800,
    )
    assert (found["asked"], found["achieved"], found["seconds"], found["goodput"]) == (4.0, 4.0, 10.0, 1.0)
    assert found["throughput_tokens_per_s"] == 44.0
    assert found["ttft"] == {"p50": 50.0, "p95": 50.0, "p99": 50.0}
    assert found["valid"]


def test_the_cost_is_that_of_capacity():
    """Not of the rate asked: 48 answers of 11 tokens in the 3.85 s after the ramp at 3.6 USD/h."""
    found = figures(run(*(good(at=number / 4) for number in range(40))), LIMITS)
    assert found["capacity"] == {
        "in_flight": 2,
        "seconds": 3.85,
        "requests": 48,
        "failed": 0,
        "prompt_tokens": 960,
        "completion_tokens": 528,
        "tokens_per_s": pytest.approx(1488 / 3.85, abs=1e-4),
        "completion_tokens_per_s": pytest.approx(528 / 3.85, abs=1e-4),
        "requests_per_s": pytest.approx(48 / 3.85, abs=1e-4),
        "cpu_share": 0.1,
    }
    assert found["usd_per_million_tokens"] == pytest.approx(0.00385 / 528 * 1e6)
    billed = sum(amount * of for amount, of in zip(found["price"], (48, 960, 528), strict=True))
    assert billed == pytest.approx(0.00385)


def test_at_the_same_rate_the_slower_arm_costs_more():
    """Both serve the schedule alike; at capacity the candidate takes twice as long."""
    slow = [good(at=0.3 * (number // 2), e2e_ms=300.0) for number in range(26)]
    records = [good(at=number / 4) for number in range(40)]
    runs = {"baseline": run(*records), "candidate": run(*records, saturated=slow)}
    made = report("m", "w.jsonl", runs, LIMITS, digest="d", created_ms=1)
    served = [made["arms"][arm]["throughput_tokens_per_s"] for arm in runs]
    assert served[0] == served[1]
    assert made["cost_ratio"] == pytest.approx((3.7 / 24) / (3.85 / 48))


def test_a_saturation_run_without_good_answers_proves_nothing():
    """Invalid with a reason, though the schedule was served well."""
    made = report(
        "m",
        "w.jsonl",
        {"candidate": run(*(good(at=number / 4) for number in range(40)), saturated=())},
        LIMITS,
        digest="d",
        created_ms=1,
    )
    assert made["verdict"] == "invalid"
    assert made["reasons"] == [
        "candidate: saturation: 0 good answers in 0 s < 4; raise its duration (gates.load)",
    ]


def test_failed_requests_miss_every_limit():
    """Dropping the slow ones cannot make the rest look good."""
    found = figures(run(*[good()] * 90, *[bad()] * 10), LIMITS)
    assert (found["ttft"]["p50"], found["ttft"]["p95"], found["e2e"]["p95"]) == (50.0, None, None)
    assert found["goodput"] == 0.9
    assert found["errors"] == {"status 500: no": 10}


def test_goodput_counts_what_kept_every_limit():
    """Slow to start, slow to go on, or never sent: none of them is good."""
    unsent = Record(1.0, 1.0, sent=False)
    found = figures(run(good(), good(ttft_ms=101.0), good(tpot_ms=16.0), good(tpot_ms=None), unsent), LIMITS)
    assert found["goodput"] == pytest.approx(2 / 5)
    assert found["invalid_reasons"][0].startswith("1 requests were not sent")


def test_the_warm_up_is_left_out():
    """Slow first answers are no evidence."""
    found = figures(run(good(at=-0.5, ttft_ms=9000.0), good(at=0.0)), LIMITS)
    assert (found["sent"], found["ttft"]["p99"]) == (1, 50.0)


def test_answers_after_the_schedules_end_count_in_the_seconds():
    """The bill runs until the last answer."""
    assert figures(run(good(at=9.0, e2e_ms=3000.0)), LIMITS)["seconds"] == 12.0


def test_late_sending_lowers_what_was_achieved():
    """40 arrivals, the last sent 10 s late: 2/s, not 4/s."""
    found = figures(run(*(good(at=number / 4) for number in range(39)), good(at=9.75, lag_ms=10_250.0)), LIMITS)
    assert found["achieved"] == 2.0
    assert not found["valid"]


def test_a_run_without_good_answers_has_no_cost():
    """Unknown is null, never zero."""
    found = figures(run(bad(), saturated=[bad(at=number / 10) for number in range(9)]), LIMITS)
    assert (found["usd_per_million_tokens"], found["price"], found["ttft"]["p50"]) == (None, None, None)


def test_lateness_of_the_client_is_not_charged():
    """The same work sent late costs the same."""
    late = [good(lag_ms=500.0, e2e_ms=650.0), good(tokens=22, lag_ms=0.0, e2e_ms=300.0)]
    prompt = [good(), good(tokens=22, e2e_ms=300.0)]
    assert price(late, 3.6, 10.0) == price(prompt, 3.6, 10.0)


def test_the_report_is_json_with_formulas_and_a_verdict():
    """What the release gates on and the comparison report prints."""
    runs = {arm: run(*[good()] * 40) for arm in ("baseline", "candidate")}
    made = report("m", "w.jsonl", runs, LIMITS, digest="d", created_ms=1)
    assert json.loads(json.dumps(made, allow_nan=False)) == made
    assert (made["kind"], made["verdict"], made["cost_ratio"], made["formulas"]) == ("load", "pass", 1.0, FORMULAS)


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.01, 1.0))
def test_a_quantile_is_a_value_with_that_share_at_or_below_it(values, share):
    """Nearest rank: no value that never was, and the smallest that will do."""
    found = quantile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-6
    assert sum(value < found for value in values) < share * len(values) + 1e-6


def test_quantiles_of_nothing_and_of_failures_are_none():
    """And five in a hundred failures leave the p95 known."""
    assert quantile([], 0.5) is None
    assert quantile([1.0] * 94 + [math.inf] * 6, 0.95) is None
    assert quantile([1.0] * 95 + [math.inf] * 5, 0.95) == 1.0


@given(
    st.builds(
        Record, unix=st.floats(0, 1e10), at=st.floats(-5, 1e6), error=st.text(), slice=st.text(), tokens=st.integers(0)
    )
)
def test_a_record_survives_its_json_line(record):
    """One line each, whatever the error says."""
    assert "\n" not in record.to_json()
    assert Record.from_json(record.to_json()) == record
    assert Job.from_json(JOB.to_json()) == JOB
