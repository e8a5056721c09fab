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

LEAST = 5  # buckets, 1.10: what a machine's noise of a minute does to a tail no shift of earlier blocks explains
DECAY = 0.933  # a minute: half of the reference is from the last ten
Z95 = 1.96
_LOG_GROWTH = math.log(GROWTH)

Histogram = Mapping[int, int]
Fresh = Mapping[int, tuple[Histogram, Histogram]]  # stage -> what is new of the candidate, of the baseline


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
            n_c, n_b = candidate.told(self.measured), baseline.told(self.measured)
            if not (n_c and n_b):
                continue
            weight = n_c * n_b / (n_c + n_b)
            (low_c, mid_c, high_c), (low_b, mid_b, high_b) = candidate.told(self.interval), baseline.told(self.interval)
            total += weight
            for i, value in enumerate((mid_c, mid_b, low_c - high_b, high_c - low_b)):
                sums[i] += weight * value
        if not total:
            return None
        mid, base, low, high = (value / total for value in sums)
        return Quantiles(mid, base, GROWTH ** (mid - base), GROWTH**low, GROWTH**high)

    def measured(self, arm: Tally) -> int:
        """Return how many requests have such a latency."""
        return sum(arm.histogram(self.histogram).values())

    def interval(self, arm: Tally) -> tuple[int, int, int]:
        """Return the quantile's bucket between its bounds (order statistics, 95 %); the arm must have a request."""
        histogram = arm.histogram(self.histogram)
        buckets = list(histogram)
        below = list(accumulate(histogram.values()))
        n = below[-1]
        slack = Z95 * math.sqrt(self.q * (1 - self.q) / n)
        low, mid, high = (
            buckets[min(bisect_left(below, q * n), len(below) - 1)] for q in (self.q - slack, self.q, self.q + slack)
        )
        return low, mid, high


@dataclass(frozen=True, slots=True)
class Recent:
    """One latency's histograms as last counted, and the baseline's recent ones: JSON-plain, for restarts.

    `seen`: "stage|arm" -> the histogram as last counted; `reference`: weights of the baseline's recent buckets, decayed
    to `reference_time` (seconds).
    """

    seen: Mapping[str, Histogram] = field(default_factory=dict)
    reference: Mapping[int, float] = field(default_factory=dict)
    reference_time: float = 0.0

    def threshold(self, tail: Tail) -> int | None:
        """Return the bucket of the baseline's recent quantile, None while there are too few requests for it."""
        if math.fsum(self.reference.values()) < tail.needed:
            return None
        return quantile(self.reference, tail.q)

    def take(self, latency: str, stages: Mapping[int, tuple[Tally, Tally]], now: float) -> tuple[Recent, Fresh]:
        """Return it with what is new in (candidate, baseline) by stage, and what that is.

        A stage is ~stage while its baseline is a control; what came before that was first seen is not compared with it.
        The same sums again change nothing, whatever `now` (seconds, any epoch); a clock that goes back counts as still.
        """
        seen, fresh, baseline = dict(self.seen), {}, dict[int, int]()
        for stage, (candidate, other) in sorted(stages.items()):
            mine = f"{max(stage, ~stage)}|{Arm.CANDIDATE}"
            begins = stage < 0 and mine in seen and f"{stage}|{Arm.BASELINE}" not in seen
            new_c = _take(seen, mine, candidate.histogram(latency))
            new_b = _take(seen, f"{stage}|{Arm.BASELINE}", other.histogram(latency))
            for number, n in new_b.items():
                baseline[number] = baseline.get(number, 0) + n
            if (new_c or new_b) and not begins:
                fresh[stage] = new_c, new_b
        return Recent(seen, *self._aged(baseline, now)), fresh

    def _aged(self, fresh: Histogram, now: float) -> tuple[Mapping[int, float], float]:
        """Return the reference decayed to now with `fresh` added; the old one where nothing is new."""
        if not fresh:
            return self.reference, self.reference_time
        clock = now if math.isfinite(now) else self.reference_time
        then = max(self.reference_time, clock) if self.reference else clock
        keep = DECAY ** ((then - self.reference_time) / 60) if self.reference else 0.0
        aged = {number: weight * keep for number, weight in self.reference.items() if weight * keep > 1e-6}  # noqa: PLR2004 - dust
        for number, n in fresh.items():
            aged[number] = aged.get(number, 0.0) + n
        return dict(sorted(aged.items())), then

    def to_plain(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "seen": {key: _plain(cells) for key, cells in self.seen.items()},
            "reference": _plain(self.reference),
            "reference_time": self.reference_time,
        }

    @classmethod
    def from_plain(cls, value: Mapping[str, Any]) -> Recent:
        """Read what `to_plain` wrote."""
        seen = {key: _buckets(cells) for key, cells in value["seen"].items()}
        return cls(seen, _buckets(value["reference"]), value["reference_time"])


@dataclass(frozen=True, slots=True)
class Memory:
    """What a tail test has counted, by stage: (candidate, baseline) `events` so far.

    Of the `unexplained` the candidate's are those that a shift of the whole latency, once known, did not explain.
    """

    events: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    unexplained: Mapping[int, tuple[int, int]] = field(default_factory=dict)

    def count(self, fresh: Fresh, threshold: int | None, margin: float, shift: int | None = 0) -> Memory:
        """Count what is new by stage against a threshold of earlier looks, the candidate's times the margin (a ratio).

        `shift` is how many buckets slower the candidate is as a whole, as far as earlier looks know; while it is not
        known (None) nothing can be told from a slow machine.
        """
        if threshold is None or not fresh:
            return self
        events, unexplained, wider = dict(self.events), dict(self.unexplained), margin_buckets(margin)
        limit, least = threshold + wider, threshold + max(LEAST, wider)
        for stage, (candidate, baseline) in fresh.items():
            k_b = above(baseline, threshold)
            _add(events, stage, above(candidate, _below_top(threshold, limit)), k_b)
            if shift is not None:
                _add(unexplained, stage, above(candidate, _below_top(threshold, least + max(0, shift))), k_b)
        return Memory(events, unexplained)

    def to_plain(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "events": {str(stage): list(pair) for stage, pair in self.events.items()},
            "unexplained": {str(stage): list(pair) for stage, pair in self.unexplained.items()},
        }

    @classmethod
    def from_plain(cls, value: Mapping[str, Any]) -> Memory:
        """Read what `to_plain` wrote."""
        return cls(_pairs(value["events"]), _pairs(value.get("unexplained", {})))


def _add(events: dict[int, tuple[int, int]], stage: int, candidate: int, baseline: int) -> None:
    before = events.get(stage, (0, 0))
    events[stage] = before[0] + candidate, before[1] + baseline


def _below_top(threshold: int, limit: int) -> int:
    """Return the bucket above which an event lies: what never came always does, unless it is usual."""
    return min(limit, TOP - 1) if threshold < TOP else TOP


def _take(seen: dict[str, Histogram], key: str, now: Histogram) -> dict[int, int]:
    """Return what `now` has more than was seen, and remember it; what went missing counts as nothing."""
    before = seen.get(key, {})
    if before == now:
        return {}
    fresh = {bucket: n - before.get(bucket, 0) for bucket, n in now.items() if n > before.get(bucket, 0)}
    if fresh:
        seen[key] = {bucket: max(now.get(bucket, 0), before.get(bucket, 0)) for bucket in sorted({*now, *before})}
    return fresh


def _plain(cells: Mapping[int, float]) -> dict[str, float]:
    return {str(bucket): n for bucket, n in cells.items()}


def _buckets(cells: Mapping[str, Any]) -> dict[int, Any]:
    return {int(bucket): n for bucket, n in cells.items()}


def _pairs(value: Mapping[str, Any]) -> dict[int, tuple[int, int]]:
    return {int(stage): (pair[0], pair[1]) for stage, pair in value.items()}
