"""Other ways to decide, on the same traffic: our reading of four methods, two careful settings each.

None of these products is run: each is what its documented rule does with this traffic's numbers, once a minute. Where a
rule leaves something to its user we chose what favours it: the baseline is measured beside the candidate, on requests
that chance divided, and minutes without requests count for nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
from scipy.stats import norm

from bench.guardrails.bets import BASELINE, CANDIDATE, Bools, Floats, Ints
from bench.guardrails.minutes import Minutes
from bench.guardrails.streams import LOG_GROWTH


class Peer(Protocol):
    """A method that looks once a minute."""

    def look(self, minutes: Minutes, minute: int, *, last: bool) -> Bools:
        """Tell which runs it rolls back now, after so many minutes; `last`: no more are to come."""
        ...


class Argo:
    """Argo Rollouts, our reading: a background AnalysisRun, interval 1 m, and one metric each for errors and latencies.

    A measurement fails where the candidate's error rate exceeds the baseline's by 1 pp, or its 95 % quantile of TTFT or
    TPOT is more than 1.1 times the baseline's, both over the last `window` minutes (PromQL's [1m] or [5m]). A metric
    with more than `failureLimit` failed measurements fails the run, and that aborts the rollout.
    """

    def __init__(self, runs: int, window: int, failure_limit: int) -> None:
        self._window, self._limit = window, failure_limit
        self._failures: Ints = np.zeros((runs, 3), np.int64)

    def look(self, minutes: Minutes, minute: int, *, last: bool) -> Bools:
        """Take a measurement of each metric."""
        del minute, last
        errors = minutes.errors(self._window)
        failed = [errors[:, CANDIDATE] > errors[:, BASELINE] + 0.01]
        for latency in ("ttft", "tpot"):
            at = minutes.quantile(latency, 0.95, self._window)
            failed.append((at[:, CANDIDATE] - at[:, BASELINE]) * LOG_GROWTH > np.log(1.1))
        self._failures += np.stack(failed, axis=1) & minutes.measured(self._window)[:, None]
        found: Bools = np.any(self._failures > self._limit, axis=1)
        return found


class Flagger:
    """Flagger, our reading: the built-in metrics of the canary alone, interval 1 m, against absolute limits.

    A check fails where the candidate's success rate of the last minute is below `success`, or the 99 % quantile of its
    TTFT above `slower` times what the baseline's had been in the first minute (an operator who sets a limit in
    milliseconds knows that much). `threshold` failed checks in all roll back.
    """

    def __init__(self, runs: int, success: float, slower: float, threshold: int) -> None:
        self._success, self._slower, self._threshold = success, np.log(slower) / LOG_GROWTH, threshold
        self._usual: Ints | None = None
        self._failed: Ints = np.zeros(runs, np.int64)

    def look(self, minutes: Minutes, minute: int, *, last: bool) -> Bools:
        """Check both metrics."""
        del minute, last
        at = minutes.quantile("ttft", 0.99)
        if self._usual is None:
            self._usual = at[:, BASELINE].copy()
        low = 1 - minutes.errors()[:, CANDIDATE] < self._success
        self._failed += minutes.measured() & (low | (at[:, CANDIDATE] - self._usual > self._slower))
        return self._failed >= self._threshold


class Kayenta:
    """Kayenta, our reading: NetflixACAJudge, every 5 minutes, on a point a minute of each metric and arm.

    Metrics, of equal weight, worse if higher: error rate, 95 % quantiles of TTFT and TPOT, USD a request. A metric is
    High where the 98 % interval of the Mann-Whitney shift (Hodges & Lehmann) lies above a tolerance of 25 % of the
    estimated shift, else it passes. Score: the percentage that passes. Below `marginal` the canary is stopped, at the
    end below `good`. Points: of the last `lookback` minutes, or all; latencies in log buckets.
    """

    def __init__(self, marginal: float, good: float, lookback: int) -> None:
        self._marginal, self._good, self._lookback = marginal, good, lookback
        self._points: list[Floats] = []

    def look(self, minutes: Minutes, minute: int, *, last: bool) -> Bools:
        """Add a point, and judge every fifth minute."""
        at = (minutes.quantile(latency, 0.95).astype(float) for latency in ("ttft", "tpot"))
        self._points = [*self._points, np.stack([minutes.errors(), *at, minutes.cost()])][-self._lookback :]
        if minute % 5 and not last:
            return np.zeros(len(self._points[0][0]), bool)
        points = np.stack(self._points, axis=-1)  # metric, run, arm, minute
        high = np.stack([_high(metric[:, CANDIDATE], metric[:, BASELINE]) for metric in points])
        found: Bools = 100 * (1 - high.mean(axis=0)) < (self._good if last else self._marginal)
        return found


def _high(candidate: Floats, baseline: Floats) -> Bools:
    """Tell where the interval of the shift lies above its tolerance, by run."""
    n, m = candidate.shape[1], baseline.shape[1]
    shifts = np.sort((candidate[:, :, None] - baseline[:, None, :]).reshape(len(candidate), -1), axis=1)
    reach = norm.ppf(0.99) * np.sqrt(n * m * (n + m + 1) / 12)
    low = shifts[:, max(0, int(np.floor(n * m / 2 - reach)))]
    found: Bools = low > 0.25 * np.abs(np.median(shifts, axis=1))
    return found


class Peeked:
    """A t-test that is looked at again and again: the candidate is rolled back once it is significantly worse.

    Welch's test on all requests so far, one-sided, of errors, log TTFT, log TPOT and cost, at 1 % together
    (Bonferroni); no margin. Looked at every `every` minutes.
    """

    def __init__(self, every: int) -> None:
        self._every = every

    def look(self, minutes: Minutes, minute: int, *, last: bool) -> Bools:
        """Test, if it is time."""
        z = np.stack([sums.z for sums in minutes.sums.values()], axis=1)
        significant: Bools = np.any(z > norm.isf(0.01 / z.shape[1]), axis=1)
        return significant & (last or minute % self._every == 0)


OURS = "Linnet"
PEERS: Mapping[str, Callable[[int], Peer]] = {
    "Argo Rollouts, [1m], failureLimit 3": lambda runs: Argo(runs, 1, 3),
    "Argo Rollouts, [5m], failureLimit 10": lambda runs: Argo(runs, 5, 10),
    "Flagger, 99 %, TTFT p99 x1.5, threshold 5": lambda runs: Flagger(runs, 0.99, 1.5, 5),
    "Flagger, 97 %, TTFT p99 x2, threshold 10": lambda runs: Flagger(runs, 0.97, 2.0, 10),
    "Kayenta, 75/95, last hour": lambda _: Kayenta(75.0, 95.0, 60),
    "Kayenta, 50/75, all minutes": lambda _: Kayenta(50.0, 75.0, 10_000),
    "t-test, every minute": lambda _: Peeked(1),
    "t-test, every 10 minutes": lambda _: Peeked(10),
}
