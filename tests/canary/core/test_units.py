from __future__ import annotations

import random
from itertools import combinations

import pytest

from canary.core.arms import Arm
from canary.core.outcome import Outcome, Result
from canary.core.units import KNOWN_MOST, OFFSET_BITS, Units, kinds_of, offset_of

KINDS = ("assigned", "done", "failed", "empty", "truncated", "refusal", "malformed", "repetition")
OK = Outcome(Arm.BASELINE, Result.OK, completion_tokens=3, finish_reason="stop")


def test_a_unit_has_a_bit_of_its_own_for_each_kind():
    """Far apart, so that units whose numbers are near each other do not share them either."""
    assert len({offset_of(unit, kind) for unit in range(1, 1000) for kind in KINDS}) == 999 * len(KINDS)
    assert all(0 <= offset_of(2**53 - 1, kind) < 2**OFFSET_BITS for kind in KINDS)
    assert min(offset_of(7, one) ^ offset_of(7, other) for one, other in combinations(KINDS, 2)) > 2**16


def test_units_share_bits_as_seldom_as_chance_allows():
    """Numbers of 53 bits spread over the whole bitmap, also those of a small share, which are all low."""
    chance, n = random.Random(3), 50_000
    for below in (2**53, 2**53 // 100):
        bits = {offset_of(chance.randrange(1, below), kind) for _ in range(n) for kind in ("assigned", "done")}
        shared = 2 * n - len(bits)
        expected = (2 * n) ** 2 / 2 / 2**OFFSET_BITS
        assert abs(shared - expected) < 5 * expected**0.5


def test_memory_holds_the_last_bits_and_no_more():
    """At least half as many as it may hold, however many there were."""
    units = Units()
    for offset in range(3 * KNOWN_MOST):
        assert not units.known(offset)
        units.remember(offset)
    known = [offset for offset in range(3 * KNOWN_MOST) if units.known(offset)]
    assert KNOWN_MOST // 2 <= len(known) <= KNOWN_MOST
    assert known == list(range(known[0], 3 * KNOWN_MOST))


@pytest.mark.parametrize(
    ("outcome", "kinds"),
    [
        (OK, ("done",)),
        (Outcome(Arm.BASELINE, Result.OK, finish_reason="length"), ("done", "empty", "truncated")),
        (Outcome(Arm.BASELINE, Result.OK, completion_tokens=1, flaws=("refusal",)), ("done", "refusal")),
        (Outcome(Arm.BASELINE, Result.ERROR), ("done", "failed")),
        (Outcome(Arm.BASELINE, Result.TIMEOUT), ("done", "failed", "timed")),
        (Outcome(Arm.BASELINE, Result.TIMEOUT, cold=True), ("done", "failed")),
        (Outcome(Arm.BASELINE, Result.CLIENT_ERROR), ()),
        (Outcome(Arm.BASELINE, Result.CANCELLED), ()),
    ],
)
def test_a_request_is_events_of_several_kinds(outcome: Outcome, kinds: tuple[str, ...]):
    """What says nothing about the arm is none."""
    assert kinds_of(outcome) == kinds
