"""How much traffic a guardrail needs for its verdict: the evidence at the sums that are expected, before there are any.

Each test of `bounds.py` and `location.py` is asked for its evidence at the expected sums of so many seconds, and the
first moment at which that reaches the threshold is the forecast. Per request it grows by the Kullback-Leibler drift of
the mixture's best alternative (Wald 1945), less what the mixing and the restarts cost, so nothing is derived twice. A
mixture's log evidence is about half the square of a normal score, so on average it is half a nat more than at the
expected sums. The forecast is near the median of the real time, not a bound on it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr, logsumexp, ndtri

from canary.core import bounds
from canary.core.bounds import Events, Sums
from canary.core.location import WORSE, Belief
from canary.core.noise import Law, laws, most_noise
from canary.core.policy import Guard, Policy
from canary.core.signals import SIGNALS, Signal
from canary.core.tails import margin_ratio
from canary.core.tally import BLOCK_S

Floats = NDArray[np.float64]

LONG_REFERENCE_S = 6 * 3600.0  # from here on a reference speaks of noise of half an hour too
LONGEST_NOISE_S = 600.0  # the correlation time that is assumed at most, without such a reference
MIXING = 2.0  # nats that it costs to bet on many laws and effects at once, where that is not computed
CHANCE = 0.5  # nats that chance adds on average: half the variance of a normal score
MOST_BLOCKS = 3000  # longer waits are forecast in longer blocks


@dataclass(frozen=True, slots=True)
class Baseline:
    """What is assumed of the baseline and its machines.

    Rates in 0..1; `ttft_sd` and `tpot_sd` are standard deviations of the log of one request's latency; `ttft_noise` and
    `tpot_noise` those of one replica's own slow noise, as much as a test must allow for; `cost_sd` the standard
    deviation of a request's cost over its mean; `pair_sd` that of the difference of two paired scores; `answer_s` the
    seconds that a whole answer takes.
    """

    error_rate: float = 0.005
    empty: float = 0.01
    truncated: float = 0.01
    ttft_sd: float = 0.5
    tpot_sd: float = 0.2
    ttft_noise: float = 0.18
    tpot_noise: float = 0.10
    cost_sd: float = 0.5
    pair_sd: float = 0.25
    answer_s: float = 2.0


@dataclass(frozen=True, slots=True)
class Traffic:
    """What comes and who answers: requests a second, each slice's part in 0..1, replicas an arm, seconds of reference.

    A *reference* is a time in which two equal sets of the baseline's replicas were compared and no noise was found.
    `pairs` is how many shadow pairs a second can be scored at most.
    """

    rps: float
    slices: Mapping[str, float]
    replicas: int = 1
    reference: float = 0.0
    pairs: float = math.inf

    def of(self, slice_: str) -> float:
        """Return the requests a second of one slice; "" is all traffic, a slice without a part has none."""
        return self.rps * (self.slices.get(slice_, 0.0) if slice_ else 1.0)


@dataclass(frozen=True, slots=True)
class Stretch:
    """Seconds at one share: the candidate's probability in 0..1, and scored shadow pairs for each request."""

    share: float
    pairs: float
    seconds: float

    @property
    def random(self) -> bool:
        """True while chance divides the traffic."""
        return 0 < self.share < 1


@dataclass(frozen=True, slots=True)
class Case:
    """One guardrail on one slice: its requests a second, the policy's thresholds (logs), what is assumed, and belief.

    `effect` is how much worse the candidate is where it is to fail, in the margin's unit.
    """

    guard: Guard
    slice: str
    rate: float
    effect: float
    policy: Policy
    threshold: float
    baseline: Baseline
    traffic: Traffic

    @property
    def signal(self) -> Signal:
        """The row of the table of signals."""
        return SIGNALS[self.guard.name]

    def sd(self, kind: str) -> float:
        """Return the `sd` or the `noise` of its latency, log units."""
        return float(getattr(self.baseline, f"{self.signal.tail.histogram}_{kind}")) if self.signal.tail else math.nan

    @property
    def most_noise(self) -> float:
        """The largest noise of the difference of both arms, log units."""
        return most_noise(self.sd("noise"), self.traffic.replicas, self.traffic.replicas)


def cases(policy: Policy, traffic: Traffic, baseline: Baseline, times: float = 2.0) -> tuple[Case, ...]:
    """Return a case for each guardrail and slice; a candidate that is to fail is worse by `times` the margin."""
    weights = policy.weights()
    return tuple(
        Case(
            guard,
            slice_,
            traffic.of(slice_),
            effect_of(guard, times),
            policy,
            policy.log_bar - math.log(weights[guard.name, slice_]),
            baseline,
            traffic,
        )
        for guard in policy.guards
        for slice_ in guard.slices
    )


def effect_of(guard: Guard, times: float) -> float:
    """Return `times` the margin, in its unit: 0.5 pp twice is 1 pp, a ratio of 1.1 twice is 1.2, -0.02 twice -0.04."""
    if SIGNALS[guard.name].unit == "ratio":
        return 1 + times * abs(guard.margin - 1)
    return max(-1.0, min(1.0, times * guard.margin))


def until_pass(case: Case, before: Sequence[Stretch], at: Stretch, limit: float) -> float | None:
    """Return the seconds at a share until PASS of a candidate that is equal, None if not within `limit` seconds.

    `before` are the stretches of the attempt so far, whose evidence counts; the seconds of `at` are not read. A
    latency's pass is its quantile's alone.
    """
    proved = _first(partial(_passing, case), before, at, case.policy.log_pass, limit)
    seconds = math.inf if proved is None else max(proved, _enough(case, before, at))
    return seconds if seconds <= limit else None


def until_fail(case: Case, at: Stretch, limit: float) -> float | None:
    """Return the seconds until FAIL of a candidate that is worse by `case.effect`, None if not within `limit` seconds.

    Counted from the beginning of the stretch, as if nothing had come before. Where a latency's location is tested, a
    slower candidate is slower as a whole, on machines without noise; where it is not, its slowest requests are.
    """
    lag = case.signal.lag
    if lag is not None and lag.part:
        return until_located(case, at, limit)
    return _first(partial(_failing, case), (), at, case.threshold, limit)


def until_located(case: Case, at: Stretch, limit: float) -> float | None:
    """Return the seconds until a latency's location alone fails, None if never or not within `limit` seconds."""
    lag, distance = case.signal.lag, math.log(case.effect)
    if lag is None or not lag.part or not (distance > 0 and at.random and case.rate > 0):
        return None
    seconds = _located(case, at, distance, _bar(case, lag.part), limit)
    return None if seconds is None or seconds + lag.grace_s > limit else seconds + lag.grace_s


def own_noise_seconds(effect: float, log_bar: float, sigma: float, tau: float) -> float:
    """Return the seconds until a shift of `effect` log units is told from one machine's own noise, 0 if it is larger.

    T = 2 tau (2 L sigma^2 / effect^2 - 1): the mean of a stationary Ornstein-Uhlenbeck process of standard deviation
    `sigma` (log units) and correlation time `tau` (s) has the information (T + 2 tau) / (2 sigma^2 tau), and evidence
    grows to effect^2/2 times it; L = `log_bar` is ln(1/alpha). The best that any test can do, whatever the traffic.
    """
    if not (effect and sigma):
        return math.inf if not effect else 0.0
    return max(0.0, 2 * tau * (2 * log_bar * sigma**2 / effect**2 - 1))


def until_located_in_noise(case: Case) -> float:
    """Return the seconds until a latency's location fails on replicas as noisy as is assumed, for 10 minutes on end."""
    lag = case.signal.lag
    needed = MIXING + _bar(case, lag.part) if lag and lag.part else math.inf
    return own_noise_seconds(math.log(case.effect), needed, case.most_noise, LONGEST_NOISE_S)


def _bar(case: Case, part: float) -> float:
    """Return what evidence for a part of the guardrail's weight must reach, with what the restarts cost."""
    return case.threshold - math.log(part) - math.log(0.5 + 0.5 / max(1, case.policy.stages))


# Evidence at expected sums, after some stretches.


def _passing(case: Case, stretches: Sequence[Stretch]) -> float:
    """Ln E for an equal candidate, at the margin."""
    signal = case.signal
    if signal.tail:
        return bounds.log_e_fewer(_tail_events(case, stretches, 1.0))
    if signal.unit == "rate":
        return bounds.log_e_within(_rate_events(case, stretches, 0.0), case.guard.margin)
    if signal.unit == "ratio":
        return bounds.log_e_ratio(_costs(case, stretches, 1.0), case.guard.margin, sign=-1)
    return bounds.log_e_pairs(_pairs(case, stretches, 0.0), case.guard.margin, sign=+1)


def _failing(case: Case, stretches: Sequence[Stretch]) -> float:
    """Ln E against a candidate that is worse by the effect."""
    signal, planned = case.signal, case.policy.stages
    if signal.tail:
        return bounds.with_restarts(bounds.log_e_more, _tail_events(case, stretches, case.effect), planned)
    if signal.unit == "rate":
        return bounds.with_restarts(bounds.log_e_more, _rate_events(case, stretches, case.effect), planned)
    if signal.unit == "ratio":
        more = partial(bounds.log_e_ratio, sign=+1)
        return bounds.with_restarts(more, _costs(case, stretches, case.effect), planned)
    return bounds.log_e_pairs(_pairs(case, stretches, case.effect), sign=-1)


def _rate_events(case: Case, stretches: Sequence[Stretch], worse: float) -> list[Events]:
    rate = float(getattr(case.baseline, case.guard.name))
    found = []
    for stretch in _random(stretches):
        n = case.rate * stretch.seconds
        candidate, baseline = stretch.share * n * min(1.0, rate + worse), (1 - stretch.share) * n * rate
        found.append(Events(stretch.share, _count(candidate), _count(baseline), _count(n)))
    return found


def _tail_events(case: Case, stretches: Sequence[Stretch], slower: float) -> list[Events]:
    """Events of lognormal latencies: above the baseline's quantile, times the margin for the candidate."""
    q = case.signal.tail.q if case.signal.tail else math.nan
    beyond = float(ndtri(q)) + math.log(margin_ratio(case.guard.margin) / slower) / case.sd("sd")
    found = []
    for stretch in _random(stretches):
        n = case.rate * stretch.seconds
        candidate, baseline = stretch.share * n * math.exp(log_ndtr(-beyond)), (1 - stretch.share) * n * (1 - q)
        found.append(Events(stretch.share, _count(candidate), _count(baseline), _count(n)))
    return found


def _costs(case: Case, stretches: Sequence[Stretch], ratio: float) -> list[tuple[Sums, Sums]]:
    spread = 1 + case.baseline.cost_sd**2

    def sums(n: float, mean: float) -> Sums:
        return Sums(_count(n), n * mean, n, n * mean * mean * spread, n, n * mean)

    priced = [(stretch.share, case.rate * stretch.seconds) for stretch in _random(stretches)]
    return [(sums(share * n, ratio), sums((1 - share) * n, 1.0)) for share, n in priced]


def _pairs(case: Case, stretches: Sequence[Stretch], mean: float) -> dict[int, int]:
    """Differences as a normal distribution within -1..1, in a histogram of hundredths."""
    d = np.arange(-100, 101) / 100
    part = np.exp(-(((d - mean) / max(case.baseline.pair_sd, 0.01)) ** 2) / 2)
    n = _scored(case, stretches) * part / part.sum()
    return {round(bounds.PAIR_UNIT * at): _count(float(k)) for at, k in zip(d, n, strict=True)}


def _scored(case: Case, stretches: Sequence[Stretch]) -> float:
    return case.rate * math.fsum(stretch.pairs * stretch.seconds for stretch in stretches)


def _random(stretches: Sequence[Stretch]) -> list[Stretch]:
    return [stretch for stretch in stretches if stretch.random and stretch.seconds > 0]


def _count(expected: float) -> int:
    """An expectation where the tests take a count: their formulas hold for any number."""
    return cast("int", expected)


# When it is reached.


def _first(
    evidence: Callable[[Sequence[Stretch]], float],
    before: Sequence[Stretch],
    at: Stretch,
    needed: float,
    limit: float,
) -> float | None:
    """Return the first second at which `evidence` is expected to reach `needed`, by bisection; None past the limit."""

    def reached(seconds: float) -> bool:
        return evidence([*before, Stretch(at.share, at.pairs, seconds)]) + CHANCE >= needed

    if reached(0.0):
        return 0.0
    if not reached(limit):
        return None
    low, high = 0.0, limit
    while high - low > 1e-3 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    return high


def _enough(case: Case, before: Sequence[Stretch], at: Stretch) -> float:
    """Return the seconds until the smallest sample is there: requests of the smaller arm, or shadow pairs."""
    if case.signal.unit == "difference":
        had, speed, needed = _scored(case, before), case.rate * at.pairs, case.policy.min_pairs
    else:
        seen = [(stretch.share, case.rate * stretch.seconds) for stretch in _random(before)]
        arms = [(math.fsum(p * n for p, n in seen), at.share), (math.fsum((1 - p) * n for p, n in seen), 1 - at.share)]
        return max(_left(case.policy.min_samples - n, case.rate * part) for n, part in arms)
    return _left(needed - had, speed)


def _left(missing: float, speed: float) -> float:
    if missing <= 0:
        return 0.0
    return missing / speed if speed > 0 else math.inf


# The location of a latency, on machines that turn out to be quiet.


def _located(case: Case, at: Stretch, distance: float, needed: float, limit: float) -> float | None:
    """Return the seconds until the evidence for a shift by `distance`, log units, is expected to reach `needed`."""
    over, belief = _belief(case)
    length = max(BLOCK_S, limit / MOST_BLOCKS)
    levels, infos = _course(over, [_variance(case, at.share, length)] * math.ceil(limit / length), length)
    reached = _evidence(levels, infos, belief, distance) + CHANCE >= needed
    return length * (int(np.argmax(reached)) + 1) if reached.any() else None


def _belief(case: Case) -> tuple[Sequence[Law], Belief]:
    """Return the laws and what a quiet reference leaves of them."""
    reference = case.traffic.reference
    over = laws(case.most_noise, long=reference >= LONG_REFERENCE_S)
    if reference < BLOCK_S:
        return over, Belief.without_reference(over)
    length = max(BLOCK_S, reference / MOST_BLOCKS)
    variance = _variance(case, 0.5, length)
    levels, _ = _course(over, [variance] * int(reference / length), length)
    return over, Belief.of_reference(levels[-1])


def _variance(case: Case, share: float, length: float) -> float:
    """Return the sampling variance of one block's difference of mean log latencies."""
    n = case.rate * length
    return case.sd("sd") ** 2 * (1 / (share * n) + 1 / ((1 - share) * n))


def _course(over: Sequence[Law], variances: Sequence[float], length: float) -> tuple[Floats, Floats]:
    """Return each law's expected level and information after each block, rows of one column a law.

    The recursion of `noise.Filter` for a true law without noise: a block is then the effect and sampling noise of
    variance r, so an innovation has the variance w + r with w that of the filter's own mean, and the log likelihood of
    theta is expected to be level - info (theta - truth)^2 / 2.
    """
    sigma2 = np.array([law.sigma**2 for law in over])
    a = np.array([math.exp(-length / law.tau) for law in over])
    p, d, w = sigma2.copy(), np.zeros_like(sigma2), np.zeros_like(sigma2)
    levels, infos = np.zeros((2, len(variances), len(over)))
    level, info = np.zeros_like(sigma2), np.zeros_like(sigma2)
    for number, r in enumerate(variances):
        p, d, w = (p if number == 0 else a * a * p + sigma2 * (1 - a * a)), a * d, a * a * w
        f, g = p + r, 1 - d
        gain = p / f
        level = level - (np.log(f) + (w + r) / f) / 2
        info = info + g * g / f
        p, d, w = (1 - gain) * p, d + gain * g, (1 - gain) ** 2 * w + gain**2 * r
        levels[number], infos[number] = level, info
    return levels, infos


def _evidence(levels: Floats, infos: Floats, belief: Belief, distance: float) -> Floats:
    """Return ln E after each block: the mixture over laws and alternatives against the best law at the hypothesis."""
    misses = -infos[:, :, None] * (WORSE - distance) ** 2 / 2
    mixture = logsumexp(belief.log_weights + levels + logsumexp(misses, axis=2) - math.log(len(WORSE)), axis=1)
    best = np.max((levels - infos * distance**2 / 2)[:, belief.possible], axis=1)
    return cast("Floats", mixture - best)
