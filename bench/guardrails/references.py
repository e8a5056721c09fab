"""References for many runs at once (`canary.core.reference`): hours in which the baseline's replicas were compared.

Drawn are sums of blocks, not requests: how many, their mean and their spread in log buckets, around what each replica's
own noise makes of the block.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields

import numpy as np

from bench.guardrails.bets import Floats, Ints
from bench.guardrails.places import Beliefs
from bench.guardrails.streams import LOG_GROWTH, Drift
from canary.core.location import _PRIOR_BASELINE, _PRIOR_CANDIDATE, Belief
from canary.core.noise import ASSUMED, Filter, all_laws, most_noise
from canary.core.reference import LONG_S
from canary.core.tally import BLOCK_S
from canary.trials.simulate import OwnNoise, Traffic

COUNTED = int(LONG_S / BLOCK_S)  # blocks of a reference
_SPARE = 10  # the first few only teach the spread
_LEVEL = 400.0  # buckets; any


@dataclass(frozen=True, slots=True)
class Halves:
    """One block of every run: requests, sums of buckets and of buckets squared, by (run, half)."""

    n: Ints
    k: Ints
    kk: Ints


def blocks(
    rate: float, sd: float, noise: tuple[float, float] | None, chance: np.random.Generator, runs: int
) -> Iterator[Halves]:
    """Yield blocks without end; `sd` is of one request's log latency, `noise` (sd, tau) of one replica's own."""
    own = None if noise is None else [Drift(runs, noise[1] / BLOCK_S, chance) for _ in range(2)]
    while True:
        n = np.maximum(1, chance.poisson(rate * BLOCK_S / 2, (runs, 2)))
        level: Floats = np.full((runs, 2), _LEVEL)
        if own is not None and noise is not None:
            level = level + noise[0] / LOG_GROWTH * np.stack([drift.next() for drift in own], axis=1)
        spread = sd / LOG_GROWTH
        k = np.rint(n * level + np.sqrt(n) * spread * chance.standard_normal((runs, 2))).astype(np.int64)
        squares = spread**2 * chance.chisquare(np.maximum(1, n - 1))
        yield Halves(n, k, np.rint(squares + k * k / n).astype(np.int64))


class References:
    """One latency's reference of every run."""

    def __init__(self, noise: float, runs: int) -> None:
        self._laws = all_laws(most_noise(noise, 1, 1))
        fresh = Filter.fresh(self._laws)
        self._seen = Filter(*(np.tile(getattr(fresh, field.name), (runs, 1)) for field in fields(Filter)))
        self._squares, self._df = np.zeros((runs, 2)), np.zeros((runs, 2), np.int64)
        self._prior: Floats = np.full(runs, np.nan)
        self.blocks: Ints = np.zeros(runs, np.int64)

    def take(self, halves: Halves) -> None:
        """Add a block, ten seconds after the last; a run that has enough takes no more."""
        n, k = halves.n, halves.k
        open_ = self.blocks < COUNTED
        rows = np.flatnonzero(open_ & ~np.isnan(self._prior))
        if rows.size:
            mean = k[rows] / n[rows] * LOG_GROWTH
            self._step(rows, mean[:, 0] - mean[:, 1], self._sampling(rows, n[rows]))
        more = np.maximum(0, n * halves.kk - k * k) / n * LOG_GROWTH**2
        self._squares += np.where(open_[:, None], more, 0.0)
        self._df += np.where(open_[:, None], n - 1, 0)
        learned = np.isnan(self._prior) & (self._df[:, 1] >= _PRIOR_BASELINE)
        self._prior = np.where(learned, self._squares[:, 1] / np.maximum(1, self._df[:, 1]), self._prior)

    def _sampling(self, rows: Ints, n: Ints) -> Floats:
        prior, squares, df = self._prior[rows], self._squares[rows], self._df[rows]
        baseline = (_PRIOR_BASELINE * prior + squares[:, 1]) / (_PRIOR_BASELINE + df[:, 1])
        candidate = (_PRIOR_CANDIDATE * baseline + squares[:, 0]) / (_PRIOR_CANDIDATE + df[:, 0])
        return candidate / n[:, 0] + baseline / n[:, 1]

    def _step(self, rows: Ints, y: Floats, r: Floats) -> None:
        first = self.blocks[rows] == 0
        for dt, which in ((0.0, first), (BLOCK_S, ~first)):
            some = rows[which]
            if some.size:
                old = Filter(*(getattr(self._seen, field.name)[some] for field in fields(Filter)))
                new = old.step(self._laws, y[which, None], r[which, None], dt)  # type: ignore[arg-type]
                for field in fields(Filter):
                    getattr(self._seen, field.name)[some] = getattr(new, field.name)
        self.blocks[rows] += 1

    def beliefs(self) -> Beliefs:
        """Return what each has told."""
        told = [Belief.of_reference(level, ASSUMED) for level in self._seen.level]
        return Beliefs.of(told, (self._squares[:, 1] / self._df[:, 1]).tolist(), ASSUMED)


def referred(
    traffic: Traffic, noise: OwnNoise | None, most: Mapping[str, float], runs: int, chance: np.random.Generator
) -> dict[str, Beliefs]:
    """Return six hours' beliefs of every run by latency, under noise of the replicas' own or none."""
    found = {}
    for latency, sd in (("ttft", traffic.ttft_sd), ("tpot", traffic.tpot_sd)):
        own = None if noise is None else (getattr(noise, f"{latency}_sd"), noise.tau)
        told = References(most[latency], runs)
        for _, halves in zip(range(COUNTED + _SPARE), blocks(traffic.rate, sd, own, chance, runs), strict=False):
            told.take(halves)
        if not math.isclose(told.blocks.min(), COUNTED):
            raise RuntimeError(f"a reference of {told.blocks.min()} blocks where {COUNTED} were meant")
        found[latency] = told.beliefs()
    return found
