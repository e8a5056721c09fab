"""Ratios of means: fair for Student's z, and pooled stage against itself."""

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import gammaln

from canary.core import ratios
from canary.core.ratios import Sums


def even(n: int, x: float, y: float = 1.0, spread: float = 0.1) -> Sums:
    """Return n requests, half at x (1 + spread), half at x (1 - spread)."""
    return Sums(n, n * x, n * y, n * x * x * (1 + spread**2), n * y * y, n * x * y)


@pytest.mark.parametrize(("nu", "t"), [(49, 0.75), (200, 3.0), (5000, 80.0)])
def test_the_mixture_for_means_is_fair_for_students_z(nu: float, t: float) -> None:
    """Integrated against Student's density, the mean of E is 1."""
    norm = gammaln((nu + 1) / 2) - gammaln(nu / 2) - math.log(nu * math.pi) / 2

    def weighted(z: float) -> float:
        return math.exp(ratios.log_e_student(z, nu=nu, t=t) + norm - (nu + 1) / 2 * math.log1p(z * z / nu))

    assert quad(weighted, -200, 200, limit=2000, points=[-10, 0, 10])[0] == pytest.approx(1.0, abs=2e-3)


def test_a_ratio_is_pooled_stage_against_itself() -> None:
    """A price that rose for both arms while the share grew is no effect."""
    stages = [(even(100, 1.0), even(900, 1.0)), (even(900, 2.0), even(100, 2.0))]
    pooled = ratios.log_ratio(stages)
    assert pooled is not None
    assert pooled.estimate == pytest.approx(0.0, abs=1e-12)
    assert ratios.log_e_ratio(stages, sign=1) < 0


def test_a_dearer_candidate_is_proved_dearer_and_not_cheaper() -> None:
    """Evidence grows on the side of the truth only."""
    stages = [(even(200, 1.3), even(200, 1.0))]
    assert ratios.log_e_ratio(stages, sign=1) > 10
    assert ratios.log_e_ratio(stages, 1.1, sign=-1) < -10
    assert ratios.log_e_ratio(stages, 1.6, sign=-1) > 10


def test_fewer_than_fifty_requests_an_arm_are_no_mean() -> None:
    """A normal approximation of few requests is none; a stage with an unusable arm is left out."""
    assert ratios.log_ratio([(even(49, 1.0), even(500, 1.0))]) is None
    assert ratios.log_ratio([(even(100, math.nan), even(100, 1.0))]) is None
    assert ratios.log_ratio([(even(100, -1.0), even(100, 1.0))]) is None


def test_equal_prices_leave_a_spread_of_one_percent() -> None:
    """Where every request costs the same a token, the spread is taken as 1 %, never as nothing."""
    pooled = ratios.log_ratio([(even(100, 1.0, spread=0), even(100, 1.0, spread=0))])
    assert pooled is not None
    assert pooled.error == pytest.approx(0.01 * math.sqrt(2 / 100))


@pytest.mark.parametrize("nu", [49.0, 1e9])
@pytest.mark.parametrize("t", [0.75, 1e7])
def test_the_mixture_for_means_grows_with_z_however_far(nu: float, t: float) -> None:
    """From -1e8 to 1e8: finite, and never less for more."""
    with np.errstate(all="raise", under="ignore"):
        logs = [ratios.log_e_student(sign * 10.0**k, nu=nu, t=t) for sign in (-1, 1) for k in range(-2, 9)]
    left, right = logs[:11], logs[11:]
    assert all(map(math.isfinite, logs))
    assert right == sorted(right)
    assert left == sorted(left, reverse=True)
