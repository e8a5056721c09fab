"""Evidence on ratios of means, such as what a token costs: asymptotic, where bounds.py is exact."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from scipy.special import log_ndtr

MIN_UNITS = 50  # an arm; below, a normal approximation is none
MIN_UNITS_A_STAGE = 10
SPREAD_FLOOR = 0.01  # relative, a request: equal prices leave no spread at all, and no spread proves anything
_NOBODY: Final[Mapping[int, tuple[float, float]]] = {}


@dataclass(frozen=True)
class Sums:
    """An arm's sums over n requests for a ratio of means x/y, such as USD over tokens; y = 1 gives a plain mean.

    Where requests are not independent, n counts groups of them and `requests` how many there are. `groups` has the
    (x, y) of those that come again in other stages, such as a sticky user's; they are in all sums.
    """

    n: int
    x: float
    y: float
    xx: float
    yy: float
    xy: float
    groups: Mapping[int, tuple[float, float]] = field(default_factory=lambda: _NOBODY)
    requests: int = 0  # 0: n

    @cached_property
    def usable(self) -> bool:
        """True if a ratio and its spread can be taken."""
        finite = all(math.isfinite(value) for value in (self.x, self.y, self.xx, self.yy, self.xy))
        return finite and self.n >= MIN_UNITS_A_STAGE and self.x > 0 and self.y > 0

    @cached_property
    def log_variance(self) -> float:
        """Variance of ln(x/y), linearised: that of x - R y over its mean squared; at least (1 %)^2 a request."""
        ratio = self.x / self.y
        squares = math.fsum((self.xx, -2 * ratio * self.xy, ratio * ratio * self.yy))
        spread = squares / (self.n - 1) / (self.x / self.n) ** 2
        return max(spread, SPREAD_FLOOR**2) / self.n

    @cached_property
    def leans(self) -> dict[int, float]:
        """How far each group moves ln(x/y), linearised: (x_g - R y_g) over x."""
        ratio = self.x / self.y
        return {group: (x - ratio * y) / self.x for group, (x, y) in self.groups.items()}


@dataclass(frozen=True, slots=True)
class LogRatio:
    """ln(R_c / R_b) over stages: the estimate, its standard error, the smaller arm's n, the candidate's requests."""

    estimate: float
    error: float
    n: int
    requests: int


def log_ratio(stages: Sequence[tuple[Sums, Sums]]) -> LogRatio | None:
    """Pool (candidate, baseline) by inverse variance, each stage against itself; None below 50 requests an arm.

    Never pooled over stages first: a share that changed together with the load would look like an effect (Simpson).
    Groups that come again in later stages lean the same way there: stages are not independent, and the error says so.
    """
    usable = [(c, b) for c, b in stages if c.usable and b.usable]
    n_candidate, n_baseline = sum(c.n for c, _ in usable), sum(b.n for _, b in usable)
    if min(n_candidate, n_baseline) < MIN_UNITS:
        return None
    precisions = [1 / (c.log_variance + b.log_variance) for c, b in usable]
    effects = [math.log(c.x / c.y) - math.log(b.x / b.y) for c, b in usable]
    total = math.fsum(precisions)
    estimate = math.fsum(p * e for p, e in zip(precisions, effects, strict=True)) / total
    variance = 1 / total + _shared([(p / total, c, b) for p, (c, b) in zip(precisions, usable, strict=True)])
    requests = sum(c.requests or c.n for c, _ in usable)
    return LogRatio(estimate, math.sqrt(variance), min(n_candidate, n_baseline), requests)


def _shared(stages: Sequence[tuple[float, Sums, Sums]]) -> float:
    """Return what groups add to the variance of a weighted mean of stages because the same come again, at least 0."""
    together: dict[int, float] = {}
    apart = 0.0
    for weight, candidate, baseline in stages:
        leans = candidate.leans, baseline.leans
        for group in sorted(leans[0].keys() | leans[1].keys()):
            lean = weight * (leans[0].get(group, 0.0) - leans[1].get(group, 0.0))
            together[group] = together.get(group, 0.0) + lean
            apart += lean * lean
    return max(0.0, math.fsum(lean * lean for lean in together.values()) - apart)


def log_e_ratio(stages: Sequence[tuple[Sums, Sums]], ratio: float = 1.0, *, sign: int) -> float:
    """Evidence that R_c/R_b > ratio (sign = +1) or < ratio (sign = -1), both positive; 0.0 below 50 requests an arm.

    z = sign (ln(R_c/R_b) - ln ratio) / se is taken for Student's with nu = n - 1, n the smaller arm; against it a
    location mixture of variance t = 15 n_c / 1000, n_c the candidate's requests, so that what is bet on as an effect
    does not change as they come: ln E = ln 2 - ln(1+t)/2 + (nu+1)/2 [ln(1+z^2/nu) -
    ln(1+z^2/(nu(1+t)))] + ln Phi(z sqrt(t/(1+t))). Source: Waudby-Smith et al., arXiv 2103.06476, one-sided. It is
    asymptotic: right for means of many requests, approximate for few and heavy-tailed ones.
    """
    if not ratio > 0:
        return math.nan
    pooled = log_ratio(stages)
    if pooled is None:
        return 0.0
    z = sign * (pooled.estimate - math.log(ratio)) / pooled.error
    return log_e_student(z, nu=pooled.n - 1, t=15 * pooled.requests / 1000)


def log_e_student(z: float, *, nu: float, t: float) -> float:
    """Return the mixture of `log_e_ratio` for one z: its mean is exactly 1 for Student's z; any z, however far out."""
    square = z * z
    growth = (nu + 1) / 2 * (math.log1p(square / nu) - math.log1p(square / (nu * (1 + t))))
    return math.log(2) - math.log1p(t) / 2 + growth + float(log_ndtr(z * math.sqrt(t / (1 + t))))
