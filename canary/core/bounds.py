"""Evidence as bets: e-processes that stay valid however often one looks.

An e-process E starts at 1 and, while its hypothesis is true, is at most 1 on average at *any* stopping time; so it ever
reaches 1/alpha with a probability of at most alpha (Ville 1939). Everything here is a pure function of sums and returns
the natural log of E: 0.0 without evidence, NaN for sums that no traffic can leave (a comparison with NaN is false, so
NaN proves nothing). Averages of e-processes are e-processes (Vovk & Wang 2021), so each test bets on many alternatives.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from operator import mul
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr, xlogy

Stage = TypeVar("Stage")
Floats = NDArray[np.float64]

WORSE = np.array([1.05, 1.1, 1.2, 1.35, 1.5, 1.75, 2, 2.5, 3, 4, 6, 10, 20, 60, 300])
BETTER = np.array([0.97, 0.93, 0.88, 0.82, 0.75, 0.67, 0.58, 0.48, 0.36, 0.22, 0.10, 0.02])
STAKES = np.array([0.005, 0.01, 0.02, 0.04, 0.07, 0.12, 0.2, 0.3, 0.45, 0.65, 0.9])  # of all one has
MIN_UNITS = 50  # an arm; below, a normal approximation is none
MIN_UNITS_A_STAGE = 10
SPREAD_FLOOR = 0.01  # relative, a request: equal prices leave no spread at all, and no spread proves anything
PAIR_UNIT = 1000
THOUSANDTHS = np.arange(-PAIR_UNIT, PAIR_UNIT + 1, dtype=float)
_NOBODY: Final[Mapping[int, tuple[float, float]]] = {}


@dataclass(frozen=True, slots=True)
class Events:
    """One stage's events: `share` is the candidate's probability in (0, 1), `requests` those of both arms together."""

    share: float
    candidate: int
    baseline: int
    requests: int

    @property
    def usable(self) -> bool:
        """True if traffic can leave these numbers behind."""
        return 0 < self.share < 1 and min(self.candidate, self.baseline, self.quiet) >= 0

    @property
    def quiet(self) -> int:
        """Requests of both arms without an event."""
        return self.requests - self.candidate - self.baseline


def log_e_more(stages: Sequence[Events]) -> float:
    """Evidence that the candidate has events at a higher rate than the baseline; the hypothesis is p_c <= p_b.

    Whatever the common rate, load and drift, an event is the candidate's with probability pi, its share; were its rate
    rho times the baseline's, with pi rho / (pi rho + 1 - pi) = q. E = mean over rho > 1 of the product over stages of
    (q/pi)^Nc ((1-q)/(1-pi))^Nb. Source: Lindon & Malek, arXiv 2011.03567. Exact for independent assignment at pi; the
    unit must be what was drawn, so a sticky user gives one event.
    """
    return _events(stages, _odds_worse)


def log_e_more_restarted(stages: Sequence[Events], planned: int) -> float:
    """Return `log_e_more` as `with_restarts` has it, each stage's bets being made once."""
    if not all(stage.usable for stage in stages):
        return math.nan
    if not stages or planned <= 1:
        return log_e_more(stages)
    bets = [_bets(stage, _odds_worse) for stage in reversed(stages)]
    since = np.cumsum(bets, axis=0)[::-1]  # of each stage and all after it
    starts = [_log_mean(logs) for logs in since[:planned]]
    return restarted(starts[0], starts, planned)


def log_e_fewer(stages: Sequence[Events]) -> float:
    """Evidence that the candidate has events at a lower rate; the hypothesis is p_c >= p_b.

    As `log_e_more`, with rho < 1.
    """
    return _events(stages, _odds_better)


Odds = Callable[[float], tuple[Floats, Floats]]


def _events(stages: Sequence[Events], odds: Odds) -> float:
    if not all(stage.usable for stage in stages):
        return math.nan
    return _log_mean(sum((_bets(stage, odds) for stage in stages), np.zeros_like(odds(0.5)[0])))


def _bets(stage: Events, odds: Odds) -> Floats:
    """Return what each alternative has made of a stage, as logs."""
    won, lost = odds(stage.share)
    return stage.candidate * won + stage.baseline * lost


@lru_cache(maxsize=256)  # shares are few
def _odds_worse(share: float) -> tuple[Floats, Floats]:
    return _odds(share, WORSE)


@lru_cache(maxsize=256)
def _odds_better(share: float) -> tuple[Floats, Floats]:
    return _odds(share, BETTER)


def _odds(share: float, alternatives: Floats) -> tuple[Floats, Floats]:
    """Return what each alternative makes of an event of the candidate's, and of the baseline's, as logs."""
    total = share * alternatives + 1 - share
    return np.log(alternatives / total), -np.log(total)


def log_e_within(stages: Sequence[Events], margin: float) -> float:
    """Evidence that p_c < p_b + margin; the hypothesis is p_c - p_b >= margin, a difference in 0..1.

    A request's Z = A Y / pi - (1-A) Y / (1-pi) - margin (A: the candidate's, Y: an event) has the mean p_c - p_b -
    margin (Horvitz & Thompson 1952), at least 0 under the hypothesis, so E = mean over stakes s of the product of
    1 - lambda Z with lambda = s / max Z (betting: Waudby-Smith & Ramdas, arXiv 2010.09686). Z takes three values, so
    the product needs counts only. Exact, as `log_e_more`. Without any event, pi = 1/2 and margin 5 pp, some 200
    requests prove it at 5 %.
    """
    if not (0 < margin < 1 and all(stage.usable for stage in stages)):
        return math.nan
    logs = np.zeros_like(STAKES)
    for stage in stages:
        won, lost, quiet = _stakes(stage.share, margin)
        logs += stage.candidate * won + stage.baseline * lost + stage.quiet * quiet
    return _log_mean(logs)


@lru_cache(maxsize=256)  # margins and shares are few
def _stakes(share: float, margin: float) -> tuple[Floats, Floats, Floats]:
    """Return what each stake makes of an event of the candidate's, of the baseline's, and of none, as logs."""
    gain, loss = 1 / share - margin, 1 / (1 - share) + margin
    stake = STAKES / gain
    return np.log1p(-STAKES), np.log1p(stake * loss), np.log1p(stake * margin)


def log_e_over(events: int, requests: int, most: float) -> float:
    """Evidence that one arm has events at a rate above `most` (0..1), by itself; the hypothesis is p <= most.

    E = mean over rho > 1 of the product over requests of (q/most)^Y ((1-q)/(1-most))^(1-Y) with q = rho most, as long
    as that is below 1: each factor's mean is at most 1 while p <= most, whatever p does meanwhile (Wald 1945). Exact.
    """
    return _rate(events, requests, most, WORSE)


def log_e_under(events: int, requests: int, most: float) -> float:
    """Evidence that one arm has events at a rate below `most`; the hypothesis is p >= most. As `log_e_over`."""
    return _rate(events, requests, most, BETTER)


def _rate(events: int, requests: int, most: float, alternatives: Floats) -> float:
    if not (0 < most < 1 and 0 <= events <= requests):
        return math.nan
    q = alternatives[alternatives * most < 1] * most
    logs = np.full_like(alternatives, -math.inf)  # a rate that cannot be is a bet that is lost
    logs[: len(q)] = xlogy(events, q / most) + xlogy(requests - events, (1 - q) / (1 - most))
    return _log_mean(logs)


def paired(pairs: Mapping[int, int]) -> Floats:
    """Return how often each difference of scores came, -1 to 1 by thousandths; all NaN for what no scores leave."""
    counts = np.zeros(2 * PAIR_UNIT + 1)
    places = np.fromiter(pairs, np.intp, len(pairs)) + PAIR_UNIT
    n = np.fromiter(pairs.values(), float, len(pairs))
    if len(pairs) and (places.min() < 0 or places.max() > 2 * PAIR_UNIT or n.min() < 0):
        return np.full_like(counts, math.nan)
    counts[places] = n
    return counts


def log_e_pairs(counts: Floats, above: float = 0.0, *, sign: int) -> float:
    """Evidence on the mean of differences d in -1..1 whose counts `paired` gave.

    sign = -1: that mean d < `above`, the hypothesis is mean d >= `above`; sign = +1: that mean d > `above`. E = mean
    over stakes s of the product of 1 + sign lambda (d - above), lambda = s / (1 + |above|), so that no bet can lose
    all. Source: Waudby-Smith & Ramdas, arXiv 2010.09686. Exact for any scores in range and pairs drawn at random.
    """
    if not abs(above) <= 1:
        return math.nan
    return _log_mean(np.einsum("sd,d->s", _pair_bets(above, sign), counts))  # a matrix product would wake threads


@lru_cache(maxsize=64)  # margins are few
def _pair_bets(above: float, sign: int) -> Floats:
    """Return what each stake makes of each difference there is, -1 to 1 by thousandths, as logs."""
    stakes = sign * STAKES / (1 + abs(above))
    bets: Floats = np.log1p(np.outer(stakes, THOUSANDTHS / PAIR_UNIT - above))
    return bets


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


def with_restarts(process: Callable[[Sequence[Stage]], float], stages: Sequence[Stage], planned: int) -> float:
    """Return half the whole process and half the average of restarts, one at the beginning of each planned stage.

    Harm that begins late would first have to win back what quiet stages lost. Stages to come count E = 1; those beyond
    the plan get no restart of their own. The weights never change, so the average is an e-process itself.
    """
    if planned <= 1 or not stages:
        return process(stages)
    starts = [process(stages[first:]) for first in range(min(len(stages), planned))]
    return restarted(starts[0], starts, planned)


def restarted(whole: float, starts: Sequence[float], planned: int) -> float:
    """Return ln of half the whole process and half the average of so many planned restarts, those to come being 1."""
    logs = [whole, *starts, *[0.0] * (planned - len(starts))]
    return log_sum(logs, [0.5, *[0.5 / planned] * planned])


def log_sum(logs: Sequence[float], weights: Sequence[float] | None = None) -> float:
    """Return ln of the sum of w exp(log), far tails right; -inf without any, NaN if one is NaN."""
    if any(map(math.isnan, logs)):
        return math.nan
    top = max(logs, default=-math.inf)
    if not math.isfinite(top):
        return top
    parts = [math.exp(log - top) for log in logs]
    return top + math.log(math.fsum(parts if weights is None else map(mul, parts, weights)))


def log_total(logs: Floats) -> float:
    """Return `log_sum` of an array."""
    top = float(logs.max())  # NaN if one is
    return top + math.log(np.exp(logs - top).sum()) if math.isfinite(top) else top


def _log_mean(logs: Floats) -> float:
    return log_total(logs) - math.log(len(logs))
