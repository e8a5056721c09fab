from __future__ import annotations

import json
import math
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canary.core import tails
from canary.core.tails import Memory, Recent, Tail
from canary.core.tally import TOP, Tally

P95 = Tail("ttft", 0.95)
EMPTY = Tally()


def hist(cells: dict[int, int]) -> Tally:
    """A TTFT histogram."""
    return Tally({f"ttft.{bucket}": n for bucket, n in cells.items()})


BASE = hist({100: 95, 200: 5})


@dataclass(frozen=True)
class Seen:
    """What one tail test remembers of one latency."""

    recent: Recent = field(default_factory=Recent)
    memory: Memory = field(default_factory=Memory)

    def update(self, tail: Tail, margin: float, stages, now: float, shift: int | None = 0) -> Seen:
        """Look once."""
        recent, fresh = self.recent.take(tail.histogram, stages, now)
        return Seen(recent, self.memory.count(fresh, self.recent.threshold(tail), margin, shift))

    def again(self) -> Seen:
        """Write it down and read it back."""
        return Seen(
            Recent.from_plain(json.loads(json.dumps(self.recent.to_plain()))),
            Memory.from_plain(json.loads(json.dumps(self.memory.to_plain()))),
        )

    def events_of(self, stage: int) -> tuple[int, int]:
        """Return a stage's events so far: the candidate's, the baseline's."""
        return self.memory.events.get(stage, (0, 0))

    @property
    def reference_time(self) -> float:
        """When the reference was last added to."""
        return self.recent.reference_time

    @property
    def reference(self):
        """The baseline's recent buckets."""
        return self.recent.reference


@pytest.mark.parametrize(
    ("ratio", "buckets", "tested"), [(1.10, 5, 1.104), (1.05, 3, 1.061), (1.0, 0, 1.0), (2.0, 36, 2.040)]
)
def test_a_margin_is_whole_buckets_rounded_up(ratio: float, buckets: int, tested: float) -> None:
    """A margin is what can be counted: 1.10 is 1.104."""
    assert buckets == tails.margin_buckets(ratio)
    assert tails.margin_ratio(ratio) == pytest.approx(tested, abs=1e-3)


@pytest.mark.parametrize(("q", "bucket"), [(0.5, 100), (0.95, 100), (0.951, 200), (1.0, 200)])
def test_a_quantile_is_the_bucket_that_holds_it(q: float, bucket: int) -> None:
    """Quantiles of a histogram are exact to the bucket."""
    assert bucket == tails.quantile({200: 5, 100: 95}, q)


def test_an_empty_histogram_has_no_quantile() -> None:
    """Nothing measured is no number."""
    assert tails.quantile({}, 0.5) is None


def test_the_first_look_only_fills_the_reference() -> None:
    """Whether a request is an event is settled before it is seen: the first look counts none."""
    memory = Seen().update(P95, 1.1, {1: (BASE, BASE)}, now=0.0)
    assert memory.events_of(1) == (0, 0)
    assert dict(memory.reference) == {100: 95.0, 200: 5.0}


def test_later_looks_count_only_what_is_new() -> None:
    """A baseline request above x and a candidate request above x times the margin are events, once."""
    memory = Seen().update(P95, 1.1, {1: (EMPTY, BASE)}, now=0.0)
    later = hist({100: 95, 200: 5, 101: 2})
    memory = memory.update(P95, 1.1, {1: (hist({105: 3, 106: 4}), later)}, now=60.0)
    assert memory.events_of(1) == (4, 2)


def test_the_reference_forgets_by_the_minute() -> None:
    """After a minute the older baseline requests weigh .933."""
    memory = Seen().update(P95, 1.1, {1: (EMPTY, hist({100: 50}))}, now=0.0)
    memory = memory.update(P95, 1.1, {1: (EMPTY, hist({100: 50, 110: 10}))}, now=60.0)
    assert memory.reference == pytest.approx({100: 50 * 0.933, 110: 10.0})


@pytest.mark.parametrize("stepped", [0.0, math.nan, math.inf])
def test_a_clock_that_goes_wrong_counts_as_still(stepped: float) -> None:
    """A clock that goes back, or says nothing, neither revives nor forgets the past."""
    memory = Seen().update(P95, 1.1, {1: (EMPTY, hist({100: 50}))}, now=600.0)
    memory = memory.update(P95, 1.1, {1: (EMPTY, hist({100: 51}))}, now=stepped)
    assert (memory.reference_time, dict(memory.reference)) == (600.0, {100: 51.0})


def test_dust_is_swept_from_the_reference() -> None:
    """Hours later nothing of an old bucket is left."""
    memory = Seen().update(P95, 1.1, {1: (EMPTY, hist({100: 50}))}, now=0.0)
    memory = memory.update(P95, 1.1, {1: (EMPTY, hist({100: 50, 110: 1}))}, now=1e6)
    assert dict(memory.reference) == {110: 1.0}


def test_a_baseline_whose_quantile_is_a_timeout_has_no_events() -> None:
    """Where a twentieth of the baseline times out, nothing lies above its quantile."""
    memory = Seen().update(P95, 1.1, {1: (EMPTY, hist({100: 50, TOP: 50}))}, now=0.0)
    memory = memory.update(P95, 1.1, {1: (hist({TOP: 9}), hist({100: 50, TOP: 60}))}, now=1.0)
    assert memory.events_of(1) == (0, 0)


def test_a_timeout_is_an_event_however_wide_the_margin() -> None:
    """The limit stays below the top bucket, so that what never came is always above it."""
    memory = Seen().update(P95, 1e9, {1: (EMPTY, hist({800: 50}))}, now=0.0)
    memory = memory.update(P95, 1e9, {1: (hist({TOP: 9}), hist({800: 50}))}, now=1.0)
    assert memory.events_of(1) == (9, 0)


def test_a_store_that_lost_its_last_second_makes_no_events() -> None:
    """Sums that shrank are nothing new, and what comes back is not counted twice."""
    memory = Seen().update(P95, 1.1, {1: (EMPTY, BASE)}, now=0.0)
    full = memory.update(P95, 1.1, {1: (hist({300: 5}), BASE)}, now=1.0)
    lost = full.update(P95, 1.1, {1: (hist({300: 3}), BASE)}, now=2.0)
    again = lost.update(P95, 1.1, {1: (hist({300: 6}), BASE)}, now=3.0)
    assert [memory.events_of(1) for memory in (full, lost, again)] == [(5, 0), (5, 0), (6, 0)]


cells = st.dictionaries(st.integers(0, TOP), st.integers(1, 30), max_size=5)


@given(st.lists(st.tuples(cells, cells), max_size=4), st.floats(0, 1e6))
def test_the_same_sums_again_change_nothing_and_a_restart_neither(looks, later: float) -> None:
    """Looking twice at the same sums, at any time, and writing the memory down, leave it as it is."""
    memory, sums = Seen(), (EMPTY, EMPTY)
    for number, (c, b) in enumerate(looks):
        sums = (sums[0] + hist(c), sums[1] + hist(b))
        memory = memory.update(P95, 1.1, {1: sums}, now=float(number))
    assert memory == memory.update(P95, 1.1, {1: sums}, now=later)
    assert memory == memory.again()


def test_quantiles_are_compared_stage_against_itself() -> None:
    """A latency that rose for both arms while the share grew is no effect."""
    slow = hist({150: 95, 250: 5})
    stages = [(hist({100: 9, 200: 1}), BASE), (slow, hist({150: 9, 250: 1}))]
    got = P95.compare(stages)
    assert got is not None
    one = P95.compare([(BASE, BASE), (EMPTY, BASE)])
    assert one is not None
    assert (one.ratio, one.candidate, one.baseline) == (1.0, 100, 100)
    assert got.low < got.ratio < got.high


def test_without_a_stage_that_has_both_there_is_nothing_to_compare() -> None:
    """No pair of histograms is no comparison."""
    assert P95.compare([(BASE, EMPTY), (EMPTY, BASE)]) is None


def test_an_interval_holds_its_ratio() -> None:
    """A candidate twice as slow shows about two, between its bounds."""
    got = P95.compare([(hist({135: 190, 235: 10}), hist({100: 190, 200: 10}))])
    assert got is not None
    assert got.ratio == pytest.approx(1.02**35)
    assert got.low <= got.ratio <= got.high
    assert math.isfinite(got.high)


def test_a_control_that_comes_late_is_not_compared_with_what_came_before() -> None:
    """From its first look on both are counted; what the candidate did before, the control was not there for."""
    recent, memory = Recent(), Memory()
    looks = [
        {1: (hist({100: 50}), hist({100: 950, 200: 50}))},
        {1: (hist({100: 90, 300: 10}), hist({100: 1900, 200: 100}))},
        {~1: (hist({100: 100, 300: 20}), hist({100: 3}))},
        {~1: (hist({100: 110, 300: 25}), hist({100: 9, 300: 4}))},
    ]
    for number, sums in enumerate(looks):
        threshold = recent.threshold(P95)
        recent, fresh = recent.take("ttft", sums, float(number))
        memory = memory.count(fresh, threshold, 1.1)
    assert (memory.events[1], memory.events[~1]) == ((10, 50), (5, 4))


def test_a_margin_below_one_is_for_passing_only() -> None:
    """To be asked for a tenth less and to give as much is no pass, and no harm either."""
    memory = Memory().count({1: ({100: 50}, {100: 50})}, 101, 0.9)
    assert (memory.events[1], memory.unexplained[1]) == ((50, 0), (0, 0))
