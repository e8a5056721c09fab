"""Laws of the location test: its filter is the Gaussian likelihood, its evidence fair, noise not taken for harm."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from canary.core.location import (
    Arm,
    Belief,
    Block,
    Spread,
    effect,
    log_e_slower,
    log_e_within,
)
from canary.core.noise import Filter, Law, laws, most_noise

OVER = laws(most_noise(0.18, 1, 1))
NONE = Belief.without_reference(OVER)


def seen(ys, rs, dts, over=OVER) -> Filter:
    """The filters after some blocks."""
    filter_ = Filter.fresh(over)
    for y, r, dt in zip(ys, rs, dts, strict=True):
        filter_ = filter_.step(over, y, r, dt)
    return filter_


@pytest.mark.parametrize("law", [Law(0.0, 20.0), OVER[4], OVER[16]])
@pytest.mark.parametrize("test", ["slower", "within"])
def test_evidence_is_one_on_average_where_there_is_nothing(law: Law, test: str):
    """At the boundary of each hypothesis, under a law of the set: the mean stays below one, within its own error."""
    chance, runs, blocks = np.random.default_rng(3), 400, 60
    theta = 0.0 if test == "slower" else math.log(1.1)
    values = []
    for _ in range(runs):
        x, filter_ = chance.normal(0, law.sigma), Filter.fresh(OVER)
        for _ in range(blocks):
            a = math.exp(-10 / law.tau)
            x = a * x + chance.normal(0, law.sigma * math.sqrt(1 - a * a))
            filter_ = filter_.step(OVER, theta + x + chance.normal(0, 0.05), 0.05**2, 10.0)
        log_e = log_e_slower(filter_, NONE) if test == "slower" else log_e_within(filter_, NONE, theta)
        values.append(math.exp(log_e))
    assert np.mean(values) <= 1 + 3 * np.std(values) / math.sqrt(runs)
    assert np.mean(np.array(values) >= 20) <= 0.05


def test_a_reference_without_noise_finds_harm_many_times_faster():
    """What the laws cannot tell from noise in an hour, a quiet reference tells in minutes."""

    def blocks_to(theta: float, belief: Belief) -> int:
        filter_ = Filter.fresh(OVER)
        for number in range(1, 2000):
            filter_ = filter_.step(OVER, theta, 0.04**2, 10.0)
            if log_e_slower(filter_, belief) >= math.log(1 / (0.01 * 0.85 * 0.15)):
                return number
        return 2000

    chance = np.random.default_rng(1)
    quiet = seen(chance.normal(0, 0.04, 2160), [0.04**2] * 2160, [10.0] * 2160)
    belief = Belief.of_reference(quiet.level)
    assert 5 * blocks_to(math.log(1.2), belief) < blocks_to(math.log(1.2), NONE)
    assert not belief.possible.all()
    assert belief.possible[0]


def test_a_reference_with_noise_keeps_the_laws_that_it_shows():
    """The true law stays in the set that evidence must hold against."""
    chance, law = np.random.default_rng(2), OVER[11]
    x, filter_ = 0.0, Filter.fresh(OVER)
    for _ in range(2160):
        a = math.exp(-10 / law.tau)
        x = a * x + chance.normal(0, law.sigma * math.sqrt(1 - a * a))
        filter_ = filter_.step(OVER, x + chance.normal(0, 0.05), 0.05**2, 10.0)
    belief = Belief.of_reference(filter_.level)
    assert belief.possible[11]
    assert not belief.possible[0]


@given(st.floats(-1, 1))
def test_the_effect_is_found(theta):
    """Under the likeliest law, with an error that shrinks as information grows."""
    few, many = (seen([theta] * n, [0.01] * n, [10.0] * n) for n in (5, 500))
    assert effect(many, NONE)[0] == pytest.approx(theta, abs=1e-6)
    assert effect(many, NONE)[1] < effect(few, NONE)[1]


def test_nothing_seen_proves_nothing():
    """No block: evidence of one both ways."""
    fresh = Filter.fresh(OVER)
    assert log_e_slower(fresh, NONE) == pytest.approx(0)
    assert log_e_within(fresh, NONE, math.log(1.1)) == pytest.approx(0)
    assert effect(fresh, NONE) == (0.0, math.inf)


@given(st.lists(st.integers(0, 999), min_size=1, max_size=50))
def test_the_squares_are_those_about_the_mean(ks):
    """From integers, exact however large the numbers are."""
    arm = Arm(len(ks), sum(ks), sum(k * k for k in ks))
    logs = np.array(ks) * math.log(1.02)
    assert arm.mean == pytest.approx(logs.mean())
    assert arm.squares == pytest.approx(((logs - logs.mean()) ** 2).sum(), abs=1e-9)


def test_the_spread_is_learned_before_anything_counts():
    """Without history the baseline's first 200 degrees of freedom are it."""
    chance = np.random.default_rng(4)

    def arm(n: int) -> Arm:
        ks = [int(k) for k in chance.normal(400, 20, n)]
        return Arm(n, sum(ks), sum(k * k for k in ks))

    spread = Spread()
    for number in range(3):
        assert spread.prior is None
        spread = spread.take(Block(10.0 * number, arm(10), arm(90)))
    assert spread.prior == pytest.approx((20 * math.log(1.02)) ** 2, rel=0.2)
    assert spread.of(Block(0.0, arm(10), arm(90))) == pytest.approx(
        (20 * math.log(1.02)) ** 2 * (1 / 10 + 1 / 90), rel=0.3
    )
