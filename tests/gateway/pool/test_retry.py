from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.pool.options import PoolOptions
from gateway.pool.retry import RetryBudget


def test_a_fifth_of_the_requests_may_be_retried():
    """A thousand requests in no time: two hundred retries."""
    budget, granted = RetryBudget(PoolOptions(retry_per_s=0), 0), 0
    while budget.take(0):
        pass
    for _ in range(1000):
        budget.asked()
        granted += budget.take(0)
    assert 199 <= granted <= 200


def test_a_quiet_model_may_retry():
    """Some a second, whatever the traffic; and what was saved at first."""
    budget = RetryBudget(PoolOptions(retry_per_s=1, retry_burst=3), 0)
    assert [budget.take(0) for _ in range(4)] == [True] * 3 + [False]
    assert [budget.take(1), budget.take(1), budget.take(1.5), budget.take(2)] == [True, False, False, True]


def test_not_more_is_saved_than_the_burst():
    """A busy hour must not pay for a storm."""
    budget = RetryBudget(PoolOptions(retry_burst=5), 0)
    for _ in range(1000):
        budget.asked()
    assert sum(budget.take(9999) for _ in range(20)) == 5


def test_nothing_put_in_means_no_retries():
    """Zero is never."""
    budget = RetryBudget(PoolOptions(retry_part=0, retry_per_s=0, retry_burst=0), 0)
    budget.asked()
    assert not budget.take(1e6)


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 5)), max_size=200))
def test_retries_never_exceed_the_budget(acts: list[tuple[bool, float]]):
    """At most a part of the requests, some a second, and the savings of the first moment; time may stand still."""
    options = PoolOptions(retry_part=0.2, retry_per_s=2, retry_burst=20)
    budget, now, asked, granted = RetryBudget(options, 0), 0.0, 0, 0
    for retries, pause in acts:
        now += pause
        if retries:
            granted += budget.take(now)
        else:
            budget.asked()
            asked += 1
        assert granted <= 20 + 0.2 * asked + 2 * now + 1e-6
