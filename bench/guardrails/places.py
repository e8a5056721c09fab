"""The product's location test for many runs at once (`canary.core.location`): blocks, filters, evidence.

The filters are the product's own (`canary.core.noise.Filter`), whose arrays take a leading axis over runs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from bench.guardrails.bets import BASELINE, CANDIDATE, Bools, Floats, Ints, beyond, log_sum, restarted
from canary.core.course import _DOUBT, _HALF_LIFE_S
from canary.core.location import _PRIOR_BASELINE, _PRIOR_CANDIDATE, WORSE, Belief
from canary.core.noise import USUAL, Filter, all_laws, most_noise
from canary.core.signals.sight import Z95
from canary.core.tally import BLOCK_S, GROWTH

_LOG_GROWTH = math.log(GROWTH)
_RING = 16  # blocks that are open or may still be written to
_BLOCK = int(BLOCK_S)


@dataclass(frozen=True, slots=True)
class Beliefs:
    """A `location.Belief` each run: log weights and what is possible, by (run, law).

    `variances` are those of one request as a reference has told them, by run; NaN: not known. Only laws that are
    assumed are here: the others have no part in FAIL.
    """

    log_weights: Floats
    possible: Bools
    variances: Floats

    @classmethod
    def of(cls, beliefs: Sequence[Belief], variances: Sequence[float], laws: int) -> Beliefs:
        """Return the first so many laws of beliefs."""
        weights, possible = ([getattr(b, name)[:laws] for b in beliefs] for name in ("log_weights", "possible"))
        return cls(np.stack(weights), np.stack(possible), np.array(variances))


def without_reference(runs: int) -> Beliefs:
    """Return the product's own belief without a reference, for each run."""
    return Beliefs.of([Belief.without_reference(all_laws(1.0))] * runs, [math.nan] * runs, USUAL)


class Places:
    """One latency's blocks and what they have told, by run."""

    def __init__(self, noise: float, grace_s: float, beliefs: Beliefs, planned: int) -> None:
        runs = len(beliefs.variances)
        self._grace, self._planned, self._beliefs = grace_s, planned, beliefs
        self._laws = all_laws(most_noise(noise, 1, 1))[: beliefs.possible.shape[1]]
        self._open = np.zeros((_RING, 3, runs, 2), np.int64)
        self._whole, self._present = self._fresh(runs), self._fresh(runs)
        self._begun: Bools = np.zeros(runs, bool)  # the present stage has told a difference
        self._stage = 0
        self._ended: list[Floats] = []
        self._prior: Floats = beliefs.variances.copy()
        self._squares: Floats = np.zeros((runs, 2))
        self._df: Ints = np.zeros((runs, 2), np.int64)
        self._counted: Floats = np.zeros(runs)
        self.blocks: Ints = np.zeros(runs, np.int64)
        self._lean: Floats = np.zeros((runs, 2))
        self.log_e: Floats = np.zeros(runs)

    @property
    def shift(self) -> Floats:
        """`Course.shift` by run."""
        return np.maximum(0.0, self._lean[:, 1] / (self._lean[:, 0] + _DOUBT))

    def noise(self, rows: Ints) -> Floats:
        """`Course.noise` of some runs."""
        sigmas = np.array([law.sigma for law in self._laws])
        found: Floats = np.where(self._beliefs.possible[rows], sigmas, 0.0).max(axis=1)
        return found

    def take(self, cells: Ints, blocks: Ints, buckets: Ints) -> None:
        """Count requests in the blocks that drew them; `cells` are 2 run + arm."""
        size = self._open[0, 0].size
        index = blocks % _RING * size + cells
        for word, weights in enumerate((None, buckets, buckets * buckets)):
            found = np.bincount(index, weights, minlength=_RING * size).reshape(_RING, *self._open.shape[2:])
            self._open[:, word] += found.astype(np.int64)

    def close(self, second: int, stage_of: Ints) -> None:
        """Take the block whose time has come after so many seconds, if one has; `stage_of` a block's number."""
        start = second - _BLOCK - int(self._grace)
        if start < 0 or start % _BLOCK:
            return
        number = start // _BLOCK
        slot = number % _RING
        self._add(start, int(stage_of[number]), *self._open[slot])

    def clear(self, second: int) -> None:
        """Make room for the block that begins now."""
        if second % _BLOCK == 0:
            self._open[second // _BLOCK % _RING] = 0

    def beyond(self, rows: Ints, margin: float, stage: int) -> Bools:
        """Tell whether the whole is slower than a margin in log units, since the start or in the present stage."""
        (pooled, _), (theta, error) = (self._effect(seen, rows) for seen in (self._whole, self._present))
        told = self._begun[rows] & (self._stage == stage)
        return (self.blocks[rows] > 0) & beyond(margin, pooled, np.where(told, theta - Z95 * error, -np.inf))

    def _add(self, start: int, stage: int, n: Ints, k: Ints, kk: Ints) -> None:
        if stage != self._stage:
            self._ended.append(np.where(self._begun, self._slower(self._present), 0.0))
            self._present, self._begun[:], self._stage = self._fresh(len(self.blocks)), False, stage
        ready = ~np.isnan(self._prior) & (n.min(axis=1) > 0)
        some = np.maximum(n, 1)
        mean = k / some * _LOG_GROWTH
        y, r = mean[:, CANDIDATE] - mean[:, BASELINE], self._sampling(some)
        self._spread(n, np.maximum(0, n * kk - k * k) / some * _LOG_GROWTH**2)
        if ready.any():
            self._step(start, ready, y, r, n[:, CANDIDATE])
            told = self._told()
            self.log_e = np.where(self.blocks > 0, told, 0.0)

    def _sampling(self, n: Ints) -> Floats:
        """Return `Spread.of`: the sampling variance of each run's difference."""
        prior = np.nan_to_num(self._prior)
        few, many = _PRIOR_CANDIDATE, _PRIOR_BASELINE
        baseline = (many * prior + self._squares[:, BASELINE]) / (many + self._df[:, BASELINE])
        candidate = (few * baseline + self._squares[:, CANDIDATE]) / (few + self._df[:, CANDIDATE])
        least = _LOG_GROWTH**2 / 12
        return np.maximum(least, candidate) / n[:, CANDIDATE] + np.maximum(least, baseline) / n[:, BASELINE]

    def _spread(self, n: Ints, squares: Floats) -> None:
        self._squares += squares
        self._df += np.maximum(0, n - 1)
        learned = np.isnan(self._prior) & (self._df[:, BASELINE] >= _PRIOR_BASELINE)
        own = self._squares[:, BASELINE] / np.maximum(1, self._df[:, BASELINE])
        self._prior = np.where(learned, own, self._prior)

    def _step(self, start: int, ready: Bools, y: Floats, r: Floats, n: Ints) -> None:
        since = np.where(self.blocks > 0, start - self._counted, 0.0)
        for dt in np.unique(since[ready]):
            rows = np.flatnonzero(ready & (since == dt))
            self._whole = self._stepped(self._whole, rows, y, r, float(dt))
            self._present = self._stepped(self._present, rows, y, r, float(dt))
            keep = 0.5 ** (dt / _HALF_LIFE_S)
            self._lean[rows] = self._lean[rows] * keep + np.stack([n[rows], n[rows] * y[rows]], axis=1)
        self._counted[ready] = start
        self.blocks += ready
        self._begun |= ready

    def _stepped(self, seen: Filter, rows: Ints, y: Floats, r: Floats, dt: float) -> Filter:
        every = len(rows) == len(y)
        old = seen if every else Filter(*(getattr(seen, field.name)[rows] for field in fields(Filter)))
        new = old.step(self._laws, y[rows, None], r[rows, None], dt)  # type: ignore[arg-type]
        if every:
            return new
        for field in fields(Filter):
            getattr(seen, field.name)[rows] = getattr(new, field.name)
        return seen

    def _fresh(self, runs: int) -> Filter:
        fresh = Filter.fresh(self._laws)
        return Filter(*(np.tile(getattr(fresh, field.name), (runs, 1)) for field in fields(Filter)))

    def _told(self) -> Floats:
        """Return `Course.log_e`. A stage that has told nothing yet counts E = 1, as one to come."""
        whole = self._slower(self._whole)
        if self._planned <= 1:
            return whole
        present = np.where(self._begun, self._slower(self._present), 0.0) if self._ended else whole
        return restarted(whole, [*self._ended, present], self._planned)

    def _slower(self, seen: Filter) -> Floats:
        """Return `location.log_e_slower`."""
        thetas = WORSE
        logs = (self._beliefs.log_weights + seen.level)[..., None] + seen.slope[..., None] * thetas
        logs -= seen.info[..., None] * (thetas * thetas / 2)
        mixture = log_sum(logs.reshape(len(logs), -1)) - math.log(len(thetas))
        harmless = np.where(self._beliefs.possible, seen.best_up_to(0.0), -np.inf)
        found: Floats = mixture - harmless.max(axis=1)
        return found

    def _effect(self, seen: Filter, rows: Ints) -> tuple[Floats, Floats]:
        """Return `location.effect` of some runs: the estimate and its standard error."""
        slopes, infos, levels = seen.slope[rows], seen.info[rows], seen.level[rows]
        peak = np.divide(slopes**2, 2 * infos, out=np.zeros_like(slopes), where=infos > 0)
        likely = np.where(self._beliefs.possible[rows], self._beliefs.log_weights[rows] + levels + peak, -np.inf)
        j = np.argmax(likely, axis=1)[:, None]
        slope, info = (np.take_along_axis(of, j, axis=1)[:, 0] for of in (slopes, infos))
        known = np.where(info > 0, info, 1.0)
        return np.where(info > 0, slope / known, 0.0), np.where(info > 0, 1 / np.sqrt(known), np.inf)
