"""loadtest/capacity.py."""

from hypothesis import given
from hypothesis import strategies as st

from loadtest.capacity import capacity
from loadtest.records import Client, Record, Saturation, Trace

CLIENT = Client(cpu_seconds=1.0, wall_seconds=4.0, sent=9)


def ended(at, end, *, ok=True):
    """One request sent at `at` that ended at `end`, with three tokens asked and five answered."""
    return Record(0.0, at, ok=ok, e2e_ms=1000 * (end - at), prompt_tokens=3, tokens=5)


def measured(*records, in_flight=2, duration=4.0):
    """The capacity told by these records."""
    return capacity(Saturation(in_flight, duration), Trace(records, CLIENT))


def test_only_what_ended_between_the_ramps_end_and_the_runs_end_counts():
    """The ramp lasts until every user's first request has ended."""
    ramp = ended(0.0, 0.5), ended(0.001, 1.0)
    during, after, failed, late = ended(0.5, 0.9), ended(0.9, 1.5), ended(1.0, 2.0, ok=False), ended(3.0, 4.01)
    found = measured(*ramp, during, after, failed, late)
    assert (found.seconds, found.ended, found.good) == (3.0, (after, failed), (after,))
    figures = found.figures()
    assert (figures["requests"], figures["failed"], figures["cpu_share"]) == (2, 1, 0.25)
    assert (figures["prompt_tokens"], figures["completion_tokens"]) == (3, 5)
    assert (figures["tokens_per_s"], figures["completion_tokens_per_s"], figures["requests_per_s"]) == (
        round(8 / 3, 4),
        round(5 / 3, 4),
        round(1 / 3, 4),
    )


def test_nothing_served_is_no_cost():
    """Whether nothing was asked, nothing ended, or the ramp never did."""
    for records in ((), (ended(0.0, 0.5),), (ended(0.0, 5.0), ended(0.0, 0.1), ended(0.1, 0.2))):
        assert measured(*records).cost(3.6) == {"usd_per_million_tokens": None, "price": None}
    assert measured(in_flight=0, duration=0.0).figures()["tokens_per_s"] == 0.0


def test_an_arm_paid_by_the_token_costs_its_rates():
    """3 prompt tokens at 1 USD and 5 completion tokens at 2 USD a million; the fit has no say."""
    found = measured(ended(0.0, 0.5), ended(0.0, 0.5), ended(0.5, 0.9)).cost(0.0, (1.0, 2.0))
    assert found == {"usd_per_million_tokens": 3 / 5 + 2.0, "price": [0.0, 1e-6, 2e-6]}
    assert measured().cost(0.0, (1.0, 2.0))["usd_per_million_tokens"] is None


@given(st.floats(0.02, 0.5), st.floats(1.1, 3.0), st.integers(1, 8))
def test_the_slower_engine_costs_more_per_token(each, times, users):
    """Users in step, each answer taking `each` seconds or so many times that."""

    def cost(took):
        records = [ended(took * number, took * (number + 1)) for number in range(int(20 / took)) for _ in range(users)]
        return measured(*records, in_flight=users, duration=20.0).cost(1.0)["usd_per_million_tokens"]

    assert cost(each * times) > cost(each) * (1 + 0.4 * (times - 1))


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0, 2), st.booleans()), max_size=40), st.integers(1, 8))
def test_what_counts_is_never_more_than_what_was_sent_beyond_the_ramp(requests, users):
    """Whatever the records: a window within the run, and no request of the ramp in it."""
    found = measured(*(ended(at, at + took, ok=ok) for at, took, ok in requests), in_flight=users)
    assert 0 <= found.seconds <= 4.0
    assert len(found.good) <= len(found.ended) <= max(len(requests) - users, 0)
