from __future__ import annotations

from dataclasses import replace

import pytest

from canary.assess import Seen, arriving, calibrated, evidence, heard, illegible, served
from canary.core.arms import Arm
from canary.core.events import NOBODY, Heard
from canary.core.ledger import Ledger
from canary.core.outcome import Outcome, Result
from canary.core.release import Phase
from canary.core.tally import Key, Tally, parse
from tests.canary.core.releases import opened

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


def test_the_workers_word_is_the_slowest_ones():
    """And the time is the last acknowledgement's; a worker that never spoke has heard of nothing."""
    acks = {"a": (7, 100), "b": (6, 300), "gone": (1, 50)}
    assert heard(["b", "a"], acks) == Heard(2, 6, "b", 300)
    assert heard(["a", "c"], acks) == Heard(2, -1, "c", 100)
    assert heard([], acks) == NOBODY


def test_traffic_is_counted_over_preflight():
    """Both arms as chance drew them; less than 10 s tell nothing, nor does another phase."""
    preflight = replace(opened(), phase=Phase.PREFLIGHT, entered=100.0)
    sums = {(0, "baseline", ""): Tally({"assigned": 300}), (0, "control", ""): Tally({"assigned": 100})}
    assert arriving(preflight, sums, 120.0) == 15
    assert arriving(preflight, sums, 109.0) is None
    assert arriving(replace(preflight, phase=Phase.CANARY), sums, 120.0) is None


def test_a_baseline_served_what_it_was_seen_to_serve():
    """On schedule or at capacity, whichever was more; a report without either says nothing."""
    report = {"arms": {"baseline": {"ok": 200, "seconds": 20, "capacity": {"requests_per_s": 8.5}}}}
    assert served(report, Arm.BASELINE) == 10
    assert served({"arms": {"baseline": {"capacity": {"requests_per_s": 8.5}}}}, Arm.BASELINE) == 8.5
    assert served({"arms": {"baseline": {"price": [0, 0, 0]}}}, Arm.BASELINE) is None
    assert served(None, Arm.BASELINE) is None
    assert illegible({"arms": {"baseline": {"capacity": {"requests_per_s": "many"}}}})


@pytest.mark.parametrize(
    ("phase", "state", "word"),
    [
        (Phase.PREFLIGHT, "starting", "is starting, not warm yet"),
        (Phase.PREFLIGHT, "ready", ""),
        (Phase.CANARY, "starting", ""),
        (Phase.CANARY, "ended", "is ended: start it"),
    ],
)
def test_nobody_is_sent_to_an_engine_that_is_not_warm(phase, state, word):
    """Preflight waits for it; from then on only one that is down holds."""
    seen = Seen(engines={"new": {"state": state, "digest": "d-new"}})
    unready = evidence(replace(opened(), phase=phase), seen, (), 0.0).unready
    assert [word in one for one in unready] == ([True] if word else [])


def test_a_report_of_another_digest_opens_no_gate():
    """Wherever in the store it lies."""
    seen = Seen(reports={"load": {"verdict": "pass", "digest": "d-other", "arms": {}}})
    found = evidence(replace(opened(), phase=Phase.PREFLIGHT), seen, (), 0.0)
    assert "is of another digest" in found.missing[0]
