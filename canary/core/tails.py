"""Tails of latencies: quantiles of log histograms, and the memory that turns them into fair events.

Whether a request is an event must be settled before it is seen, or looking would bias it. So the memory keeps the
baseline's recent histogram from earlier looks, takes the quantile x from that, and counts only what is new since.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from canary.core.arms import Arm
from canary.core.tally import GROWTH, TOP, Tally

DECAY = 0.933  # a minute: half of the reference is from the last ten
Z95 = 1.96
_LOG_GROWTH = math.log(GROWTH)

Histogram = Mapping[int, int]


def margin_buckets(ratio: float) -> int:
    """Return a ratio as whole buckets, rounded up: 1.10 is 5 buckets, 1.104."""
    return math.ceil(math.log(ratio) / _LOG_GROWTH - 1e-9)


def margin_ratio(ratio: float) -> float:
    """Return the ratio that is really tested."""
    return GROWTH ** margin_buckets(ratio)


def quantile(histogram: Mapping[int, float], q: float) -> int | None:
    """Return the bucket that holds the q-quantile (0..1) of a histogram of weights; None if it is empty."""
    left = q * math.fsum(histogram.values())
    bucket = None
    for bucket in sorted(histogram):
        left -= histogram[bucket]
        if left <= 0:
            break
    return bucket


def above(histogram: Histogram, bucket: int) -> int:
    """Count what lies in higher buckets."""
    return sum(n for b, n in histogram.items() if b > bucket)


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Both arms' quantiles in buckets, and their ratio with a rough 95 % interval."""

    candidate: float
    baseline: float
    ratio: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Tail:
    """An upper quantile `q` of one histogram (`ttft`, `tpot`, `stall`, `e2e`), its buckets in ascending order."""

    histogram: str
    q: float

    @property
    def needed(self) -> float:
        """Reference requests before there is such a quantile: 20 for the 95th percentile."""
        return 1 / (1 - self.q) - 1e-6

    def compare(self, stages: Sequence[tuple[Tally, Tally]]) -> Quantiles | None:
        """Compare (candidate, baseline), stage against itself, weighted n_c n_b / (n_c + n_b); None without a pair."""
        total, sums = 0.0, [0.0] * 4
        for candidate, baseline in stages:
            cells, others = candidate.histogram(self.histogram), baseline.histogram(self.histogram)
            if not (cells and others):
                continue
            n_c, n_b = sum(cells.values()), sum(others.values())
            weight = n_c * n_b / (n_c + n_b)
            (low_c, mid_c, high_c), (low_b, mid_b, high_b) = self._interval(cells), self._interval(others)
            total += weight
            for i, value in enumerate((mid_c, mid_b, low_c - high_b, high_c - low_b)):
                sums[i] += weight * value
        if not total:
            return None
        mid, base, low, high = (value / total for value in sums)
        return Quantiles(mid, base, GROWTH ** (mid - base), GROWTH**low, GROWTH**high)

    def _interval(self, histogram: Histogram) -> tuple[int, int, int]:
        """Return the quantile in buckets between its order-statistic bounds."""
        buckets = list(histogram)
        below = list(accumulate(histogram.values()))
        n = below[-1]
        slack = Z95 * math.sqrt(self.q * (1 - self.q) / n)
        low, mid, high = (
            buckets[min(bisect_left(below, q * n), len(below) - 1)] for q in (self.q - slack, self.q, self.q + slack)
        )
        return low, mid, high


@dataclass(frozen=True, slots=True)
class Memory:
    """What a tail test must remember between looks: JSON-plain, so that a restart changes nothing.

    `seen`: "stage|arm" -> the histogram as last counted; `reference`: weights of the baseline's recent buckets, decayed
    to `reference_time` (seconds); `events`: stage -> (candidate, baseline) events so far; `unexplained`: stage -> the
    same, but the candidate's are those that a shift of the whole latency did not explain, once one was known.
    """

    seen: Mapping[str, Histogram] = field(default_factory=dict)
    reference: Mapping[int, float] = field(default_factory=dict)
    reference_time: float = 0.0
    events: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    unexplained: Mapping[int, tuple[int, int]] = field(default_factory=dict)

    def events_of(self, stage: int) -> tuple[int, int]:
        """Return a stage's events so far: the candidate's, the baseline's."""
        return self.events.get(stage, (0, 0))

    def update(
        self, tail: Tail, margin: float, stages: Mapping[int, tuple[Tally, Tally]], now: float, shift: int | None = 0
    ) -> Memory:
        """Count what is new in (candidate, baseline) by stage against the reference of earlier looks, then add to it.

        `shift` is how many buckets slower the candidate is as a whole, as far as earlier looks know; while it is not
        known (None) nothing can be told from a slow machine. The same sums again change nothing, whatever `now`
        (seconds, any epoch); a clock that goes back counts as still.
        """
        seen, events, unexplained = dict(self.seen), dict(self.events), dict(self.unexplained)
        threshold = self._threshold(tail)
        fresh: dict[int, int] = {}
        for stage, (candidate, baseline) in sorted(stages.items()):
            new_c = _take(seen, f"{stage}|{Arm.CANDIDATE}", candidate.histogram(tail.histogram))
            new_b = _take(seen, f"{stage}|{Arm.BASELINE}", baseline.histogram(tail.histogram))
            for bucket, n in new_b.items():
                fresh[bucket] = fresh.get(bucket, 0) + n
            if threshold is not None and (new_c or new_b):
                limit = threshold + margin_buckets(margin)
                k_c, k_b = self.events_of(stage)
                events[stage] = (k_c + above(new_c, _below_top(threshold, limit)), k_b + above(new_b, threshold))
                if shift is not None:
                    k_c, k_b = self.unexplained.get(stage, (0, 0))
                    more = above(new_c, _below_top(threshold, limit + max(0, shift)))
                    unexplained[stage] = (k_c + more, k_b + above(new_b, threshold))
        reference, then = self._aged(fresh, now)
        return Memory(seen, reference, then, events, unexplained)

    def _threshold(self, tail: Tail) -> int | None:
        if math.fsum(self.reference.values()) < tail.needed:
            return None
        return quantile(self.reference, tail.q)

    def _aged(self, fresh: Histogram, now: float) -> tuple[Mapping[int, float], float]:
        """Return the reference decayed to now with `fresh` added; the old one where nothing is new."""
        if not fresh:
            return self.reference, self.reference_time
        clock = now if math.isfinite(now) else self.reference_time
        then = max(self.reference_time, clock) if self.reference else clock
        keep = DECAY ** ((then - self.reference_time) / 60) if self.reference else 0.0
        aged = {bucket: weight * keep for bucket, weight in self.reference.items() if weight * keep > 1e-6}  # noqa: PLR2004 - dust
        for bucket, n in fresh.items():
            aged[bucket] = aged.get(bucket, 0.0) + n
        return dict(sorted(aged.items())), then

    def to_plain(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "seen": {key: _plain(cells) for key, cells in self.seen.items()},
            "reference": _plain(self.reference),
            "reference_time": self.reference_time,
            "events": {str(stage): list(pair) for stage, pair in self.events.items()},
            "unexplained": {str(stage): list(pair) for stage, pair in self.unexplained.items()},
        }

    @classmethod
    def from_plain(cls, value: Mapping[str, Any]) -> Memory:
        """Read what `to_plain` wrote."""
        return cls(
            {key: _buckets(cells) for key, cells in value["seen"].items()},
            _buckets(value["reference"]),
            value["reference_time"],
            {int(stage): (pair[0], pair[1]) for stage, pair in value["events"].items()},
            {int(stage): (pair[0], pair[1]) for stage, pair in value.get("unexplained", {}).items()},
        )


def _below_top(threshold: int, limit: int) -> int:
    """Return the bucket above which an event lies: what never came always does, unless it is usual."""
    return min(limit, TOP - 1) if threshold < TOP else TOP


def _take(seen: dict[str, Histogram], key: str, now: Histogram) -> dict[int, int]:
    """Return what `now` has more than was seen, and remember it; what went missing counts as nothing."""
    before = seen.get(key, {})
    fresh = {bucket: n - before.get(bucket, 0) for bucket, n in now.items() if n > before.get(bucket, 0)}
    if fresh:
        seen[key] = {bucket: max(now.get(bucket, 0), before.get(bucket, 0)) for bucket in sorted({*now, *before})}
    return fresh


def _plain(cells: Mapping[int, float]) -> dict[str, float]:
    return {str(bucket): n for bucket, n in cells.items()}


def _buckets(cells: Mapping[str, Any]) -> dict[int, Any]:
    return {int(bucket): n for bucket, n in cells.items()}
