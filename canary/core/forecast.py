"""How much traffic a guardrail needs for its verdict: the evidence at the sums that are expected, before there are any.

The first moment at which the evidence expected after so many seconds (expected.py, located.py) reaches its threshold
is the forecast. Per request it grows by the Kullback-Leibler drift of the mixture's best alternative (Wald 1945), less
what the mixing and the restarts cost. A mixture's log evidence is about half the square of a normal score, so on
average it is half a nat more than at the expected sums. The forecast is near the median of the real time, no bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

from canary.core.expected import failing, passing, random, scored
from canary.core.located import CHANCE, LONGEST_NOISE_S, MIXING, own_noise_seconds, possible_noise, until_shown
from canary.core.premise import Case, Stretch
from canary.core.tails import Z95, margin_ratio


def until_pass(case: Case, before: Sequence[Stretch], at: Stretch, limit: float) -> float | None:
    """Return the seconds at a share until PASS of a candidate that is equal, None if not within `limit` seconds.

    `before` are the stretches of the attempt so far, whose evidence counts; the seconds of `at` are not read. A latency
    passes by its quantile and, where noise of machines is assumed, as a whole; not while the arms' loads differ.
    """
    proved = _first(partial(passing, case), before, at, case.policy.log_pass, limit)
    whole = _whole_passes(case, before, at, limit)
    if proved is None or whole is None or not (case.matched(at) or proved == whole == 0):
        return None
    seconds = max(proved, whole, _enough(case, before, at))
    return seconds if seconds <= limit else None


def until_fail(case: Case, at: Stretch, limit: float) -> float | None:
    """Return the seconds until FAIL of a candidate that is worse by `case.effect`, None if not within `limit` seconds.

    Counted from the beginning of the stretch, as if nothing had come before. Where a latency's location is tested, a
    slower candidate is slower as a whole, on machines without noise; where it is not, its slowest requests are, and
    what noise of machines may do to those never fails (`signals.read_tail`).
    """
    if case.located:
        return until_located(case, at, limit)
    if case.signal.lag and case.effect <= margin_ratio(case.guard.margin) * math.exp(Z95 * possible_noise(case)):
        return None
    return _first(partial(failing, case), (), at, case.threshold, limit)


def until_located(case: Case, at: Stretch, limit: float) -> float | None:
    """Return the seconds until a latency's location alone fails, None if never or not within `limit` seconds."""
    lag, distance = case.signal.lag, math.log(case.effect)
    if lag is None or not case.located or not (distance > 0 and at.random and case.rate > 0):
        return None
    seconds = until_shown(case, (), at, distance, needed=_bar(case), limit=limit)
    return None if seconds is None or seconds + lag.grace_s > limit else seconds + lag.grace_s


def until_located_in_noise(case: Case) -> float:
    """Return the seconds until a latency's location fails on replicas as noisy as is assumed, for 10 minutes on end."""
    needed = MIXING + _bar(case) if case.located else math.inf
    return own_noise_seconds(math.log(case.effect), needed, case.most_noise, LONGEST_NOISE_S)


def _bar(case: Case) -> float:
    """Return what evidence for the location's part of the weight must reach, with what the restarts cost."""
    part = case.signal.lag.part if case.signal.lag else 1.0
    return case.threshold - math.log(part) - math.log(0.5 + 0.5 / max(1, case.policy.stages))


def _whole_passes(case: Case, before: Sequence[Stretch], at: Stretch, limit: float) -> float | None:
    """Return the seconds until a latency as a whole is proved to be within the margin; 0 where that is not asked for.

    Where the arms were loaded alike all along every block counts, else those of the present stage alone.
    """
    lag, distance = (
        case.signal.lag,
        math.log(margin_ratio(case.guard.margin)) if case.located else 0.0,
    )
    if lag is None or not case.located or not case.most_noise:
        return 0.0
    if not (distance > 0 and at.random and case.rate > 0):
        return None
    alike = [stretch for stretch in random(before) if case.matched(stretch)]
    had = alike if case.matched(at) and len(alike) == len(random(before)) else []
    seconds = until_shown(case, had, at, distance, needed=case.policy.log_pass, limit=limit)
    return None if seconds is None else seconds + lag.grace_s if seconds else 0.0


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
    """Return the seconds until the smallest sample is there: requests of each arm that is read, or shadow pairs."""
    if case.signal.unit == "difference":
        return _left(case.policy.min_pairs - scored(case, before), case.rate * at.pairs)
    arms = 1 if case.signal.unit in ("limit", "seconds") else 2
    waits = []
    for arm in range(arms):
        had = math.fsum(case.rate * one.seconds * case.parts(one)[arm] for one in random(before))
        waits.append(_left(case.policy.min_samples - had, case.rate * case.parts(at)[arm]))
    return max(waits)


def _left(missing: float, speed: float) -> float:
    if missing <= 0:
        return 0.0
    return missing / speed if speed > 0 else math.inf
