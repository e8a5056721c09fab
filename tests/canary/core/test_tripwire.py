import random

from canary.core.arms import Arm
from canary.core.tripwire import Tripwire

C, B = Arm.CANDIDATE, Arm.BASELINE


def healthy() -> Tripwire:
    """A wire that saw fifty good baseline answers."""
    wire = Tripwire()
    for _ in range(50):
        wire.observe(B, failed=False)
    return wire


def test_six_failures_running_trip_it_with_their_numbers() -> None:
    """A candidate that fails everything is off after six requests, while the baseline serves."""
    wire = healthy()
    reasons = [reason for _ in range(6) for reason in (wire.observe(B, failed=False), wire.observe(C, failed=True))]
    assert reasons[:-1] == [None] * 11
    assert reasons[-1] == "tripwire: 6 of the candidate's last 6 requests failed, against 0 of 5 at baseline"
    assert wire.fired == reasons[-1]


def test_it_fires_once() -> None:
    """A worker tells the store once."""
    wire = healthy()
    reasons = [wire.observe(arm, failed=arm is C) for _ in range(20) for arm in (B, C)]
    assert sum(reason is not None for reason in reasons) == 1


def test_an_outage_of_both_arms_is_not_the_candidates_fault() -> None:
    """While the baseline fails too, nothing fires."""
    wire = healthy()
    assert not any(wire.observe(arm, failed=True) for _ in range(50) for arm in (B, C))


def test_it_waits_for_a_baseline_to_compare_with() -> None:
    """Without baseline reports since the failures began it holds; the third good one releases it."""
    wire = healthy()
    assert not any(wire.observe(C, failed=True) for _ in range(10))
    assert [wire.observe(B, failed=False) for _ in range(2)] == [None, None]
    assert wire.observe(B, failed=False) is not None


def test_a_baseline_that_was_failing_lately_holds_it() -> None:
    """Three failures among the last fifty baseline reports are an environment, not a candidate."""
    wire = healthy()
    for _ in range(3):
        wire.observe(B, failed=True)
    assert not any(wire.observe(arm, failed=arm is C) for _ in range(20) for arm in (B, C))


def test_a_few_failures_among_many_answers_are_left_to_the_guardrails() -> None:
    """Ten percent failures never trip a worker's wire."""
    wire, chance = healthy(), random.Random(7)
    assert not any(wire.observe(arm, failed=arm is C and chance.random() < 0.1) for _ in range(3000) for arm in (B, C))


def test_a_good_run_starts_the_count_afresh() -> None:
    """Failures before the sum was back at zero are not in the reason."""
    wire = healthy()
    wire.observe(C, failed=True)
    for _ in range(3):
        wire.observe(C, failed=False)
    reasons = [wire.observe(arm, failed=arm is C) for _ in range(6) for arm in (B, C)]
    assert "6 of the candidate's last 6" in str(reasons[-1])
