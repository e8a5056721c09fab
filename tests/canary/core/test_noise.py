from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from canary.core.noise import Filter, Law, laws, most_noise

OVER = laws(most_noise(0.18, 1, 1))


def seen(ys, rs, dts, over=OVER) -> Filter:
    """The filters after some blocks."""
    filter_ = Filter.fresh(over)
    for y, r, dt in zip(ys, rs, dts, strict=True):
        filter_ = filter_.step(over, y, r, dt)
    return filter_


@given(
    st.lists(st.tuples(st.floats(-1, 1), st.floats(0.001, 0.5), st.floats(0, 500)), min_size=1, max_size=7),
    st.floats(-0.5, 0.5),
    st.floats(0.01, 0.5),
    st.floats(5, 2000),
)
def test_the_filter_is_the_likelihood_of_a_gaussian_process(blocks, theta, sigma, tau):
    """Against the density of the multivariate normal with the process's covariance."""
    ys, rs, dts = (np.array(column) for column in zip(*blocks, strict=True))
    at = np.cumsum(dts)
    covariance = sigma**2 * np.exp(-np.abs(np.subtract.outer(at, at)) / tau) + np.diag(rs)
    left = ys - theta
    _, log_det = np.linalg.slogdet(covariance)
    expected = -(log_det + left @ np.linalg.solve(covariance, left)) / 2
    over = (Law(sigma, tau),)
    assert float(seen(ys, rs, dts, over).log_likelihood(theta)[0, 0]) == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_a_filter_survives_json():
    """Bit for bit."""
    some = seen([0.1, -0.2, 0.3], [0.01] * 3, [10.0, 20.0, 10.0])
    again = Filter.from_plain(some.to_plain())
    assert all((one == other).all() for one, other in zip(some._rows(), again._rows(), strict=True))


def test_the_laws_are_none_and_parts_of_the_most():
    """Two replicas an arm have less noise between them than one; only a long reference speaks of half an hour."""
    assert len(OVER) == 17
    assert OVER[0].sigma == 0
    assert max(law.sigma for law in OVER) == pytest.approx(0.18 * 2**0.5)
    assert most_noise(0.18, 2, 2) == pytest.approx(0.18)
    assert {law.tau for law in laws(0.1, long=True)} - {law.tau for law in OVER} == {1800.0}
