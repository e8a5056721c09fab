"""The product's tails for many runs at once (`canary.core.tails`): thresholds of earlier looks, events beyond them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.guardrails.bets import BASELINE, CANDIDATE, Bools, Events, Floats, Ints, beyond
from canary.core.signals.latency import least_bounded
from canary.core.signals.sight import Z95
from canary.core.tails import DECAY, LEAST, Tail, margin_buckets, margin_ratio
from canary.core.tally import GROWTH, TOP

_CELLS = TOP + 1
_NEVER = TOP + 1
_ONE = np.int32(1)  # of the counts' own kind: numpy adds it forty times as fast


class Timed(NamedTuple):
    """Requests with a latency: their run, arm, stage and block of assignment, and its log bucket."""

    run: Ints
    arm: Ints
    stage: Ints
    block: Ints
    bucket: Ints


class Quantile:
    """The q-quantile of each run's histogram of weights, followed as weights are added: a bucket, and what it holds."""

    def __init__(self, q: float, weights: Floats) -> None:
        self._q, self._weights = q, weights.reshape(-1)
        self._first = np.arange(len(weights)) * _CELLS
        self.at: Ints = np.zeros(len(weights), np.int64)
        self._under: Floats = np.zeros(len(weights))

    def add(self, runs: Ints, buckets: Ints, weight: float) -> None:
        """Take what was added to the weights."""
        self._under += weight * np.bincount(runs[buckets <= self.at[runs]], minlength=len(self.at))

    def settle(self, totals: Floats) -> None:
        """Move to the first bucket at which the weights so far reach q of their totals."""
        need = self._q * totals * (1 - 1e-12)
        rows = np.flatnonzero(self._under < need)
        while rows.size:
            self.at[rows] += 1
            self._under[rows] += self._here(rows)
            rows = rows[self._under[rows] < need[rows]]
        rows = np.arange(len(need))
        while (rows := rows[(self.at[rows] > 0) & (self._under[rows] - self._here(rows) >= need[rows])]).size:
            self._under[rows] -= self._here(rows)
            self.at[rows] -= 1

    def _here(self, rows: Ints) -> Floats:
        found: Floats = self._weights.take(self._first[rows] + self.at[rows])
        return found


class Tails:
    """One latency's tails: its histograms by (stage, run, arm), the baseline's decayed reference, events by tail."""

    def __init__(self, tails: Sequence[tuple[Tail, float]], runs: int, shares: Sequence[float], planned: int) -> None:
        self._tails = tails
        self._counts = np.zeros((len(shares), 2 * runs, _CELLS), np.int32)
        self._reference: Floats = np.zeros((runs, _CELLS))
        self._totals: Floats = np.zeros(runs)
        self._weight: Floats = np.ones(runs)  # of a request in the last second that brought one
        self._quantiles = [Quantile(tail.q, self._reference) for tail, _ in tails]
        self._events = Events(shares, planned)
        self.events = [np.zeros((runs, len(shares), 2), np.int64) for _ in tails]
        self.log_e: list[Floats] = [np.zeros(runs) for _ in tails]

    def take(self, timed: Timed, shift: Ints, known: Bools, second: int) -> None:
        """Count a second's requests against thresholds of before; `shift` in buckets, where it is `known`."""
        runs, arms, stages, buckets = timed.run, timed.arm, timed.stage, timed.bucket
        cells = 2 * runs + arms
        np.add.at(self._counts.reshape(-1), (stages * self._counts.shape[1] + cells) * _CELLS + buckets, _ONE)
        for number, (tail, margin) in enumerate(self._tails):
            limits = self._limits(number, tail, margin, shift, known)
            hits = np.flatnonzero(buckets > limits[cells])
            if hits.size:
                np.add.at(self.events[number], (runs[hits], stages[hits], arms[hits]), 1)
                rows = np.unique(runs[hits])
                self.log_e[number][rows] = self._events.log_e(self.events[number][rows])
        self._learn(runs[arms == BASELINE], buckets[arms == BASELINE], second)

    def _limits(self, number: int, tail: Tail, margin: float, shift: Ints, known: Bools) -> Ints:
        """Return the bucket above which an event lies, by cell."""
        at = self._quantiles[number].at
        ready = known & (self._totals / self._weight >= tail.needed)
        limits = np.empty((len(at), 2), np.int64)
        limits[:, BASELINE] = at
        wider = max(LEAST, margin_buckets(margin))
        limits[:, CANDIDATE] = np.where(at < TOP, np.minimum(at + wider + shift, TOP - 1), TOP)
        limits[~ready] = _NEVER
        return limits.reshape(-1)

    def _learn(self, runs: Ints, buckets: Ints, second: int) -> None:
        """Add to the reference. Instead of the old ones fading, the new ones weigh more."""
        weight = DECAY ** (-second / 60)
        np.add.at(self._reference.reshape(-1), runs * _CELLS + buckets, weight)
        fresh = np.bincount(runs, minlength=len(self._totals))
        self._totals += weight * fresh
        self._weight[fresh > 0] = weight
        for quantile in self._quantiles:
            quantile.add(runs, buckets, weight)
            quantile.settle(self._totals)

    def beyond(self, number: int, rows: Ints, stage: int, noise: Floats) -> Bools:
        """Tell whether the quantile lies beyond the margin, since the start or in the present stage (`read_tail`).

        `noise` is the most of the machines' own that is possible, by row.
        """
        tail, margin = self._tails[number]
        total, lead = np.zeros(len(rows)), np.zeros(len(rows))
        for counts in self._counts:
            n, at = self._measure(counts, rows, tail.q, 0.0)
            both = n.min(axis=-1) > 0
            weight = np.where(both, n.prod(axis=-1) / np.maximum(1, n.sum(axis=-1)), 0.0)
            total += weight
            lead += weight * (at[:, CANDIDATE] - at[:, BASELINE])
        n, at = self._measure(self._counts[stage], rows, tail.q, Z95)
        least = np.where(n.min(axis=-1) >= least_bounded(tail.q), at[:, CANDIDATE] - at[:, BASELINE], -np.inf)
        pooled = lead / np.where(total > 0, total, 1.0)
        beyond_noise = np.exp(-Z95 * noise)
        most = margin_ratio(margin) * (1 + 1e-9)
        return (total > 0) & beyond(most, GROWTH**pooled * beyond_noise, GROWTH**least * beyond_noise)

    @staticmethod
    def _measure(counts: NDArray[np.int32], rows: Ints, q: float, z: float) -> tuple[Floats, Ints]:
        """Return both arms' numbers of requests and quantiles in one stage, by run and arm.

        The baseline's is an upper limit, the candidate's a lower one, so many standard errors from the q-quantile.
        """
        cells = (2 * rows[:, None] + np.array([BASELINE, CANDIDATE])).reshape(-1)
        so_far = counts[cells].cumsum(axis=1)
        n = so_far[:, -1].reshape(-1, 2).astype(float)
        slack = z * np.sqrt(q * (1 - q) / np.maximum(1.0, n)) * np.array([1.0, -1.0])
        at = (so_far >= ((q + slack) * n).reshape(-1, 1)).argmax(axis=1)
        return n, at.reshape(-1, 2)


def whole_buckets(shift: Floats) -> Ints:
    """Return a shift in log units as buckets, rounded up."""
    return np.ceil(shift / math.log(GROWTH)).astype(np.int64)
