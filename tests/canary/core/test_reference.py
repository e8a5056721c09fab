"""What comparing the baseline with itself tells of its machines."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from canary.core.course import Course
from canary.core.location import Arm, Block
from canary.core.noise import ASSUMED, USUAL, all_laws, most_noise
from canary.core.reference import KEPT_S, LEAST_S, SEGMENT_S, Reference, better
from tests.canary.core.test_course import blocks_of

MOST = most_noise(0.18, 1, 1)
EMPTY = Reference.of_replicas(0.18, 1, 1)
SPREAD = 0.3  # of one request's log latency


def compared(
    hours: float, sigma: float = 0.0, tau: float = 600.0, seed: int = 1, first: float = 0.0
) -> dict[float, Block]:
    """Closed blocks of fifty requests a side, by their sums, with slow noise of one side's machine."""
    chance, found, x = np.random.default_rng(seed), {}, 0.0
    a, per = math.exp(-10 / tau), math.log(1.02)

    def side(mean: float) -> Arm:
        k = round(50 * (400 + (mean + chance.normal(0, SPREAD / math.sqrt(50))) / per))
        return Arm(50, k, round(k * k / 50 + 50 * (SPREAD / per) ** 2))

    for number in range(round(hours * 360)):
        x = a * x + chance.normal(0, sigma * math.sqrt(1 - a * a))
        start = first + 10.0 * number
        found[start] = Block(start, side(x), side(0.0))
    return found


QUIET = EMPTY.take(compared(7.0))


def test_without_ten_minutes_of_blocks_it_tells_nothing() -> None:
    """Nor does one that never compared anything."""
    few = EMPTY.take(compared((LEAST_S - 60) / 3600))
    for one in (EMPTY, few):
        assert (one.belief, one.outside) == (None, False)
        assert one.largest.sigma == pytest.approx(MOST)
        assert better([one, None]) is None
    assert (EMPTY.last, EMPTY.variance, EMPTY.likeliest.sigma) == (-math.inf, None, 0.0)
    assert EMPTY.take(compared((LEAST_S + 60) / 3600)).belief is not None


def test_it_is_cut_into_segments_of_six_hours() -> None:
    """Each begun afresh: seven hours are two."""
    assert [one.began for one in QUIET.segments] == [50.0, 50.0 + SEGMENT_S]
    assert QUIET.seconds == 10.0 * (7 * 360 - 5)
    assert QUIET.last == 7 * 3600.0 - 10


def test_a_day_is_kept_and_no_more() -> None:
    """What ended a day ago is dropped, when blocks come and when it is asked."""
    later = QUIET.take(compared(0.5, first=KEPT_S + SEGMENT_S + 60))
    assert [one.began for one in later.segments] == [50.0 + SEGMENT_S, KEPT_S + SEGMENT_S + 60]
    assert len(QUIET.at(QUIET.last + KEPT_S - 1).segments) == 1
    assert QUIET.at(QUIET.last + KEPT_S).belief is None
    assert QUIET.at(-1e12) == QUIET


def test_the_same_blocks_again_and_a_restart_change_nothing() -> None:
    """Block by block, written down in between, or all at once; blocks of the past are left out."""
    blocks = compared(0.5)
    pieces = EMPTY
    for start, block in blocks.items():
        pieces = Reference.from_plain(json.loads(json.dumps(pieces.take({start: block}).to_plain())))
    assert pieces == EMPTY.take(blocks) == EMPTY.take(blocks).take(blocks)


def test_a_block_of_one_side_alone_is_taken_and_tells_nothing() -> None:
    """A replica that was away is no difference."""
    start = QUIET.last + 10
    lonely = QUIET.take({start: Block(start, Arm(), Arm(5, 2000, 800_000))})
    assert (lonely.taken, lonely.segments) == (start, QUIET.segments)


def test_quiet_hours_make_harm_known_many_times_sooner() -> None:
    """A latency half as high again, with and without them; believed to the end, whatever a reference says later."""
    informed = Course.begin(MOST, QUIET.belief, QUIET.variance)
    harm, bar = blocks_of(360, math.log(1.5), 3), -math.log(0.01 * 0.85 * 0.15)

    def needed(course: Course) -> int:
        for number, (key, block) in enumerate(harm.items()):
            course = course.take({key: block})
            if course.log_e(4) >= bar:
                return number
        return len(harm)

    assert 5 * needed(informed) < needed(Course.begin(MOST))
    assert informed.take(harm).belief == QUIET.belief


def test_quiet_hours_leave_no_room_for_much_noise() -> None:
    """None is likeliest, and the largest that it leaves is a part of what is assumed without one."""
    assert QUIET.likeliest.sigma == 0.0
    assert QUIET.largest.sigma < MOST
    assert not QUIET.outside
    assert QUIET.variance == pytest.approx(SPREAD**2, rel=0.1)


@pytest.mark.parametrize("tau", [60.0, 600.0])
def test_noise_that_it_saw_stays_possible(tau: float) -> None:
    """As large as is assumed: its law is among those that evidence must hold against."""
    belief = EMPTY.take(compared(7.0, MOST, tau)).belief
    assert belief is not None
    truth = next(j for j, law in enumerate(all_laws(MOST)) if (law.sigma, law.tau) == (MOST, tau))
    assert belief.possible[truth]
    assert not belief.possible[0]


def test_noise_of_half_an_hour_takes_a_long_reference() -> None:
    """Its laws are assumed once six hours have been compared, and it is then told by name."""
    slow = compared(7.0, MOST, 1800.0, seed=4)
    short = EMPTY.take({start: block for start, block in slow.items() if start < 3600})
    long = EMPTY.take(slow)
    assert short.belief is not None
    assert long.belief is not None
    assert not short.belief.possible[USUAL:].any()
    assert long.belief.possible[USUAL:ASSUMED].any()
    assert not long.belief.possible[ASSUMED:].any()
    assert long.largest.tau in (600.0, 1800.0)


def test_noise_beyond_what_is_assumed_of_any_is_outside() -> None:
    """Three times as large; it is never believed in, only named."""
    wild = EMPTY.take(compared(7.0, 3 * MOST, 180.0))
    assert wild.outside
    assert wild.belief is not None
    assert not wild.belief.possible[ASSUMED:].any()
    assert wild.likeliest.sigma <= MOST * (1 + 1e-9)


def test_the_longer_one_is_better() -> None:
    """Of those that tell something."""
    hour = EMPTY.take(compared(1.0))
    assert better([None, hour, QUIET, EMPTY]) == QUIET
    assert better([]) is None


def test_more_replicas_a_side_have_less_noise_between_them() -> None:
    """Four against four: half the noise of one against one."""
    assert Reference.of_replicas(0.18, 4, 4).most == pytest.approx(MOST / 2)
    assert Reference.of_replicas(0.18, 0, 1).most == pytest.approx(MOST)
