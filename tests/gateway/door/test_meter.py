"""One key's counters: exact sums by the minute, a window that slides, a clock that nobody can turn back for gain."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canary.storage.usage import Used
from gateway.door.meter import Count, Meter, wait

START = 1_800_000_000.0  # the beginning of a minute
AMOUNTS = st.integers(0, 1000)
FOLDS = st.sampled_from([1.0, 2.0, 5.0])
TICKS = st.integers(0, 400).map(lambda ticks: ticks * 15 / 16)  # seconds whose part of a minute is an exact float


def counts() -> st.SearchStrategy[Count]:
    """Any counter that could have come about."""

    def made(own: int, own_before: int, others: int, others_before: int, told: int) -> Count:
        count = Count()
        count.own, count.own_before = float(own), float(own_before)
        count.others, count.others_before = float(others), float(others_before)
        count.told, count.told_before = float(min(told, own)), float(own_before)
        return count

    return st.builds(made, AMOUNTS, AMOUNTS, AMOUNTS, AMOUNTS, AMOUNTS)


def test_the_minute_before_fades() -> None:
    """Half of it counts when half of this minute is over; after two minutes nothing does."""
    meter = Meter(START)
    meter.tokens.own = 100.0
    assert meter.tokens.used(0, meter.turn(START + 59), 1) == 100
    assert meter.tokens.used(0, meter.turn(START + 60), 1) == 100
    assert meter.tokens.used(0, meter.turn(START + 90), 1) == 50
    assert meter.tokens.used(0, meter.turn(START + 119.4), 1) == pytest.approx(1)
    assert meter.tokens.used(0, meter.turn(START + 120), 1) == 0


@pytest.mark.parametrize("later", [120, 121, 600, 86_400])
def test_silence_forgets(later) -> None:
    """However long it was."""
    meter = Meter(START)
    meter.requests.own = meter.requests.others = meter.requests.told = 5.0
    assert meter.requests.used(0, meter.turn(START + later), 3) == 0


def test_a_day_is_utcs() -> None:
    """USD count until midnight, in full."""
    meter = Meter(1_800_057_600.0 - 1)
    meter.usd = 4.0
    meter.turn(1_800_057_600.0 - 0.5)
    assert meter.spent(1) == 4
    meter.turn(1_800_057_600.0)
    assert meter.spent(1) == 0


@given(st.lists(st.tuples(TICKS, AMOUNTS, AMOUNTS, TICKS), max_size=20))
def test_settling_is_exact(story) -> None:
    """After any order of reservations and corrections, each minute holds what was used in it: no more, no less.

    A reservation is counted in its own minute, whenever its end is known. What ends after that minute has left the
    window costs the running minute what it took too much, and gives nothing back.
    """
    meter, events = Meter(START), []
    for number, (begin, reserved, used, length) in enumerate(story):
        events += [(begin, number, 0, reserved, begin), (begin + length, number, 1, used - reserved, begin)]
    ledger: dict[int, int] = {}
    for at, _, kind, amount, begun in sorted(events):
        meter.turn(START + at)
        now, then = int(at // 60), int(begun // 60)
        if kind == 0:
            meter.tokens.own += amount
        else:
            meter.tokens.take_back(amount, now - then)
        if now - then < 2:
            ledger[then] = ledger.get(then, 0) + amount
        elif amount > 0:
            ledger[now] = ledger.get(now, 0) + amount
        assert (meter.tokens.own, meter.tokens.own_before) == (ledger.get(now, 0), ledger.get(now - 1, 0))


@given(counts(), AMOUNTS, st.floats(0, 1), FOLDS)
def test_taking_a_reservation_back_restores_the_window(count, reserved, rest, fold) -> None:
    """Also where each worker enforces its share, and in the minute after."""
    before, of_before = count.used(0, rest, fold), count.own_before
    count.own += reserved
    count.take_back(-reserved, 0)
    assert count.used(0, rest, fold) == before
    count.own_before += reserved
    count.take_back(-reserved, 1)
    assert (count.own_before, count.used(0, rest, fold)) == (of_before, before)


@given(counts(), AMOUNTS, st.integers(2, 9))
def test_a_late_refund_is_void(count, amount, ago) -> None:
    """What has left the window cannot be given back from what is in it."""
    before = count.used(0, 1, 1)
    count.take_back(-amount, ago)
    assert count.used(0, 1, 1) == before
    count.take_back(amount, ago)
    assert count.used(0, 1, 1) == before + amount


@pytest.mark.source
@given(counts(), counts(), TICKS, st.floats(0, 1e6), FOLDS, st.floats(0, 59))
def test_a_clock_that_steps_back_frees_nothing(requests, tokens, at, back, fold, after) -> None:  # noqa: PLR0917
    """Not at the step, however large, and not before as much time has passed as would have freed it anyway."""
    meter = Meter(START + at)
    meter.requests, meter.tokens, meter.usd = requests, tokens, 3.0
    held = [count.used(0, meter.turn(START + at), fold) for count in (requests, tokens)]
    rest = meter.turn(START + at - back)
    assert all(count.used(0, rest, fold) >= was for count, was in zip((requests, tokens), held, strict=True))
    assert meter.spent(1) == 3
    straight = Meter(START + at)
    straight.requests = _copy(requests)
    later, sooner = meter.turn(START + at - back + after), straight.turn(START + at + after)
    assert meter.requests.used(0, later, fold) >= straight.requests.used(0, sooner, fold) - 1e-6


def _copy(count: Count) -> Count:
    other = Count()
    for name in Count.__slots__:
        setattr(other, name, getattr(count, name))
    return other


def test_a_clock_that_was_an_hour_ahead_does_not_stop_a_key_for_an_hour() -> None:
    """Two minutes after it was set right, the window is empty again."""
    meter = Meter(START + 3600)
    meter.requests.own = 60.0
    meter.turn(START)
    assert meter.requests.used(0, meter.turn(START + 59), 1) == 60
    assert meter.requests.used(0, meter.turn(START + 180), 1) == 0


@given(counts(), st.integers(1, 1000), st.integers(1, 3000), TICKS, FOLDS)
def test_what_is_said_of_waiting_is_true(count, ask, limit, at, fold) -> None:
    """After the wait the request is let in; a moment before it was not."""
    meter = Meter(START + at)
    meter.requests = count
    seconds = wait(count, ask, limit, meter.turn(START + at), fold)
    if seconds == inf:
        assert ask * fold > limit
        return
    if seconds > 0.01:
        assert count.used(ask, meter.turn(START + at + seconds - 0.005), fold) > limit
    assert meter.requests.used(ask, meter.turn(START + at + seconds + 0.001), fold) <= limit


@given(counts(), counts(), counts(), FOLDS)
def test_hearing_replaces_what_was_known(mine, told, others, fold) -> None:
    """After an exchange the window is own plus others, with nothing counted twice."""
    meter = Meter(START)
    meter.tokens = mine
    said = meter.own("key_1")
    mine.own += 7  # while the answer is on its way
    meter.hear(said, replace(said, tokens=others.own, tokens_before=others.own_before))
    assert mine.used(0, 1, 1) == mine.own + mine.own_before + others.own + others.own_before
    assert mine.used(0, 1, fold) == mine.used(0, 1, 1) + (fold - 1) * 7


def test_an_answer_that_comes_in_the_next_minute_is_put_into_the_last() -> None:
    """And one that comes later still says nothing any more."""
    for passed, expected in ((1, 9.0), (2, 0.0)):
        meter = Meter(START)
        meter.requests.own = 4.0
        said = meter.own("key_1")
        rest = meter.turn(START + passed * 60)
        meter.hear(said, replace(said, requests=5.0, requests_before=100.0))
        assert meter.requests.used(0, rest, 1) == expected
        assert meter.requests.used(0, rest, 4) == expected


def test_money_that_the_store_forgot_stays_spent() -> None:
    """Within a day USD only grow."""
    meter = Meter(START)
    meter.hear(meter.own("k"), Used("k", meter.minute, meter.day, usd=3.0))
    meter.hear(meter.own("k"), Used("k", meter.minute, meter.day, usd=1.0))
    assert meter.spent(1) == 3
