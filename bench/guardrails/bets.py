"""The product's evidence for many runs at once: formulas of `canary.core.bounds` with a leading axis over runs.

Axes: runs, stages, arms (0 the baseline, 1 the candidate). Held to the originals by tests/bench/guardrails.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr

from canary.core import bounds, ratios
from canary.core.signals.sight import Z95

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
BASELINE, CANDIDATE = 0, 1


def log_mean(logs: Floats) -> Floats:
    """Return ln of the mean of exp over the last axis."""
    return log_sum(logs) - math.log(logs.shape[-1])


def log_sum(logs: Floats) -> Floats:
    """Return ln of the sum of exp over the last axis; -inf where all are."""
    top = np.max(logs, axis=-1, keepdims=True)
    safe = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        found: Floats = safe[..., 0] + np.log(np.sum(np.exp(logs - safe), axis=-1))
    return found


def beyond(margin: float, pooled: Floats, late: Floats) -> Bools:
    """Return `Sight.beyond`: that of all stages, or the lower limit of the present one's."""
    found: Bools = (pooled > margin) | (late > margin)
    return found


def restarted(whole: Floats, starts: Sequence[Floats], planned: int) -> Floats:
    """Return `bounds.restarted`: half the whole process, half the average of one from each planned stage on."""
    told = [whole, *starts[:planned]]
    told += [np.zeros_like(whole)] * (planned + 1 - len(told))
    return log_sum(np.stack(told, axis=-1) + np.log([0.5, *[0.5 / planned] * planned]))


class Events:
    """`bounds.log_e_more` for stages of known shares."""

    def __init__(self, shares: Sequence[float], planned: int) -> None:
        self._planned = planned
        totals = [share * bounds.WORSE + 1 - share for share in shares]
        self._logs = np.stack([np.stack([-np.log(t), np.log(bounds.WORSE / t)]) for t in totals])

    def log_e(self, counts: Ints) -> Floats:
        """Return ln E for events by (run, stage, arm)."""
        logs: Floats = np.zeros((len(counts), len(bounds.WORSE)))
        starts = []
        for stage in reversed(range(counts.shape[1])):
            logs = logs + counts[:, stage] @ self._logs[stage]
            starts.append(log_mean(logs))
        return restarted(starts[-1], starts[::-1], self._planned)


class Ratio:
    """`ratios.log_ratio` and `log_e_ratio` for sums n, x, y, xx, yy, xy, each by (run, stage, arm).

    `leans` are the groups' of `ratios.Sums`, by (run, stage, arm, group).
    """

    def __init__(
        self,
        *,
        n: Floats,
        x: Floats,
        y: Floats,
        xx: Floats,
        yy: Floats,
        xy: Floats,
        leans: Floats | None = None,
        requests: Floats | None = None,
    ) -> None:
        good = (n >= ratios.MIN_UNITS_A_STAGE) & (x > 0) & (y > 0)
        n, x, y = np.where(good, n, 2.0), np.where(good, x, 1.0), np.where(good, y, 1.0)
        ratio = x / y
        spread = (xx - 2 * ratio * xy + ratio * ratio * yy) / (n - 1) / (x / n) ** 2
        variance = np.maximum(spread, ratios.SPREAD_FLOOR**2) / n
        usable: Bools = np.all(good, axis=-1)
        effects = np.log(ratio[..., CANDIDATE]) - np.log(ratio[..., BASELINE])
        precision = np.where(usable, 1 / variance.sum(axis=-1), 0.0)
        # From each stage on: cumulative sums from the last stage to the first.
        self._precision = _onward(precision)
        self._pull = _onward(precision * effects)
        self._n = _onward(np.where(usable[..., None], n, 0.0))
        self._requests = _onward(np.where(usable, (n if requests is None else requests)[..., CANDIDATE], 0.0))
        self._shared = np.zeros_like(precision)
        if leans is not None and precision.shape[1] > 1:
            apart = (leans[..., CANDIDATE, :] - leans[..., BASELINE, :]) * precision[..., None]
            known = np.where(self._precision > 0, self._precision, 1.0)
            more = (_onward(apart) ** 2).sum(axis=-1) - _onward((apart**2).sum(axis=-1))
            self._shared = np.maximum(0.0, more) / known**2

    def beyond(self, rows: Ints, margin: float, stage: int) -> Bools:
        """Tell whether the ratio is beyond its margin, since the start or in the present stage (`read_mean`)."""
        (known, pooled, _), (_, _, late) = (self._since(rows, first) for first in (0, stage))
        return known & beyond(math.log(margin), pooled, late)

    def _since(self, rows: Ints, first: int) -> tuple[Bools, Floats, Floats]:
        """Return whether both arms have had enough since a stage began, the log ratio and its lower limit."""
        known: Bools = np.less_equal(ratios.MIN_UNITS, self._n[rows, first].min(axis=-1))
        precision = np.where(known, self._precision[rows, first], 1.0)
        estimate = np.where(known, self._pull[rows, first] / precision, -np.inf)
        return known, estimate, estimate - Z95 * np.sqrt(1 / precision + self._shared[rows, first])

    def log_e(self, planned: int) -> Floats:
        """Return ln E that the candidate's is higher."""
        enough = self._n.min(axis=-1) >= ratios.MIN_UNITS
        precision = np.where(enough, self._precision, 1.0)
        z = self._pull / precision / np.sqrt(1 / precision + self._shared)
        nu = np.where(enough, self._n.min(axis=-1) - 1, 1.0)
        logs = np.where(enough, student(z, nu, 15 * self._requests / 1000), 0.0)
        return restarted(logs[:, 0], list(logs.T), planned)


def _onward(values: Floats) -> Floats:
    return values[:, ::-1].cumsum(axis=1)[:, ::-1] if values.shape[1] > 1 else values


def student(z: Floats, nu: Floats, t: Floats) -> Floats:
    """Return `ratios.log_e_student`."""
    square = z * z
    growth = (nu + 1) / 2 * (np.log1p(square / nu) - np.log1p(square / (nu * (1 + t))))
    found: Floats = math.log(2) - np.log1p(t) / 2 + growth + log_ndtr(z * np.sqrt(t / (1 + t)))
    return found


class Pairs:
    """`bounds.log_e_pairs` with sign -1 at 0: wealth by stake, which grows with each pair."""

    def __init__(self, runs: int) -> None:
        unit = bounds.PAIR_UNIT
        self._gains = np.log1p(np.outer(np.arange(-unit, unit + 1) / unit, -bounds.STAKES))
        self._wealth: Floats = np.zeros((runs, len(bounds.STAKES)))
        self.n: Ints = np.zeros(runs, np.int64)
        self.total: Ints = np.zeros(runs, np.int64)
        self.log_e: Floats = np.zeros(runs)

    def take(self, runs: Ints, d: Ints) -> None:
        """Add pairs: their runs in ascending order, and 1000 times the difference of scores."""
        if not len(runs):
            return
        starts = np.flatnonzero(np.diff(runs, prepend=-1))
        which = runs[starts]
        self._wealth[which] += np.add.reduceat(self._gains[d + bounds.PAIR_UNIT], starts, axis=0)
        self.total[which] += np.add.reduceat(d, starts)
        self.n[which] += np.diff(starts, append=len(runs))
        self.log_e[which] = log_mean(self._wealth[which])

    def beyond(self, rows: Ints, margin: float) -> Bools:
        """Tell whether the mean is below the margin; without a pair it is not."""
        mean = self.total[rows] / bounds.PAIR_UNIT / np.maximum(1, self.n[rows])
        return (self.n[rows] > 0) & (mean < margin)
