"""What a signal looks at."""

from __future__ import annotations

import math

import pytest

from canary.core.signals import StageView
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
