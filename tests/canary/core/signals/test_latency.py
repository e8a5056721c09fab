"""Latencies: an upper quantile, and the latency as a whole."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from canary.core import bounds
from canary.core.bounds import Events
from canary.core.course import Course
from canary.core.signals import SIGNALS, Reading, StageView
from canary.core.tails import Memory, margin_ratio
from canary.core.tally import Tally
from tests.canary.core.signals.arms import arm, histogram, read
from tests.canary.core.test_course import START, blocks_of, noisy


def test_a_tail_says_its_quantiles_and_counts_its_events() -> None:
    """Quantiles in milliseconds against the whole-bucket margin; the evidence is the memory's events."""
    view = StageView(1, 0.5, histogram("ttft", {370: 100}), histogram("ttft", {349: 100}))
    memory = Memory(events={1: (60, 5)}, unexplained={1: (60, 5)})
    got = read("ttft_p95", view, margin=1.1, memory=memory)
    assert got.facts == "152 ms against 100 ms, x1.52 > x1.10 allowed"
    assert got.beyond
    assert got.fail > 20
    assert got.passing < 0
    quiet = read("ttft_p95", view, margin=2.0, memory=Memory(events={1: (0, 12)}))
    assert not quiet.beyond
    assert quiet.passing > 3


@pytest.mark.parametrize(
    ("candidate", "baseline", "words"),
    [
        (histogram("tpot", {300: 5}), histogram("ttft", {300: 5}), "no ttft measured on the candidate"),
        (histogram("ttft", {300: 5}), arm(5), "no ttft measured on the baseline"),
    ],
)
def test_a_latency_nobody_measured_is_unknown(candidate: Tally, baseline: Tally, words: str) -> None:
    """Without streamed answers there is no TTFT to judge."""
    assert words == read("ttft_p95", StageView(1, 0.5, candidate, baseline), margin=1.1).unknown


def test_latencies_of_two_stages_do_not_compare() -> None:
    """A candidate measured in one stage and a baseline in another are two loads."""
    views = [
        StageView(1, 0.5, histogram("ttft", {300: 5}), arm(5)),
        StageView(2, 0.5, arm(5), histogram("ttft", {300: 5})),
    ]
    assert read("ttft_p95", *views, margin=1.1).unknown == "no stage in which both arms have a ttft"


SAME = StageView(1, 0.5, histogram("ttft", {349: 100}), histogram("ttft", {349: 100}))
QUIET = Memory(events={1: (0, 40)}, unexplained={1: (0, 40)})
LOUD = Memory(events={1: (60, 5)}, unexplained={1: (60, 5)})
EQUAL = START.take(blocks_of(540, 0.0, 12))
TWICE = START.take(blocks_of(540, math.log(2), 12))
BAR = 3.0  # ln 20


def latency(view: StageView = SAME, *, margin: float = 1.5, **sight: object) -> Reading:
    """Read TTFT's 95 % quantile with what is given."""
    return read("ttft_p95", view, margin=margin, planned_stages=4, **sight)


def test_a_latency_passes_by_its_quantile_and_as_a_whole() -> None:
    """Either alone is not enough, and without a closed block nothing passes."""
    assert latency(memory=QUIET, course=EQUAL).passing > BAR
    assert latency(memory=LOUD, course=EQUAL).passing < 0
    assert latency(memory=QUIET, course=TWICE).passing < 0
    assert latency(memory=QUIET, course=START).passing <= 0


def test_a_latency_fails_by_either() -> None:
    """By its part of the weight: of evidence only what lies beyond the margin counts."""
    slow = StageView(1, 0.5, histogram("ttft", {400: 100}), histogram("ttft", {349: 100}))
    tail, whole = latency(slow, memory=LOUD, course=EQUAL), latency(memory=QUIET, course=TWICE)
    both, none = latency(slow, memory=LOUD, course=TWICE), latency(memory=QUIET, course=EQUAL)
    assert (tail.beyond, whole.beyond, both.beyond, none.beyond) == (True, True, True, False)
    lag, least = SIGNALS["ttft_p95"].lag, bounds.log_e_more_restarted([Events(0.5, 60, 5, 65)], 4)
    assert lag is not None
    assert tail.fail == pytest.approx(math.log(1 - lag.part) + least)
    assert whole.fail == pytest.approx(math.log(lag.part) + TWICE.log_e(4))
    assert both.fail == pytest.approx(bounds.log_sum([tail.fail, whole.fail]))
    assert "as a whole x2.0" in whole.facts


def test_what_is_within_its_margin_adds_no_evidence() -> None:
    """A quantile beyond the margin with little evidence, and a whole that is not beyond: the quantile's alone."""
    slow = StageView(1, 0.5, histogram("ttft", {400: 100}), histogram("ttft", {349: 100}))
    few, lag = Memory(unexplained={1: (3, 2)}), SIGNALS["ttft_p95"].lag
    assert lag is not None
    got = latency(slow, memory=few, course=START.take(blocks_of(12, 0.0, 12)))
    assert got.fail == pytest.approx(math.log(1 - lag.part) + bounds.log_e_more_restarted([Events(0.5, 3, 2, 5)], 4))


def test_where_no_own_noise_is_assumed_the_quantile_says_all() -> None:
    """Of machines without noise of their own PASS needs no block."""
    silent = Course.begin(0.0)
    passing = bounds.log_e_fewer([Events(0.5, 0, 40, 40)])
    assert latency(memory=QUIET, course=silent).passing == passing
    assert latency(memory=QUIET, course=silent.take(blocks_of(40, 0.0, 1))).passing == passing


def test_arms_that_are_not_loaded_alike_do_not_pass_and_it_is_said() -> None:
    """Ten times the baseline's requests in flight: faster or slower, it may be the load."""
    crowded = replace(SAME, load=10.0)
    got = latency(crowded, memory=QUIET, course=EQUAL, max_load_ratio=4.0)
    assert got.missing.startswith("not load-matched: the candidate has x10 the baseline's requests in flight a replica")
    assert got.passing <= 0
    assert latency(crowded, memory=QUIET, course=EQUAL, max_load_ratio=20.0).missing == ""


def test_what_was_proved_under_another_load_does_not_pass_a_stage() -> None:
    """After a stage that was not alike the present one's own blocks and events are asked, once there are any."""
    now = replace(SAME, stage=2)
    memory = Memory(events={1: (0, 40), 2: (0, 40)}, unexplained={})
    sight = {"margin": 1.5, "memory": memory, "max_load_ratio": 4.0, "planned_stages": 4}
    views = replace(SAME, load=10.0), now
    assert read("ttft_p95", *views, course=EQUAL, **sight).passing == 0.0
    later = EQUAL.take(blocks_of(540, 0.0, 13, first=540, stage=2))
    assert read("ttft_p95", *views, course=later, **sight).passing == pytest.approx(
        min(bounds.log_e_fewer([Events(0.5, 0, 40, 40)]), later.log_e_within(math.log(margin_ratio(1.5)), present=True))
    )


def test_noise_beyond_the_assumptions_is_said_and_not_passed() -> None:
    """Machines three times as noisy as assumed: the laws that evidence holds against are not all."""
    wild = START.take(noisy(3 * START.most, 60.0, 360, 1))
    got = latency(memory=QUIET, course=wild)
    assert "noisier than assumed" in got.facts
    assert got.missing == "one arm's machines are noisier than assumed: more replicas, or analysis.own_noise"


def test_a_tail_without_a_location_is_the_tail() -> None:
    """Beside a guardrail that tests the location, the 99 % quantile asks it only what explains its tail."""
    got = read("ttft_p99", SAME, margin=1.5, memory=QUIET, course=TWICE, located=False)
    assert got.passing == bounds.log_e_fewer([Events(0.5, 0, 40, 40)])
    assert "as a whole" not in got.facts


def test_against_a_control_only_what_was_counted_against_it_counts() -> None:
    """Events that were counted against the whole baseline belong to another share."""
    memory = Memory(events={1: (5, 95), ~1: (4, 4)}, unexplained={1: (5, 95), ~1: (4, 4)})
    controlled = replace(SAME, control=True)
    assert latency(controlled, memory=memory).passing == bounds.log_e_fewer([Events(0.5, 4, 4, 8)])


def late_tail(candidate: dict[int, int], baseline: dict[int, int], course: Course | None = None) -> Reading:
    """Read TTFT's tail in a second stage, after a first with ten thousand equal requests."""
    quiet = StageView(1, 0.5, histogram("ttft", {349: 5000}), histogram("ttft", {349: 5000}))
    now = StageView(2, 0.5, histogram("ttft", candidate), histogram("ttft", baseline))
    memory = Memory(unexplained={1: (250, 250), 2: (100, 25)})
    return read("ttft_p95", quiet, now, margin=1.1, memory=memory, course=course, planned_stages=3)


def test_a_tail_that_grew_with_the_last_share_is_not_hidden() -> None:
    """Ten times as much quiet traffic before it: beyond by the present stage alone, and said."""
    got = late_tail({375: 500}, {349: 500})
    assert got.estimate is not None
    assert got.estimate < 1.1
    assert (got.beyond, got.worse) == (True, True)
    assert got.facts.endswith("x1.05 <= x1.10 allowed, x1.67 since the share changed")
    assert got.fail > 6


@pytest.mark.parametrize(
    ("candidate", "baseline"),
    [
        (dict.fromkeys(range(306, 406), 2), dict.fromkeys(range(300, 400), 2)),
        ({375: 72}, {349: 500}),
        ({375: 500}, {349: 72}),
        ({375: 500}, {}),
    ],
)
def test_a_tail_that_may_be_chance_is_not_beyond(candidate: dict[int, int], baseline: dict[int, int]) -> None:
    """A little above the margin of two hundred requests, or of too few for a limit of the quantile."""
    assert not late_tail(candidate, baseline).beyond


def test_what_noise_of_the_machines_may_do_to_a_tail_proves_nothing() -> None:
    """Where noise is possible, a ratio counts beyond it: of all stages, and of the present one."""
    silent, loud = Course.begin(0.0), {"margin": 1.1, "memory": LOUD}
    for bucket, found in ((370, [False, True]), (397, [True, True])):
        slow = StageView(1, 0.5, histogram("ttft", {bucket: 500}), histogram("ttft", {349: 500}))
        got = [latency(slow, course=course, **loud) for course in (START, silent)]
        late = [late_tail({bucket: 500}, {349: 500}, course) for course in (START, silent)]
        assert [one.beyond for one in got] == [one.beyond for one in late] == found
        assert [one.fail > BAR for one in (*got, *late)] == [*found, *found]
        assert ("x1.52 > x1.10 allowed, as a machine's noise may be" in got[0].facts) is not found[0]


LATER = replace(SAME, stage=2)


def test_a_whole_that_grew_slower_with_the_last_share_is_not_hidden() -> None:
    """An hour and a half of quiet blocks before ten minutes twice as slow: beyond by these alone, and said."""
    late = EQUAL.take(blocks_of(60, math.log(2), 13, first=540, stage=2))
    got = read("ttft_p95", SAME, LATER, margin=1.5, memory=QUIET, course=late, planned_stages=4)
    lag = SIGNALS["ttft_p95"].lag
    assert lag is not None
    assert math.exp(late.effect) < 1.5
    assert (got.beyond, got.worse) == (True, True)
    assert got.facts.endswith("over 595 blocks, x2.00 since the share changed")
    assert got.fail == pytest.approx(math.log(lag.part) + late.log_e(4))


def test_a_whole_that_may_be_chance_is_not_beyond() -> None:
    """A block a little beyond the margin; and blocks of the stage before say nothing of the present one."""
    little = EQUAL.take(blocks_of(1, math.log(1.55), 14, first=540, stage=2))
    assert math.exp(little.effect_in(2)[0]) > 1.53
    assert not read("ttft_p95", SAME, LATER, margin=1.5, memory=QUIET, course=little, planned_stages=4).beyond
    twice = EQUAL.take(blocks_of(60, math.log(2), 13, first=540, stage=2))
    views = SAME, LATER, replace(SAME, stage=3)
    assert not read("ttft_p95", *views, margin=1.5, memory=QUIET, course=twice, planned_stages=4).beyond
