"""Ratios of means: cost and length, of requests and of sticky units."""

from __future__ import annotations

from canary.core.signals import StageView
from tests.canary.core.signals.arms import arm, priced, read


def test_cost_per_token_and_per_request() -> None:
    """Calibrated cost by tokens, and by requests, where longer answers show."""
    views = StageView(1, 0.5, priced(200, 3e-5, tokens=150), priced(200, 2e-5, tokens=100))
    token, request = read("cost_per_token", views, margin=1.1), read("cost_per_request", views, margin=1.1)
    assert token.facts == "0.2 USD a million tokens against 0.2 USD a million tokens, x1.000 <= x1.1 allowed"
    assert request.facts == "0.03 USD a thousand requests against 0.02 USD a thousand requests, x1.500 > x1.1 allowed"
    assert token.passing > 3
    assert token.fail < 0
    assert request.fail > 10
    assert request.passing < 0


def test_a_cost_of_few_requests_waits() -> None:
    """Below 50 priced requests an arm there is no mean, and it says how many are missing."""
    got = read("cost_per_token", StageView(1, 0.5, priced(20, 1e-5), priced(70, 1e-5)), margin=1.1)
    assert got.missing == "needs 50 priced requests an arm, has 20 and 70"


def test_answers_without_a_price_are_unknown() -> None:
    """An arm that no load test priced has no cost, and the mend is said."""
    got = read("cost_per_token", StageView(1, 0.5, arm(100), priced(100, 1e-5)), margin=1.1)
    assert got.unknown == "the candidate's answers have no price; run the load test first"
