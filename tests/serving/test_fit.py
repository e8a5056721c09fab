"""serving/fit.py."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.cost import CostError
from serving.fit import Sample, fit
from serving.wire import Usage

counts = st.integers(0, 4000)
samples = st.builds(Sample, counts, st.integers(1, 500), st.floats(0.001, 60))
runs = st.lists(samples, min_size=1, max_size=40)
rates = st.floats(0.01, 100)


def charged(price, run):
    """What the run's answers are charged in all."""
    return sum(price.of(Usage(s.prompt_tokens, s.completion_tokens)) for s in run)


@given(runs, rates, st.floats(1, 600))
def test_the_prices_of_a_run_sum_to_its_bill(run, usd_per_hour, seconds):
    """Nothing is charged twice and nothing is left over."""
    assert charged(fit(run, usd_per_hour, seconds), run) == pytest.approx(usd_per_hour * seconds / 3600, rel=1e-6)


@given(runs, rates)
def test_no_price_is_negative(run, usd_per_hour):
    """No work is paid for being done."""
    assert min(fit(run, usd_per_hour, 20.0).to_tuple()) >= 0


@given(runs, rates)
def test_price_is_proportional_to_the_hour(run, usd_per_hour):
    """Twice the rent, twice every price."""
    twice = [2 * value for value in fit(run, usd_per_hour, 20.0).to_tuple()]
    assert fit(run, 2 * usd_per_hour, 20.0).to_tuple() == pytest.approx(twice)


@pytest.mark.parametrize("truth", [(0.2, 0.001, 0.01), (0.0, 0.002, 0.03), (0.5, 0.0, 0.01)])
def test_the_work_that_took_the_time_is_charged(truth):
    """From an exact linear run the three prices come back in their proportion."""
    shapes = [(100, 10), (200, 50), (50, 80), (400, 5)]
    run = [Sample(p, c, truth[0] + truth[1] * p + truth[2] * c) for p, c in shapes]
    price = fit(run, 3600.0, sum(s.e2e for s in run))
    assert price.to_tuple() == pytest.approx(truth, abs=1e-9)


def test_answers_of_one_length_are_charged_by_token():
    """Where the run cannot tell a request from its tokens, tokens are charged."""
    price = fit([Sample(0, 24, 1.0)] * 5, 36.0, 5.0)
    assert (price.usd_per_request, price.usd_per_prompt_token) == (0.0, 0.0)
    assert price.usd_per_completion_token == pytest.approx(0.05 / 120)


@pytest.mark.parametrize(("run", "seconds"), [([], 10.0), ([Sample(1, 1, 1.0)], 0.0), ([Sample(1, 1, 0.0)], 10.0)])
def test_a_run_without_work_has_no_price(run, seconds):
    """An unknown price is an error, never zero."""
    with pytest.raises(CostError, match="no price"):
        fit(run, 1.0, seconds)
