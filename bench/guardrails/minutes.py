"""What a metrics system keeps of many runs: a minute's counts and histograms by arm, and sums since the start."""

from __future__ import annotations

import numpy as np

from bench.guardrails.bets import Bools, Floats, Ints
from bench.guardrails.streams import Second
from canary.core.tally import COST_GRID, TOP

_CELLS = TOP + 1
_ONE = np.int32(1)
LATENCIES = ("ttft", "tpot")
KEPT = 5  # minutes of histograms


class Sums:
    """Of some measurement, by (run, arm): how many, the sum, the sum of squares."""

    def __init__(self, runs: int) -> None:
        self.n, self.x, self.xx = (np.zeros((runs, 2)) for _ in range(3))

    def take(self, cells: Ints, x: Floats | Ints) -> None:
        """Add measurements; `cells` are 2 run + arm."""
        self.n += self._added(cells, None)
        self.x += self._added(cells, x)
        self.xx += self._added(cells, x * x)

    def _added(self, cells: Ints, weights: Floats | Ints | None) -> Floats:
        return np.bincount(cells, weights, minlength=self.n.size).reshape(self.n.shape).astype(float)

    @property
    def z(self) -> Floats:
        """Welch's statistic, candidate over baseline, by run; 0 while it has none."""
        n = np.maximum(2.0, self.n)
        mean = self.x / n
        variance = np.maximum(0.0, self.xx / n - mean**2) / (n - 1)
        error = np.sqrt(variance.sum(axis=1))
        known = (self.n.min(axis=1) >= 2) & (error > 0)
        return np.where(known, (mean[:, 1] - mean[:, 0]) / np.where(known, error, 1.0), 0.0)


class Minutes:
    """Every minute that is over, newest last; arrays by (run, arm), arm 1 the candidate."""

    def __init__(self, runs: int) -> None:
        self._shape = (runs, 2)
        self._histograms: dict[str, list[np.ndarray[tuple[int, ...], np.dtype[np.int32]]]] = {
            latency: [] for latency in LATENCIES
        }
        self._done: list[Ints] = []
        self._failed: list[Ints] = []
        self._cost: list[Floats] = []
        self.sums = {word: Sums(runs) for word in ("failed", *LATENCIES, "cost")}
        self._begin()

    def take(self, second: Second) -> bool:
        """Add a second, and tell whether a minute is over."""
        if second.number % 60 == 1 and second.number > 1:
            self._begin()
        reports = second.reports
        cells, timed = 2 * reports.run + reports.arm, reports.timed
        for sums, where in ((self._done, cells), (self._failed, cells[reports.failed])):
            sums[-1] += np.bincount(where, minlength=sums[-1].size).reshape(self._shape)
        dollars = reports.cost[reports.priced] / COST_GRID
        spent = np.bincount(cells[reports.priced], dollars, minlength=self._cost[-1].size)
        self._cost[-1] += spent.reshape(self._shape)
        for latency in LATENCIES:
            buckets = getattr(reports, latency)[timed]
            np.add.at(self._histograms[latency][-1].reshape(-1), cells[timed] * _CELLS + buckets, _ONE)
            self.sums[latency].take(cells[timed], buckets)
        self.sums["failed"].take(cells, reports.failed.astype(float))
        self.sums["cost"].take(cells[reports.priced], dollars)
        return second.number % 60 == 0

    def errors(self, last: int = 1) -> Floats:
        """Return the rate of errors in the last minutes; 0 without a request."""
        done: Ints = np.sum(self._done[-last:], axis=0)
        found: Floats = np.sum(self._failed[-last:], axis=0) / np.maximum(1, done)
        return found

    def cost(self) -> Floats:
        """Return the last minute's USD a request; 0 without one."""
        found: Floats = self._cost[-1] / np.maximum(1, self._done[-1] - self._failed[-1])
        return found

    def quantile(self, latency: str, q: float, last: int = 1) -> Ints:
        """Return a quantile of the last minutes in log buckets, at most five; 0 without a request."""
        so_far = np.cumsum(np.sum(self._histograms[latency][-last:], axis=0), axis=-1)
        found: Ints = (so_far >= np.maximum(1e-9, q * so_far[..., -1:])).argmax(axis=-1)
        return found

    def measured(self, last: int = 1) -> Bools:
        """Tell which runs had requests in both arms in the last minutes."""
        found: Bools = np.all(np.sum(self._done[-last:], axis=0) > 0, axis=1)
        return found

    def _begin(self) -> None:
        self._done.append(np.zeros(self._shape, np.int64))
        self._failed.append(np.zeros(self._shape, np.int64))
        self._cost.append(np.zeros(self._shape))
        for kept in self._histograms.values():
            kept.append(np.zeros((*self._shape, _CELLS), np.int32))
            del kept[:-KEPT]
