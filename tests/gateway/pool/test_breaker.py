from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.pool.breaker import Breaker, State
from gateway.pool.options import PoolOptions

RULE = PoolOptions(failures=3, open_s=1, open_most_s=8, window_s=10, window_least=10, failure_rate=0.5)
ACTS = st.lists(st.tuples(st.sampled_from(["begin", "good", "heard", "bad", "gone", "no way"]), st.floats(0, 3)))


def fresh(chance: float = 0.5) -> Breaker:
    """A breaker whose waits are exact at chance 0.5."""
    return Breaker(RULE, lambda: chance, lambda: None)


def fail(breaker: Breaker, now: float, times: int = 1) -> None:
    """Send and fail."""
    for _ in range(times):
        breaker.failed(breaker.begin(now), now)


def tripped(now: float = 100.0) -> Breaker:
    """A breaker that has just opened for one second."""
    breaker = fresh()
    fail(breaker, now, 3)
    return breaker


def test_failures_in_a_row_open_it():
    """Not the first two, the third."""
    breaker = fresh()
    fail(breaker, 0, 2)
    assert breaker.state is State.CLOSED
    fail(breaker, 0)
    assert (breaker.state, breaker.due(0.99), breaker.due(1.0)) == (State.OPEN, False, True)


def test_a_good_answer_ends_the_row():
    """Two failures, an answer, two failures: closed."""
    breaker = fresh()
    fail(breaker, 0, 2)
    breaker.succeeded(breaker.begin(0), 0)
    fail(breaker, 0, 2)
    assert breaker.state is State.CLOSED


def test_half_of_a_window_opens_it():
    """Every second request fails: never three in a row, but too many of ten."""
    breaker = fresh()
    for number in range(10):
        assert breaker.state is State.CLOSED
        epoch = breaker.begin(number)
        (breaker.failed if number % 2 else breaker.succeeded)(epoch, number / 10)
    assert breaker.state is State.OPEN


def test_an_old_window_is_forgotten():
    """The same failures, spread over windows, open nothing."""
    breaker = fresh()
    for number in range(40):
        (breaker.failed if number % 2 else breaker.succeeded)(breaker.begin(0), number * 1.5)
        assert breaker.state is State.CLOSED


def test_one_request_probes_at_a_time():
    """Once its time is over one request is the probe, and until it has ended there is no second one."""
    breaker = tripped()
    assert breaker.due(101)
    breaker.begin(101)
    assert (breaker.state, breaker.due(101), breaker.due(999)) == (State.PROBING, False, False)


def test_a_good_probe_closes_it():
    """The beginning of an answer is enough: a long stream need not end first."""
    breaker = tripped()
    breaker.heard(breaker.begin(101), 101.1)
    assert breaker.state is State.CLOSED
    fail(breaker, 102, 2)
    assert breaker.state is State.CLOSED


def test_each_bad_probe_doubles_the_wait_up_to_a_limit():
    """1, 2, 4, 8, 8 seconds."""
    breaker, now, waits = tripped(), 100.0, []
    for _ in range(5):
        waits.append(breaker.until - now)
        now = breaker.until
        fail(breaker, now)
    assert waits == [1, 2, 4, 8, 8]


def test_the_wait_is_short_again_after_a_good_while():
    """Longer closed than the longest wait: what was is forgotten. Sooner, it is not."""
    breaker = tripped()
    fail(breaker, 101)
    breaker.succeeded(breaker.begin(103), 103)
    fail(breaker, 104, 3)
    assert breaker.until == 104 + 4
    breaker.succeeded(breaker.begin(108), 108)
    fail(breaker, 117, 3)
    assert breaker.until == 117 + 1


@pytest.mark.parametrize(("chance", "wait"), [(0, 0.75), (0.5, 1.0), (0.999, 1.2495)])
def test_the_wait_is_spread(chance: float, wait: float):
    """Workers do not come back in the same moment."""
    breaker = fresh(chance)
    fail(breaker, 0, 3)
    assert breaker.until == pytest.approx(wait)


def test_a_probe_that_says_nothing_leaves_the_next_one_to_probe():
    """Its client went away."""
    breaker = tripped()
    breaker.let_go(breaker.begin(101))
    assert breaker.due(101)


def test_results_of_requests_sent_before_count_no_more():
    """The streams that die with their engine open it once; old answers do not close it, nor do they end a probe."""
    breaker = fresh()
    old = [breaker.begin(0) for _ in range(60)]
    for epoch in old[:50]:
        breaker.failed(epoch, 0)
    assert breaker.until == 1
    breaker.succeeded(old[50], 0.5)
    assert breaker.state is State.OPEN
    breaker.begin(1)
    for report in (breaker.failed, breaker.heard):
        report(old[51], 1)
    breaker.let_go(old[52])
    assert breaker.state is State.PROBING


def test_asked_in_an_emergency_a_good_answer_closes_it_and_a_failure_changes_nothing():
    """Where all are open the pool asks all the same."""
    breaker = tripped()
    fail(breaker, 100.5, 9)
    assert (breaker.state, breaker.until) == (State.OPEN, 101)
    breaker.heard(breaker.begin(100.6), 100.7)
    assert breaker.state is State.CLOSED


def test_no_connection_opens_it_at_once():
    """One refusal is proof enough."""
    breaker = fresh()
    breaker.unreachable(0)
    assert (breaker.state, breaker.until) == (State.OPEN, 1)
    breaker.unreachable(0.5)
    assert breaker.until == 1


def test_a_passed_health_check_lets_a_probe_through_sooner_after_a_refusal_only():
    """It proves that somebody listens, and nothing about answers."""
    refused, failing = fresh(), tripped()
    refused.unreachable(100)
    refused.reachable(100.2)
    failing.reachable(100.2)
    assert (refused.state, refused.due(100.2), failing.due(100.2)) == (State.OPEN, True, False)


@given(ACTS, st.integers(0, 2**32))
def test_its_laws_hold_whatever_happens(acts: list[tuple[str, float]], seed: int):
    """At most one probe since it opened; a state changes only with its epoch; waits stay within their limits."""
    changes: list[State] = []
    breaker = Breaker(RULE, Random(seed).random, lambda: changes.append(breaker.state))
    now, held = 0.0, [breaker.epoch]
    for act, pause in acts:
        before, epoch, now = breaker.state, breaker.epoch, now + pause
        if act == "begin":
            due = breaker.due(now)
            held.append(breaker.begin(now))
            assert due == (before is State.OPEN and breaker.state is State.PROBING)
        elif act == "no way":
            breaker.unreachable(now)
            assert breaker.state is State.OPEN
        else:
            report = {"good": breaker.succeeded, "heard": breaker.heard, "bad": breaker.failed}.get(act)
            at = held.pop() if len(held) % 2 and len(held) > 1 else held[0]
            report(at, now) if report else breaker.let_go(at)
            assert at == epoch or breaker.state is before
        assert (breaker.epoch == epoch) == (breaker.state is before)
        if before is not State.OPEN and breaker.state is State.OPEN and act != "gone":
            assert 0.75 * RULE.open_s <= breaker.until - now <= 1.25 * RULE.open_most_s
    assert len(changes) == breaker.epoch
