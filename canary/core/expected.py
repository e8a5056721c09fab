"""A guardrail's evidence at the sums that are expected after some stretches, for and against.

Each test of `bounds.py` is asked at expected sums, so nothing is derived twice: their formulas hold for any number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import cast

import numpy as np
from scipy.special import log_ndtr, ndtr, ndtri

from canary.core import bounds, ratios
from canary.core.bounds import Events
from canary.core.premise import Case, Stretch
from canary.core.ratios import Sums
from canary.core.tails import margin_ratio

BOTH_WAYS = "output_length"


def passing(case: Case, stretches: Sequence[Stretch]) -> float:
    """Ln E for an equal candidate, at the margin; of a latency the quantile's, where the arms are loaded alike."""
    unit, margin = case.signal.unit, case.guard.margin
    if case.signal.tail:
        return bounds.log_e_fewer(_tail_events(case, [one for one in stretches if case.matched(one)], 1.0))
    if unit == "rate":
        return bounds.log_e_within(_rate_events(case, stretches, 0.0), margin)
    if unit == "ratio":
        ways = (1, -1) if case.guard.name == BOTH_WAYS else (1,)
        means = _means(case, stretches, 1.0)
        return min(ratios.log_e_ratio(means, margin**way, sign=-way) for way in ways)
    if unit == "difference":
        return bounds.log_e_pairs(bounds.paired(_pairs(case, stretches, 0.0)), margin, sign=+1)
    n, most, usual, _ = _of_one(case, stretches)
    return bounds.log_e_under(_count(n * usual), _count(n), most)


def failing(case: Case, stretches: Sequence[Stretch]) -> float:
    """Ln E against a candidate that is worse by the effect."""
    unit, planned = case.signal.unit, case.policy.stages
    if case.signal.tail:
        return bounds.with_restarts(bounds.log_e_more, _tail_events(case, stretches, case.effect), planned)
    if unit == "rate":
        return bounds.with_restarts(bounds.log_e_more, _rate_events(case, stretches, case.effect), planned)
    if unit == "ratio":
        more = bounds.with_restarts(partial(ratios.log_e_ratio, sign=+1), _means(case, stretches, case.effect), planned)
        return more - (math.log(2) if case.guard.name == BOTH_WAYS else 0.0)
    if unit == "difference":
        return bounds.log_e_pairs(bounds.paired(_pairs(case, stretches, case.effect)), sign=-1)
    n, most, _, worse = _of_one(case, stretches)
    return bounds.log_e_over(_count(n * worse), _count(n), most)


def scored(case: Case, stretches: Sequence[Stretch]) -> float:
    """Return how many shadow pairs are scored."""
    return case.rate * math.fsum(stretch.pairs * stretch.seconds for stretch in stretches)


def random(stretches: Sequence[Stretch]) -> list[Stretch]:
    """Return the stretches in which chance divided any traffic."""
    return [stretch for stretch in stretches if stretch.random and stretch.seconds > 0]


def _rate_events(case: Case, stretches: Sequence[Stretch], worse: float) -> list[Events]:
    rate = float(getattr(case.baseline, case.guard.name))
    found = []
    for stretch in random(stretches):
        n = case.rate * stretch.seconds
        candidate, baseline = stretch.share * n * min(1.0, rate + worse), (1 - stretch.share) * n * rate
        found.append(Events(stretch.share, _count(candidate), _count(baseline), _count(n)))
    return found


def _tail_events(case: Case, stretches: Sequence[Stretch], slower: float) -> list[Events]:
    """Events of lognormal latencies: above the baseline's quantile, times the margin for the candidate."""
    q = case.signal.tail.q if case.signal.tail else math.nan
    beyond = float(ndtri(q)) + math.log(margin_ratio(case.guard.margin) / slower) / case.sd
    found = []
    for stretch in random(stretches):
        (candidate, baseline), n = case.parts(stretch), case.rate * stretch.seconds
        events = candidate * n * math.exp(log_ndtr(-beyond)), baseline * n * (1 - q)
        whole = candidate + baseline
        found.append(Events(candidate / whole, _count(events[0]), _count(events[1]), _count(n * whole)))
    return found


def _of_one(case: Case, stretches: Sequence[Stretch]) -> tuple[float, float, float, float]:
    """Return the candidate's requests, the part of them that may be over the limit, and what is: equal, and worse."""
    n = case.rate * math.fsum(stretch.share * stretch.seconds for stretch in random(stretches))
    limit = case.guard.margin
    if case.signal.unit == "limit":
        return n, limit, case.baseline.error_rate, case.effect
    q = _quantile(case)
    median = float(getattr(case.baseline, f"{case.latency}_s"))
    usual = float(ndtr(-math.log(limit / median) / case.sd))
    worse = float(ndtr(-(float(ndtri(q)) + math.log(limit / case.effect) / case.sd)))
    return n, 1 - q, usual, worse


def _quantile(case: Case) -> float:
    return 0.99 if "_p99" in case.guard.name else 0.95


def _means(case: Case, stretches: Sequence[Stretch], ratio: float) -> list[tuple[Sums, Sums]]:
    """Sums of what a request costs, or of how long its answer is, each candidate's `ratio` times the baseline's."""
    spread = 1 + (case.baseline.length_sd if case.guard.name == BOTH_WAYS else case.baseline.cost_sd) ** 2

    def sums(n: float, mean: float) -> Sums:
        return Sums(_count(n), n * mean, n, n * mean * mean * spread, n, n * mean)

    counted = [(stretch.share, case.rate * stretch.seconds) for stretch in random(stretches)]
    return [(sums(share * n, ratio), sums((1 - share) * n, 1.0)) for share, n in counted]


def _pairs(case: Case, stretches: Sequence[Stretch], mean: float) -> dict[int, int]:
    """Differences as a normal distribution within -1..1, in a histogram of hundredths."""
    d = np.arange(-100, 101) / 100
    part = np.exp(-(((d - mean) / max(case.baseline.pair_sd, 0.01)) ** 2) / 2)
    n = scored(case, stretches) * part / part.sum()
    return {round(bounds.PAIR_UNIT * at): _count(float(k)) for at, k in zip(d, n, strict=True)}


def _count(expected: float) -> int:
    """An expectation where the tests take a count."""
    return cast("int", expected)
