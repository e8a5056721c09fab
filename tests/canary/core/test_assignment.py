"""canary/core/assignment.py."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from canary.core.arms import Arm, Endpoint, Split
from canary.core.assignment import arm_of, assign, controlled, mirrored, number_of, point

BASE = Endpoint("base", "base", ("http://127.0.0.1:8101",))
CAND = Endpoint("cand", "cand", ("http://127.0.0.1:8102",))
CONTROL = Endpoint("control", "base", ("http://127.0.0.1:8103",))
SPLIT = Split("m", 1, BASE, CAND, release="r", attempt=1)
units = st.text(max_size=40)
shares = st.floats(0, 100)


def at(percent: float) -> Split:
    """The same attempt at another share."""
    return replace(SPLIT, percent=percent)


@given(units, shares, shares)
def test_a_growing_share_only_moves_units_to_the_candidate(unit, one, other):
    """Whoever has the candidate at a share still has it at any larger one."""
    low, high = sorted((one, other))
    if assign(at(low), unit) is Arm.CANDIDATE:
        assert assign(at(high), unit) is Arm.CANDIDATE


@given(units, shares)
def test_assignment_depends_on_nothing_but_attempt_share_and_unit(unit, percent):
    """Two workers, two generations or two stages send the same unit to the same arm."""
    other = replace(at(percent), generation=99, stage=7, phase="canary")
    assert assign(at(percent), unit) is assign(other, unit)


@given(units)
def test_nobody_at_zero_and_everybody_at_a_hundred(unit):
    """The ends of the scale are exact, not merely unlikely to fail."""
    assert assign(at(0), unit) is Arm.BASELINE
    assert assign(at(100), unit) is Arm.CANDIDATE


@given(units, shares)
def test_without_a_candidate_the_baseline_answers(unit, percent):
    """A share without an arm to send it to goes to the baseline."""
    assert assign(replace(at(percent), candidate=None), unit) is Arm.BASELINE
    assert not mirrored(replace(at(percent), candidate=None, shadow_percent=100), unit)


def test_the_share_of_units_is_the_share_asked_for():
    """Over many units the split is what it says, within four standard errors."""
    n, percent = 20_000, 7.0
    hits = sum(assign(at(percent), f"user-{i}") is Arm.CANDIDATE for i in range(n))
    share = percent / 100
    assert abs(hits / n - share) < 4 * (share * (1 - share) / n) ** 0.5


def test_another_attempt_draws_other_users():
    """The unlucky users of one attempt are not the unlucky users of the next."""
    again = replace(SPLIT, attempt=2, percent=50)
    same = sum(assign(at(50), f"u{i}") is assign(again, f"u{i}") for i in range(4000))
    assert 0.45 < same / 4000 < 0.55


def test_the_mirror_does_not_follow_the_assignment():
    """Which answers are shadowed is drawn independently of who answers."""
    split = replace(at(50), shadow_percent=50)
    both = sum(mirrored(split, f"u{i}") and assign(split, f"u{i}") is Arm.CANDIDATE for i in range(4000))
    assert 0.2 < both / 4000 < 0.3


@given(st.text(min_size=1, max_size=200), units)
def test_points_lie_in_the_unit_interval(salt, unit):
    """Any salt, however long, gives a point in [0, 1)."""
    assert 0 <= point(salt, unit) < 1


@given(units, shares)
def test_the_number_of_a_unit_is_its_arm(unit, percent):
    """What is drawn once tells both; it is the same at every share."""
    number = number_of(at(percent), unit)
    assert 0 <= number < 2**53
    assert number == number_of(at(0), unit)
    assert arm_of(at(percent), number) is assign(at(percent), unit)


def controls(percent: float, number: int) -> bool:
    """Whether a control answers a number's unit at a share."""
    return controlled(replace(at(percent), control=CONTROL, control_percent=min(percent, 100 - percent)), number)


@given(st.integers(0, 2**53 - 1), shares)
def test_nobody_is_the_candidates_and_the_controls(number, percent):
    """At no share, and nobody is the control's where there is none."""
    assert not (controls(percent, number) and arm_of(at(percent), number) is Arm.CANDIDATE)
    assert not controlled(at(percent), number)
    assert not controlled(replace(at(percent), control=CONTROL, control_percent=50, candidate=None), number)


@given(shares)
def test_the_control_has_as_many_as_the_candidate_while_they_last(percent):
    """Beyond half, all that the candidate leaves."""
    points = [(n << 53) // 1000 for n in range(1000)]
    own = sum(arm_of(at(percent), number) is Arm.CANDIDATE for number in points)
    assert abs(sum(controls(percent, number) for number in points) - min(own, 1000 - own)) <= 2  # both ends round


@given(st.integers(0, 2**53 - 1), st.floats(0, 50), st.floats(0, 50))
def test_up_to_half_a_growing_share_only_moves_units_to_the_control(number, one, other):
    """Whoever has it keeps it."""
    low, high = sorted((one, other))
    assert controls(high, number) >= controls(low, number)
