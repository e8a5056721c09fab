"""What promotion waits for: the card's success, proved for this candidate."""

from __future__ import annotations

from dataclasses import replace

import pytest

from canary.card.parts import Threshold
from canary.core.release import Phase
from canary.success import unmet
from tests.canary.core.releases import opened
from tests.canary.world import EVAL

BAKE = replace(opened(), phase=Phase.BAKE)
SUCCESS = {"domain_accuracy": Threshold(min_gain=0.03)}


def having(**more) -> dict:
    """The evaluation with other numbers in its slice."""
    return {**EVAL, "slices": {"domain": {**EVAL["slices"]["domain"], **more}}}


@pytest.mark.parametrize(
    ("report", "word"),
    [
        (EVAL, ""),
        (None, "no evaluation proves domain_accuracy"),
        (having(difference=0.02), "misses the gain of +0.0300"),
        (having(low=-0.01), "is not proved above 0"),
        ({**EVAL, "verdict": "invalid", "reasons": ["tokens differ"]}, "invalid (tokens differ)"),
        ({**EVAL, "baseline_digest": "d-older"}, "against another baseline"),
        ({**EVAL, "slices": {}}, "domain: not evaluated"),
        ({**EVAL, "slices": {"domain": {"difference": "much"}}}, "domain: not evaluated"),
        ({**EVAL, "verdict": "fail"}, ""),
    ],
)
def test_a_threshold_is_met_by_a_report_that_proves_it(report, word) -> None:
    """Anything else says what is lacking, and the command; a failed gate says nothing about success."""
    said = unmet(BAKE, report, SUCCESS)
    assert bool(said) == bool(word)
    assert all(word in one and "`linnet eval SPEC`" in one for one in said)


def test_success_is_asked_for_where_promotion_is_next() -> None:
    """A canary may begin without it."""
    assert unmet(replace(BAKE, phase=Phase.CANARY), None, SUCCESS) == ()


@pytest.mark.parametrize(("low", "met"), [(0.0, True), (-0.001, False)])
def test_no_gain_asked_for_is_proved_no_worse(low, met) -> None:
    """The same model in less memory gains nothing, and that is its success."""
    report = having(difference=0.0, low=low, high=0.0)
    assert (unmet(BAKE, report, {"domain_accuracy": Threshold(min_gain=0.0)}) == ()) == met
