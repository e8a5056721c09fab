"""Whether chance divided the traffic as the split says."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canary.core.finding import OnBreach, Verdict
from canary.core.sample_ratio import LOG_BAR, find, log_e_mismatch
from canary.core.signals import StageView
from canary.core.tally import Tally


def view(share: float, candidate: int, baseline: int, again: int = 0, stage: int = 1) -> StageView:
    """A stage's draws, `again` of the candidate's being a unit's later ones."""
    return StageView(
        stage, share, Tally({"assigned": candidate, "assigned_again": again}), Tally({"assigned": baseline})
    )


def test_a_division_as_meant_is_fine() -> None:
    """Half and half, give or take."""
    got = find([view(0.5, 5050, 4950)])
    assert (got.verdict, got.on_breach, got.slice) == (Verdict.PASS, OnBreach.PAUSE, "")
    assert got.reason == "sample_ratio: 5050 of 10000 units (50.50%) got the candidate, 50.00% were meant; ok"


def test_a_mismatch_pauses_and_says_its_numbers() -> None:
    """Six in ten where five were meant: nothing else can be trusted."""
    got = find([view(0.5, 1200, 800)])
    assert (got.verdict, got.on_breach) == (Verdict.FAIL, OnBreach.PAUSE)
    assert "1200 of 2000 units (60.00%) got the candidate, 50.00% were meant; chance did not divide them" in got.reason
    assert got.evidence is not None
    assert got.evidence > LOG_BAR == got.threshold


def test_shares_are_never_pooled() -> None:
    """A tenth of much and a half of little are each as meant, whatever they add up to."""
    stages = [view(0.1, 1000, 9000), view(0.5, 500, 500, stage=2)]
    assert find(stages).verdict is Verdict.PASS
    opposite = [view(0.5, 1300, 700), view(0.5, 700, 1300, stage=2)]
    assert find(opposite).verdict is Verdict.FAIL


def test_a_unit_that_comes_again_is_one() -> None:
    """One busy user of the candidate is not a hundred users."""
    assert find([view(0.5, 1000, 500, again=500)]).verdict is Verdict.PASS
    assert find([view(0.5, 1000, 500)]).verdict is Verdict.FAIL


@pytest.mark.parametrize(
    ("views", "words"),
    [
        ([], "no unit was assigned yet"),
        ([view(0.0, 0, 100)], "no unit was assigned yet"),
        ([view(1.0, 100, 0)], "no unit was assigned yet"),
        ([view(0.5, 100, 100, again=150)], "the sums contradict themselves"),
        ([view(0.5, -100, 200)], "the sums contradict themselves"),
    ],
)
def test_without_chance_or_sense_nothing_is_known(views: list[StageView], words: str) -> None:
    """No draw, no exposure, or more that came again than came."""
    got = find(views)
    assert (got.verdict, got.reason) == (Verdict.UNKNOWN, f"sample_ratio: {words}")


def test_two_per_cent_of_a_share_are_no_mismatch() -> None:
    """A late acknowledgement shifts a share a little, with any number of units."""
    assert log_e_mismatch([(0.5, 5_090_000, 4_910_000)]) < 0
    assert log_e_mismatch([(0.5, 5_200_000, 4_800_000)]) > LOG_BAR


@given(st.floats(1e-6, 1 - 1e-6), st.integers(0, 10**9), st.integers(0, 10**9))
def test_any_count_has_a_finite_log(share: float, candidate: int, baseline: int) -> None:
    """Also a billion units of one arm where the other was meant."""
    assert math.isfinite(log_e_mismatch([(share, candidate, baseline)]))


@pytest.mark.parametrize("numbers", [(0.0, 1, 1), (1.0, 1, 1), (math.nan, 1, 1), (0.5, -1, 1), (0.5, 1, -1)])
def test_what_no_traffic_leaves_proves_nothing(numbers: tuple[float, int, int]) -> None:
    """NaN is over no threshold."""
    assert math.isnan(log_e_mismatch([numbers]))


def test_a_fair_coin_watched_for_ten_thousand_units_is_not_accused() -> None:
    """Sixty seeded divisions, looked at after each hundred: none is called a mismatch at one in a thousand."""
    chance, accused = random.Random(5), 0
    for _ in range(60):
        k, worst = 0, -math.inf
        for n in range(100, 10_001, 100):
            k += sum(chance.random() < 0.05 for _ in range(100))
            worst = max(worst, log_e_mismatch([(0.05, k, n - k)]))
        accused += worst >= LOG_BAR
    assert accused == 0
