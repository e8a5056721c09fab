from __future__ import annotations

from dataclasses import replace

import pytest

from canary.assess import calibrated
from canary.core.arms import Arm
from canary.core.ledger import Ledger
from canary.core.outcome import Outcome, Result
from canary.core.tally import Key, Tally, parse

PRICED = Outcome(Arm.CANDIDATE, Result.OK, stage=1, prompt_tokens=9, completion_tokens=50, cost_usd=2e-4)
COLD = replace(PRICED, cold=True, completion_tokens=10_000)


def tallies(*outcomes: Outcome) -> dict[Key, Tally]:
    """The sums that outcomes leave."""
    ledger = Ledger()
    for outcome in outcomes:
        ledger.record(outcome)
    return parse({name: str(amount) for name, amount in ledger.drain().items()})


def test_a_calibrated_cost_is_that_of_the_answers_in_the_sums():
    """Not of those that came while the arms warmed up; sessions as well as requests."""
    found = calibrated(tallies(PRICED, replace(PRICED, unit=7), COLD, replace(PRICED, stage=2)))
    assert found == [("candidate", pytest.approx(4.0, rel=1e-6))]


def test_sums_with_an_answer_that_has_no_price_are_left_out():
    """A part of the answers is not the arm's cost; nor is nothing at all."""
    assert calibrated(tallies(PRICED, replace(PRICED, cost_usd=None))) == []
    assert calibrated(tallies(COLD)) == []
    assert calibrated({}) == []


def test_sums_of_older_workers_have_all_their_answers_priced():
    """They knew no warm-up and no lengths."""
    sums = {"ok": 2, "priced": 2, "completion_tokens": 100}
    assert calibrated({(1, "baseline", ""): Tally(sums, {"sum.cost": 4e-4})}) == [("baseline", pytest.approx(4.0))]
    assert calibrated({(1, "baseline", ""): Tally(sums | {"priced": 1}, {"sum.cost": 4e-4})}) == []
