"""How long a latency's location takes for its verdict: on machines that turn out quiet, and on noisy ones.

The filters of `noise.py` run over expected blocks: their recursion gives each law's expected level and information.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, cast

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from canary.core.location import WORSE, Belief
from canary.core.noise import ASSUMED, USUAL, Law, all_laws
from canary.core.premise import Case, Stretch
from canary.core.reference import LONG_S
from canary.core.tally import BLOCK_S

Floats = NDArray[np.float64]

LONGEST_NOISE_S: Final = 600.0  # the correlation time that is assumed at most, without a long reference
MIXING: Final = 2.0  # nats that it costs to bet on many laws and effects at once, where that is not computed
CHANCE: Final = 0.5  # nats that chance adds on average: half the variance of a normal score
MOST_BLOCKS: Final = 3000  # longer waits are forecast in longer blocks


def until_shown(
    case: Case, before: Sequence[Stretch], at: Stretch, distance: float, *, needed: float, limit: float
) -> float | None:
    """Return the seconds at a share until evidence for a distance in log units is expected to reach `needed`.

    The distance is that of the truth from the hypothesis: a shift from none, or none from the margin. Blocks of the
    stretches `before` count. 0 if they suffice, None if not within `limit` seconds.
    """
    length = max(BLOCK_S, (limit + math.fsum(one.seconds for one in before)) / MOST_BLOCKS)
    over, belief = all_laws(case.most_noise), belief_of(case)
    had = [_variance(case, one, length) for one in before for _ in range(int(one.seconds / length))]
    variances = [*had, *[_variance(case, at, length)] * math.ceil(limit / length)]
    levels, infos = course(over, variances, length)
    reached = _evidence(levels, infos, belief, distance) + CHANCE >= needed
    return length * max(0, int(np.argmax(reached)) + 1 - len(had)) if reached.any() else None


def belief_of(case: Case) -> Belief:
    """Return what is believed of the laws: what a real reference says, or a quiet one of so many seconds would."""
    lag, seconds = case.signal.lag, case.traffic.reference
    known = case.traffic.beliefs.get(lag.histogram) if lag else None
    over = all_laws(case.most_noise)
    if known is not None or seconds < BLOCK_S:
        return known or Belief.without_reference(over)
    length = max(BLOCK_S, seconds / MOST_BLOCKS)
    halves = Stretch(0.5, 0.0, seconds)
    levels, _ = course(over, [_variance(case, halves, length)] * int(seconds / length), length)
    return Belief.of_reference(levels[-1], ASSUMED if seconds >= LONG_S else USUAL)


def possible_noise(case: Case) -> float:
    """Return the largest own noise of the machines that is possible by what is believed (`Course.noise`)."""
    laws = zip(all_laws(case.most_noise), belief_of(case).possible, strict=True)
    return max(law.sigma for law, possible in laws if possible)


def own_noise_seconds(effect: float, log_bar: float, sigma: float, tau: float) -> float:
    """Return the seconds until a shift of `effect` log units is told from one machine's own noise, 0 if it is larger.

    T = 2 tau (2 L sigma^2 / effect^2 - 1): the mean of a stationary Ornstein-Uhlenbeck process of standard deviation
    `sigma` (log units) and correlation time `tau` (s) has the information (T + 2 tau) / (2 sigma^2 tau), and evidence
    grows to effect^2/2 times it; L = `log_bar` is ln(1/alpha). The best that any test can do, whatever the traffic.
    """
    if not (effect and sigma):
        return math.inf if not effect else 0.0
    return max(0.0, 2 * tau * (2 * log_bar * sigma**2 / effect**2 - 1))


def _variance(case: Case, stretch: Stretch, length: float) -> float:
    """Return the sampling variance of one block's difference of mean log latencies."""
    n = case.rate * length
    return case.sd**2 * math.fsum(1 / (part * n) for part in case.parts(stretch))


def course(over: Sequence[Law], variances: Sequence[float], length: float) -> tuple[Floats, Floats]:
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
    known = np.isfinite(belief.log_weights)
    misses = -infos[:, known, None] * (WORSE - distance) ** 2 / 2
    mixed = belief.log_weights[known] + levels[:, known] + logsumexp(misses, axis=2) - math.log(len(WORSE))
    best = np.max((levels - infos * distance**2 / 2)[:, belief.possible], axis=1)
    return cast("Floats", logsumexp(mixed, axis=1) - best)
