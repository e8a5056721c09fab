"""What a signal looks at."""

from __future__ import annotations

import math

import pytest

from canary.core.signals import Sight, StageView
from canary.core.signals.sight import UNTOLD
from canary.core.tally import Tally
from tests.canary.core.signals.arms import arm, read


@pytest.mark.parametrize("name", ["error_rate", "empty", "ttft_p95", "cost_per_token"])
@pytest.mark.parametrize(
    ("candidate", "baseline", "words"),
    [
        (Tally(), arm(100), "no completed request of the candidate yet"),
        (arm(100), Tally(), "no completed request of the baseline yet"),
        (arm(100, unusable=2), arm(100), "2 measurements of the candidate are not numbers"),
        (arm(100, error=-1), arm(100), "the candidate's sums contradict themselves"),
        (arm(100), Tally({"done": 100}, {"sum.cost": math.nan}), "the baseline's sums contradict themselves"),
    ],
)
def test_sums_that_cannot_be_trusted_are_unknown(name: str, candidate: Tally, baseline: Tally, words: str) -> None:
    """Missing, contradictory or non-finite sums are said in words, for every signal."""
    assert words == read(name, StageView(1, 0.5, candidate, baseline), margin=0.5).unknown


@pytest.mark.parametrize(
    ("load", "most", "alike"), [(None, 1.0, True), (3.9, 4, True), (0.26, 4, True), (4.1, 4, False), (0.24, 4, False)]
)
def test_arms_are_matched_up_to_a_factor_either_way(load: float | None, most: float, alike: bool) -> None:
    """A candidate with a quarter of the load is no better matched than one with four times it."""
    assert StageView(1, 0.5, arm(1), arm(1), load).matched(most) is alike


@pytest.mark.parametrize(("share", "random"), [(0.0, False), (1.0, False), (0.01, True), (float("nan"), False)])
def test_chance_divides_only_between_none_and_all(share: float, random: bool) -> None:
    """A share of nothing, of everything or of no number is no comparison."""
    assert StageView(1, share, arm(1), arm(1)).random is random


def test_a_stage_against_its_control_is_another_place() -> None:
    """Events counted against the whole baseline and against the control never mix, in any stage."""
    places = [
        StageView(stage, 0.5, arm(1), arm(1), control=control).place for stage in range(9) for control in (False, True)
    ]
    assert len(set(places)) == 18
    assert places[::2] == list(range(9))


def stages(*shares: float) -> Sight:
    """What a signal sees of stages with these shares."""
    return Sight([StageView(stage, share, arm(1), arm(1)) for stage, share in enumerate(shares)], margin=0.0)


@pytest.mark.parametrize(("least", "beyond"), [(0.9, False), (1.0, False), (1.1, True), (math.nan, False)])
def test_what_the_present_stage_plainly_shows_is_beyond_a_margin(least: float, beyond: bool) -> None:
    """By its limit, not by its estimate; and it is said, for all stages together say otherwise."""
    told = stages(0.1, 0.5).beyond(1.0, 0.5, lambda view: (least, f"x{view.share}"))
    assert told == (beyond, ", x0.5 since the share changed" if beyond else "")


def test_the_first_stage_is_all_stages() -> None:
    """Nobody asks it twice; nor where all stages together say enough, nor of a share that chance does not divide."""

    def asked(_: StageView) -> tuple[float, str]:
        raise AssertionError

    assert stages(0.5).beyond(1.0, 0.5, asked) == (False, "")
    assert stages(0.5, 1.0).beyond(1.0, 0.5, asked) == (False, "")
    assert stages(0.1, 0.5).beyond(1.0, 1.1, asked) == (True, "")
    assert stages(0.1, 0.5).beyond(1.0, 0.5, lambda _: UNTOLD) == (False, "")
