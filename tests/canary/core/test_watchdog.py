"""canary/core/watchdog.py, and what the tripwire makes of it."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from canary.core.arms import Arm
from canary.core.tripwire import Tripwire
from canary.core.watchdog import FLOOR_S, KEPT, LEAST, Watchdog

B, C = Arm.BASELINE, Arm.CANDIDATE
NEVER = float("inf")


@dataclass(frozen=True)
class Asked:
    """One request: when it is sent, how long its first byte takes (`NEVER` for one that hangs), its size."""

    at: float
    arm: Arm
    wait: float
    size: int = 100


def told(requests: Iterable[Asked], every: float = 0.5, until: float | None = None) -> tuple[Tripwire, float | None]:
    """Play requests of one kind to a wire that looks every so often; return it, and when it fired."""
    wire = Tripwire()
    events = [(asked.at, 0, number, asked) for number, asked in enumerate(requests)]
    events += [(asked.at + asked.wait, 1, number, asked) for _, _, number, asked in events if asked.wait < NEVER]
    last = max((at for at, *_ in events), default=0.0) if until is None else until
    events += [(every * tick, 2, 0, None) for tick in range(int(last / every) + 60)]
    for at, kind, number, asked in sorted(events, key=lambda event: event[:3]):
        if asked is None:
            if wire.look(at) is not None:
                return wire, at
        elif kind == 0:
            wire.streams.sent(asked.arm, number, at, asked.size)
        else:  # a first byte; the whole answer follows at once
            wire.streams.heard(asked.arm, number, at)
            wire.observe(asked.arm, failed=False)
    return wire, None


def answer(dog: Watchdog, sent: float, now: float) -> None:
    """Let the baseline answer a request."""
    dog.sent(B, "baseline", sent, 100)
    dog.heard(B, "baseline", now)


def usual(start: float = 0.0, count: int = 60, wait: float = 1.0) -> list[Asked]:
    """A baseline that answers, one request a second."""
    return [Asked(start + number, B, wait) for number in range(count)]


def hanging(start: float, count: int = 6, gap: float = 0.5, wait: float = NEVER, size: int = 100) -> list[Asked]:
    """A candidate that does not answer."""
    return [Asked(start + gap * number, C, wait, size) for number in range(count)]


STALL = [Asked(number / 10, B, 3.0 if number < 300 else NEVER) for number in range(500)]
SPARSE = [Asked(2.0 * number, B, 1.0) for number in range(250)]


def test_a_candidate_that_hangs_trips_it_with_its_numbers() -> None:
    """Six requests without a first byte for ten seconds, while the baseline answers: off, long before any limit."""
    wire, when = told(usual() + hanging(30.0))
    assert when == 43.0  # the sixth was sent at 32.5
    assert wire.fired == (
        "tripwire: 6 of the candidate's last 6 requests wait for a first byte for more than 10.0 s, "
        "against 1.00 s (99 %) at baseline"
    )
    assert len(wire.waiting) == 6
    assert wire.look(43.5) is None  # once


@pytest.mark.parametrize(
    ("story", "why"),
    [
        (usual() + hanging(30.0, count=5), "five are too few"),
        (usual() + hanging(30.0, wait=9.9), "they came in time"),
        (usual(count=31) + hanging(30.0), "the baseline is silent too"),
        (usual(25.0, count=15) + hanging(30.0), "too little to compare with"),
        (STALL + hanging(30.0, gap=0.1), "what the baseline answers was asked before both stood still"),
        (usual(wait=8.0) + hanging(30.0, wait=20.0), "the baseline's usual wait is long"),
        (usual() + hanging(30.0, size=101), "larger than anything the baseline has answered"),
        (usual() + [Asked(30.1 + number, C, 0.5) for number in range(9)] + hanging(30.0, gap=1.7), "most are answered"),
        (
            SPARSE + 2 * [Asked(437.0, B, 11.0)] + hanging(437.0, wait=13.4),
            "two of the baseline's eight were late",
        ),
        (
            SPARSE + 2 * [Asked(437.0, B, NEVER)] + hanging(437.0, wait=13.4),
            "two of the baseline's eight hang too",
        ),
    ],
)
def test_what_is_no_hang_does_not_trip_it(story: list[Asked], why: str) -> None:
    """Few, in time, an outage of both, nobody to compare with, long prompts."""
    assert told(story)[1] is None, why


def test_a_failing_baseline_holds_it() -> None:
    """Three failures among its last fifty reports are an environment, not a candidate."""
    wire = Tripwire()
    for number in range(60):
        answer(wire.streams, number, number + 1.0)
        wire.observe(B, failed=number >= 57)
    for number in range(10):
        wire.streams.sent(C, number, 45.0, 100)
    assert wire.look(61.0) is None


def test_failures_before_count_with_those_that_hang() -> None:
    """Three that failed and three that hang are six; what hangs and then fails is not counted twice."""
    wire = Tripwire()
    for number in range(60):
        answer(wire.streams, number, number + 1.0)
        wire.observe(B, failed=False)
    for number in range(5):
        wire.streams.sent(C, f"served {number}", 30.0, 100)
        wire.streams.heard(C, f"served {number}", 31.0)
    for number in range(3):
        wire.observe(C, failed=True)
        wire.streams.sent(C, number, 45.0, 100)
    assert wire.look(54.0) is None
    for number in range(3):
        wire.streams.gone(C, number)
        wire.streams.sent(C, f"other {number}", 46.0, 100)
    assert wire.look(55.0) is None
    assert wire.look(61.0) is not None


def test_streams_and_whole_answers_are_measured_apart_and_summed() -> None:
    """A whole answer takes as long as its last byte; three hanging of each kind are six."""
    wire = Tripwire()
    for number in range(60):
        answer(wire.streams, number, number + 1.0)
        answer(wire.wholes, number, number + 12.0)
    for number in range(3):
        wire.streams.sent(C, number, 30.0, 100)
        wire.wholes.sent(C, number, 30.0, 100)
    assert wire.look(60.0) is None  # whole answers may take 36 s
    for number in range(60, 80):
        answer(wire.streams, number, number + 1.0)
        answer(wire.wholes, number - 12.0, number)
    assert "6 of the candidate's last 6" in str(wire.look(80.0))


gaps = st.floats(0.01, 4.0)
arms = st.sampled_from([B, C])


@settings(deadline=None)  # the machine is shared; a slow example is no failure
@given(st.lists(st.tuples(gaps, arms, st.floats(0.0, 60.0)), max_size=60), st.booleans())
def test_equal_arms_under_any_load_never_trip_it(rest: list[tuple[float, Arm, float]], stall: bool) -> None:
    """Whatever slows both arms, a queue or a stall: answers come in the order of their requests, and nothing fires."""
    requests, now, done = usual(count=LEAST + 5), float(LEAST + 5), 0.0
    for gap, arm, work in [(0.1, C, 40.0)] * (8 * stall) + rest:
        now += gap
        done = max(done, now + work)
        requests.append(Asked(now, arm, done - now))
    assert told(requests)[1] is None


@settings(deadline=None)
@given(st.floats(0.1, 6.0), st.floats(0.2, 2.0), st.floats(0.05, 3.0), st.integers(6, 20))
def test_a_candidate_that_hangs_always_trips_it(wait: float, gap: float, between: float, hung: int) -> None:
    """Within a look of the sixth request's limit, whatever the baseline's pace."""
    start, limit = LEAST * gap + wait + 1.0, max(FLOOR_S, 3.0 * wait)
    end = start + 5 * between + limit
    baseline = [Asked(number * gap, B, wait) for number in range(int((end + 5) / gap))]
    _, when = told(baseline + hanging(start, hung, between))
    assert when is not None
    assert end <= when <= end + 0.6


@given(st.lists(st.tuples(arms, st.booleans(), st.booleans()), max_size=200))
def test_looking_changes_nothing(story: list[tuple[Arm, bool, bool]]) -> None:
    """As long as it has not fired, a wire that is looked at judges reports like one that is not."""
    one, other = Tripwire(), Tripwire()
    for number, (arm, failed, look) in enumerate(story):
        now = float(number)
        if arm is C:
            one.streams.sent(C, number, now, 1)
            if failed:
                one.streams.heard(C, number - 7, now)
        else:
            one.streams.sent(B, number, now - 1.0, 1)
            one.streams.heard(B, number, now)
        if look and one.look(now) is not None:
            return
        assert one.observe(arm, failed) == other.observe(arm, failed)


@given(st.lists(st.tuples(st.integers(0, 5), arms, st.sampled_from(["sent", "gone", "heard"])), max_size=60))
def test_nobody_waits_who_has_ended(story: list[tuple[int, Arm, str]]) -> None:
    """In any order, and however often it is said."""
    dog, waiting = Watchdog(), {B: set(), C: set()}
    for now, (who, arm, what) in enumerate(story):
        if what == "sent":
            dog.sent(arm, who, float(now), 1)
            waiting[arm].add(who)
        else:
            (dog.gone(arm, who) if what == "gone" else dog.heard(arm, who, float(now)))
            waiting[arm].discard(who)
    assert (set(dog.waiting), set(dog._asked)) == (waiting[C], waiting[B])


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_heavy_tails_of_equal_arms_do_not_trip_it(seed: int) -> None:
    """Log-normal waits with a standard deviation of 2, no order at all, half the traffic, half an hour."""
    chance = random.Random(seed)
    requests = [Asked(n / 10, chance.choice([B, C]), chance.lognormvariate(-1.0, 2.0)) for n in range(18_000)]
    assert told(requests, every=1.0, until=1800.0)[1] is None


@pytest.mark.parametrize("seed", range(8))
def test_an_outage_that_takes_some_of_both_arms_does_not_trip_it(seed: int) -> None:
    """Seven of ten requests hang for a minute, on both arms alike, while the others are answered at once."""
    chance = random.Random(seed)

    def wait(at: float) -> float:
        return 60.0 if 120.0 < at < 180.0 and chance.random() < 0.7 else 0.5

    requests = [Asked(n / 10, chance.choice([B, C]), wait(n / 10)) for n in range(3000)]
    assert told(requests)[1] is None


def test_its_memory_is_bounded() -> None:
    """However long a release lasts."""
    dog = Watchdog()
    for number in range(2000):
        answer(dog, number, number + 1.0)
        dog.sent(C, number, number, 1)
        dog.heard(C, number, number)
    assert (len(dog._baseline), len(dog._asked), len(dog._served), len(dog.waiting)) == (KEPT, 0, 256, 0)
