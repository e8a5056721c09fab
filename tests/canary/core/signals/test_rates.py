"""Rates of events: what they say, and that a unit counts once."""

from __future__ import annotations

import pytest

from canary.core.signals import StageView
from canary.core.tally import Tally
from tests.canary.core.signals.arms import arm, read


def test_the_error_rate_says_its_numbers() -> None:
    """Errors and timeouts over completed requests, in both arms, against the margin."""
    got = read("error_rate", StageView(1, 0.5, arm(160, error=10, timeout=2), arm(164, error=1)), margin=0.005)
    assert got.facts == "12/160 (7.5%) against 1/164 (0.6%), +6.9 pp > +0.5 pp allowed"
    assert (got.n, got.beyond, got.missing) == (160, True, "")
    assert got.low is not None
    assert got.high is not None
    assert got.low < 0.069 < got.high
    assert got.fail > 4
    assert got.passing < 0


def test_rates_are_never_pooled_over_stages() -> None:
    """Errors that rose for both arms while the share grew show no difference."""
    before = StageView(1, 0.1, arm(100, error=1), arm(900, error=9))
    after = StageView(2, 0.9, arm(900, error=90), arm(100, error=10))
    got = read("error_rate", before, after, margin=0.05)
    assert got.estimate == pytest.approx(0.0, abs=1e-12)
    assert got.fail < 1


def test_stages_without_chance_are_no_comparison() -> None:
    """A share of nothing or of everything leaves a randomised test nothing to read."""
    views = [StageView(0, 0.0, arm(9), arm(900)), StageView(1, 1.0, arm(900), arm(9))]
    assert read("error_rate", *views, margin=0.05).unknown == "no completed request of the candidate yet"


def test_a_stage_with_one_silent_arm_adds_nothing_to_the_difference() -> None:
    """A difference needs both arms in the same stage."""
    views = [StageView(1, 0.5, arm(10, error=1), Tally()), StageView(2, 0.5, Tally(), arm(10))]
    assert read("error_rate", *views, margin=0.05).estimate == 0.0


def test_the_smallest_sample_is_asked_of_both_arms() -> None:
    """A baseline of few requests is as little evidence as a candidate of few."""
    got = read("error_rate", StageView(1, 0.5, arm(500), arm(20)), margin=0.05, min_samples=200)
    assert got.missing == "needs 200 completed requests an arm, has 500 and 20"


def test_a_unit_that_retries_is_one_event() -> None:
    """A user whose hundred requests fail is one failure as evidence, and a hundred to the operator's eye."""
    retried = arm(1000, done_again=900, error=100, failed_again=99)
    once = arm(100, error=1)
    view, other = StageView(1, 0.5, retried, arm(100)), StageView(1, 0.5, once, arm(100))
    got, same = read("error_rate", view, margin=0.05), read("error_rate", other, margin=0.05)
    assert (got.fail, got.passing, got.n) == (same.fail, same.passing, 100)
    assert got.facts.startswith("100/1000 (10.0%)")


def test_units_that_were_there_before_the_stage_still_fail_in_it() -> None:
    """Sticky users who were all seen in the first stage meet a candidate that breaks in the second: it is found."""
    before = StageView(1, 0.5, arm(500), arm(500))
    after = StageView(
        2,
        0.5,
        arm(900, done_again=900, error=300, failed_again=100),
        arm(900, done_again=900, error=3, failed_again=1),
    )
    got = read("error_rate", before, after, margin=0.05)
    assert (got.unknown, got.beyond) == ("", True)
    assert got.fail > 50
    assert got.passing < 0


@pytest.mark.parametrize(
    "counts",
    [{"error": 101}, {"error": 1, "failed_again": 2}, {"done_again": 101}],
)
def test_counts_that_no_traffic_leaves_are_unknown(counts: dict[str, int]) -> None:
    """More failures than requests, or more that came again than came: nobody knows what that is."""
    got = read("error_rate", StageView(1, 0.5, arm(100, **counts), arm(100)), margin=0.05)
    assert "contradict themselves" in got.unknown


@pytest.mark.parametrize("name", ["refusal", "empty", "truncated", "malformed", "repetition"])
def test_every_flaw_of_an_answer_is_a_rate_of_its_own(name: str) -> None:
    """Each has its count, and what a unit did again is taken off under its name."""
    flawed = StageView(1, 0.5, arm(200, **{name: 40, f"{name}_again": 10}), arm(200))
    got, errors = read(name, flawed, margin=0.01), read("error_rate", flawed, margin=0.01)
    assert got.beyond
    assert got.fail == pytest.approx(
        read("error_rate", StageView(1, 0.5, arm(200, error=30), arm(200)), margin=0.1).fail
    )
    assert errors.fail == pytest.approx(0.0)


def test_harm_that_began_with_the_last_share_is_not_hidden_by_the_stages_before() -> None:
    """Two thirds of a bake's answers fail, after two long stages without an error: over all of it +4.9 pp."""
    quiet = [StageView(1, 0.05, arm(600), arm(11_400)), StageView(2, 0.5, arm(6_000), arm(6_000))]
    got = read("error_rate", *quiet, StageView(3, 0.95, arm(5_700, error=3_800), arm(300)), margin=0.05)
    assert got.estimate is not None
    assert got.estimate < 0.05
    assert got.beyond
    assert "+66.7 pp since the share changed" in got.facts
    few = read("error_rate", *quiet, StageView(3, 0.95, arm(57, error=6), arm(3)), margin=0.05)
    assert not few.beyond  # it may be chance
