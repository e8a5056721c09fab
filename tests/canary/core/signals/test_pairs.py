"""The shadow's paired scores."""

from __future__ import annotations

import pytest

from canary.core.signals import StageView
from canary.core.tally import Tally
from tests.canary.core.signals.arms import read


def test_shadow_pairs_are_read_in_every_stage() -> None:
    """Pairs need no share: they count in the shadow phase too."""
    views = [StageView(0, 0.0, Tally({"pair.-200": 150}), Tally()), StageView(1, 0.5, Tally({"pair.-40": 50}), Tally())]
    got = read("shadow_quality", *views, margin=-0.02, min_pairs=30)
    assert got.facts == "-0.160 over 200 pairs < -0.020 allowed"
    assert (got.beyond, got.missing, got.n) == (True, "", 200)
    assert got.fail > 10


@pytest.mark.parametrize(
    ("counts", "unknown", "missing"),
    [
        ({}, "no shadow pair yet", ""),
        ({"pairs_failed": 3}, "no shadow pair was scored, 3 failed", ""),
        ({"pair.0": 10}, "", "needs 30 shadow pairs, has 10"),
        ({"pair.0": 70, "pairs_failed": 30}, "", "30 of 100 shadow pairs failed"),
    ],
)
def test_too_few_or_too_many_failed_pairs_never_pass(counts: dict[str, int], unknown: str, missing: str) -> None:
    """What could not be compared is not a random part of the traffic."""
    got = read("shadow_quality", StageView(0, 0.0, Tally(counts), Tally()), margin=-0.02, min_pairs=30)
    assert (unknown, missing) == (got.unknown, got.missing)
