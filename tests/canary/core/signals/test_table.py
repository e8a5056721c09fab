"""The table of signals."""

from __future__ import annotations

import math

import pytest

from canary.core.signals import NOISE, SIGNALS, Sight, StageView
from canary.core.tally import HISTOGRAMS
from tests.canary.core.signals.arms import arm


@pytest.mark.parametrize("name", SIGNALS)
def test_a_row_reads_what_it_says_and_nothing_is_unknown_without_data(name: str) -> None:
    """Without data every signal says in words what is lacking, with no evidence either way."""
    empty = StageView(1, 0.5, arm(0), arm(0))
    got = SIGNALS[name].read(Sight([empty], 1.2, min_samples=10, planned_stages=4))
    assert got.unknown
    assert (got.fail, got.passing, got.beyond) == (0.0, 0.0, False)


@pytest.mark.parametrize("name", SIGNALS)
def test_tails_and_locations_are_of_latencies_that_workers_count(name: str) -> None:
    """A histogram of that name; blocks where own noise is assumed of it; the location a part of the weight."""
    signal = SIGNALS[name]
    assert signal.tail is None or signal.tail.histogram in HISTOGRAMS
    assert (signal.lag is None) == (signal.tail is None or name == "e2e_p95")
    if signal.lag is not None:
        assert signal.lag.histogram in NOISE
        assert 0 < signal.lag.part < 1


def test_only_advice_has_no_weight() -> None:
    """The whole request's time follows from what is judged already."""
    assert [name for name, signal in SIGNALS.items() if not signal.weight] == ["e2e_p95"]
    assert all(math.isfinite(signal.weight) and signal.weight >= 0 for signal in SIGNALS.values())


def test_location_and_tail_have_their_parts_of_the_weight() -> None:
    """As they were simulated: .15 each for the locations of TTFT and TPOT, .04 and .03 for their 95 % tails."""
    ttft, tpot = SIGNALS["ttft_p95"], SIGNALS["tpot_p95"]
    assert ttft.lag is not None
    assert tpot.lag is not None
    assert (ttft.weight * ttft.lag.part, tpot.weight * tpot.lag.part) == pytest.approx((0.15, 0.15))
    assert ttft.weight * (1 - ttft.lag.part) == pytest.approx(0.04)
    assert tpot.weight * (1 - tpot.lag.part) == pytest.approx(0.03)
