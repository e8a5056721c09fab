"""Absolute limits: of the candidate alone, unless the day is bad for both."""

from __future__ import annotations

import pytest

from canary.core.signals import StageView
from canary.core.tally import TOP, Tally, bucket
from tests.canary.core.signals.arms import arm, histogram, read

BAR = 3.0  # ln 20


def rate(candidate: Tally, baseline: Tally, share: float = 0.5):
    """Read a limit of 2 % on errors."""
    return read("error_rate_limit", StageView(1, share, candidate, baseline), margin=0.02, log_pass=BAR, min_samples=50)


def test_a_candidate_over_its_limit_fails_whatever_the_baseline_does() -> None:
    """A tenth of failures against two per cent allowed."""
    got = rate(arm(400, error=40), arm(400))
    assert (got.beyond, got.missing) == (True, "")
    assert got.fail > 20
    assert got.passing < 0
    assert got.facts == "40/400 (10.00%) of at most 2.00%, the baseline 0/400 (0.00%)"


def test_a_candidate_within_its_limit_passes() -> None:
    """Four hundred requests without a failure prove less than two per cent."""
    got = rate(arm(400), arm(400))
    assert not got.beyond
    assert got.passing > BAR
    assert got.fail < 0


def test_a_limit_that_the_baseline_exceeds_too_is_the_environment() -> None:
    """Where both arms are over it, nothing fails or passes; a baseline within it is no excuse."""
    both = rate(arm(400, error=40), arm(400, error=40))
    assert (both.beyond, both.missing) == (False, "the baseline is over it too: the environment")
    doubtful = rate(arm(400, error=40), arm(400, error=7))
    assert (doubtful.beyond, doubtful.missing) == (True, "")


def test_users_who_fail_once_in_a_hundred_requests_are_within_two_per_cent() -> None:
    """Of units only the first failure counts, but among all requests: long sessions break no limit by their length."""
    users = arm(10_000, done_again=9_900, error=60, failed_again=10)
    got = rate(users, arm(1_000, done_again=990, error=6, failed_again=1), share=0.9)
    assert got.estimate == pytest.approx(0.006)
    assert not got.beyond
    assert got.fail < 0
    assert got.passing < 0  # half of the users have failed: of them it is not proved either


def test_users_who_all_fail_at_once_are_over_it() -> None:
    """Each user's first request fails, and the others too: found though only the first counts."""
    got = rate(arm(400, done_again=300, error=400, failed_again=300), arm(400))
    assert got.beyond
    assert got.fail > 20


@pytest.mark.parametrize(("slow", "beyond"), [(0, False), (60, True)])
def test_a_latency_has_a_limit_in_seconds(slow: int, beyond: bool) -> None:
    """More than a twentieth of the requests above a second."""
    candidate = histogram("ttft", {300: 400 - slow, bucket(1.0) + 1: slow})
    view = StageView(1, 0.5, candidate, histogram("ttft", {300: 400}))
    got = read("ttft_p95_limit", view, margin=1.0, log_pass=BAR)
    assert got.beyond is beyond
    assert (got.fail > 5) is beyond
    assert (got.passing > BAR) is not beyond
    assert got.margin == 1.0


def test_what_never_came_is_over_any_limit() -> None:
    """Timeouts count as slow."""
    view = StageView(1, 0.5, histogram("ttft", {300: 300, TOP: 100}), histogram("ttft", {300: 400}))
    assert read("ttft_p99_limit", view, margin=600.0, log_pass=BAR).fail > 20


def test_a_latency_nobody_measured_is_unknown() -> None:
    """No histogram, no limit."""
    assert read("ttft_p95_limit", StageView(1, 0.5, arm(5), arm(5)), margin=1.0).unknown == "no ttft measured yet"


def test_a_slow_day_is_no_candidates_fault() -> None:
    """Both arms above the limit: the environment."""
    slow = histogram("ttft", {bucket(2.0): 400})
    got = read("ttft_p95_limit", StageView(1, 0.5, slow, slow), margin=1.0, log_pass=BAR)
    assert (got.beyond, "the environment" in got.missing) == (False, True)
