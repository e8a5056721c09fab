"""One latency's way through an attempt: blocks are final, harm is found, a machine's noise is not."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from canary.core.course import Course
from canary.core.location import Arm, Belief, Block
from canary.core.noise import OUTSIDE_PARTS, all_laws, most_noise


def blocks_of(count: int, shift: float, seed: int, first: int = 0, stage: int = 1) -> dict[tuple[float, int], Block]:
    """Closed blocks of fifty requests an arm, the candidate's `shift` (log) slower."""
    chance, found = np.random.default_rng(seed), {}

    def arm(mean: float) -> Arm:
        ks = [int(k) for k in chance.normal(400 + mean / math.log(1.02), 18, 50)]
        return Arm(len(ks), sum(ks), sum(k * k for k in ks))

    for number in range(first, first + count):
        found[10.0 * number, stage] = Block(10.0 * number, arm(shift), arm(0.0))
    return found


START = Course.begin(most_noise(0.18, 1, 1))


def test_a_closed_block_is_final():
    """Taken together, one by one or again, blocks leave the same behind; a late one for an old time changes nothing."""
    blocks = blocks_of(40, 0.1, 5)
    whole = START.take(blocks)
    pieces = START
    for key in blocks:
        pieces = pieces.take({key: blocks[key]}).take(blocks_of(1, 9.0, 6))
    assert pieces.to_plain() == whole.to_plain() == whole.take(blocks).to_plain()
    assert Course.from_plain(json.loads(json.dumps(whole.to_plain()))).to_plain() == whole.to_plain()
    assert whole.blocks == 40 - 5  # the first five told how times spread


def test_a_slower_candidate_is_found_and_an_equal_one_is_not():
    """Half an hour of either, at the threshold of a guardrail."""
    bar = -math.log(0.01 * 0.85 * 0.15)
    assert START.take(blocks_of(180, math.log(2), 7)).log_e(4) > bar
    assert START.take(blocks_of(180, 0.0, 8)).log_e(4) < 1


def test_harm_that_begins_late_has_a_test_of_its_own():
    """Two quiet hours do not have to be won back."""
    quiet = START.take(blocks_of(720, 0.0, 9))
    late = quiet.take(blocks_of(150, math.log(3), 10, first=720, stage=2))
    assert late.log_e(4) > late.log_e(1)
    assert len(late.ended) == 1


def test_an_arm_without_requests_tells_no_difference():
    """A block of one arm alone is taken, and counts for nothing."""
    blocks = blocks_of(10, 0.0, 11)
    start = 10.0 * 20
    silent = {(start, 1): Block(start, Arm(), next(iter(blocks.values())).baseline)}
    before = START.take(blocks)
    after = before.take(silent)
    assert (after.blocks, after.taken) == (before.blocks, (start, 1))


def noisy(sigma: float, tau: float, count: int, seed: int) -> dict[tuple[float, int], Block]:
    """Closed blocks of an equal candidate whose machine has slow noise of its own."""
    chance, found, x = np.random.default_rng(seed), {}, 0.0
    for number in range(count):
        a = math.exp(-10 / tau)
        x = a * x + chance.normal(0, sigma * math.sqrt(1 - a * a))
        found |= blocks_of(1, x, seed * 10_000 + number, first=number)
    return found


@pytest.mark.parametrize(("parts", "told"), [(0.0, False), (1.0, False), (OUTSIDE_PARTS[-1], True)])
def test_noise_that_is_not_assumed_is_named(parts: float, told: bool):
    """Machines three times as noisy as assumed are said to be; quiet ones and those as assumed are not."""
    found = [START.take(noisy(parts * START.most, 60.0, 360, seed)).outside for seed in range(5)]
    assert found == [told] * 5


def test_within_is_proved_of_an_equal_candidate_and_not_of_one_at_the_margin():
    """An hour and a half of each, at 5 %."""
    margin = math.log(1.5)
    assert START.take(blocks_of(540, 0.0, 12)).log_e_within(margin) > math.log(20)
    assert START.take(blocks_of(540, margin, 13)).log_e_within(margin) < math.log(20)


def test_within_can_be_asked_of_the_present_stage_alone():
    """What an earlier stage has proved does not count there."""
    course = START.take(blocks_of(540, 0.0, 14)).take(blocks_of(3, 0.0, 15, first=540, stage=2))
    assert course.log_e_within(math.log(1.5), present=True) < course.log_e_within(math.log(1.5))


def test_a_new_stage_does_not_hide_what_was_proved_before():
    """A share that has just changed, and a first block with one arm alone: the evidence stands."""
    proved = START.take(blocks_of(180, math.log(2), 7))
    lonely = {(1800.0, 2): Block(1800.0, Arm(), next(iter(blocks_of(1, 0.0, 1).values())).baseline)}
    assert proved.take(lonely).log_e(4) > proved.log_e(4) - 1


def test_the_effect_of_the_present_stage_is_its_own_blocks():
    """Quiet hours before take nothing from it, and of another stage nothing is known."""
    course = START.take(blocks_of(540, 0.0, 14)).take(blocks_of(60, math.log(2), 15, first=540, stage=2))
    effect, error = course.effect_in(2)
    assert effect == pytest.approx(math.log(2), abs=3 * error)
    assert error < 0.1
    assert course.effect_in(1) == START.effect_in(1) == (0.0, math.inf)


def test_the_largest_noise_that_is_possible():
    """What is assumed, or what a reference leaves of it."""
    quiet = np.array([0.0, *[-99.0] * (len(all_laws(START.most)) - 1)])
    assert START.noise == START.most
    assert Course.begin(START.most, Belief.of_reference(quiet)).noise == 0.0
