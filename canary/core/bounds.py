"""Evidence as bets: e-processes that stay valid however often one looks.

An e-process E starts at 1 and, while its hypothesis is true, is at most 1 on average at *any* stopping time; so it ever
reaches 1/alpha with a probability of at most alpha (Ville 1939). Everything here is a pure function of sums and returns
the natural log of E: 0.0 without evidence, NaN for sums that no traffic can leave (a comparison with NaN is false, so
NaN proves nothing). Averages of e-processes are e-processes (Vovk & Wang 2021), so each test bets on many alternatives.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import mul
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import xlogy

Stage = TypeVar("Stage")
Floats = NDArray[np.float64]

WORSE = np.array([1.05, 1.1, 1.2, 1.35, 1.5, 1.75, 2, 2.5, 3, 4, 6, 10, 20, 60, 300])
BETTER = np.array([0.97, 0.93, 0.88, 0.82, 0.75, 0.67, 0.58, 0.48, 0.36, 0.22, 0.10, 0.02])
STAKES = np.array([0.005, 0.01, 0.02, 0.04, 0.07, 0.12, 0.2, 0.3, 0.45, 0.65, 0.9])  # of all one has
PAIR_UNIT = 1000
THOUSANDTHS = np.arange(-PAIR_UNIT, PAIR_UNIT + 1, dtype=float)


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
