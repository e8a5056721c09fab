"""T0, the worker's own tripwire: a plainly broken candidate is off before the control plane has looked once."""

from __future__ import annotations

import math
from collections import deque

from canary.core.arms import Arm

FAILED = math.log(0.95 / 0.2)  # log likelihood ratio of a failure: 95 % of requests fail, against 20 %
SERVED = math.log(0.05 / 0.8)
THRESHOLD = 9.2  # six failures running cross it
LAST = 50  # baseline reports that must look healthy
LAST_FAILED = 2
SINCE = 3  # baseline reports needed since the candidate began to fail
SINCE_RATE = 0.2


class Tripwire:
    """A CUSUM over one attempt's requests as one worker sees them.

    Source: Page (1954), continuous inspection schemes; the sum is max(0, S + log likelihood ratio) in natural logs. It
    fires only while the baseline is healthy, because an outage of both arms is not the candidate's fault: at least 3
    baseline reports with at most 20 % failures since the sum left zero, and at most 2 failures in the last 50. Feed it
    requests, never sessions, and no client errors or cancellations: those blame nobody.
    """

    def __init__(self) -> None:
        self.fired: str | None = None
        self._sum = 0.0
        self._candidate: list[int] = [0, 0]  # reports and failures since the sum left zero
        self._since: list[int] = [0, 0]  # the same of the baseline
        self._last: deque[bool] = deque(maxlen=LAST)

    def observe(self, arm: Arm, failed: bool) -> str | None:
        """Take one report; return the reason, with its numbers, at the one report at which the wire trips."""
        if arm is Arm.BASELINE:
            self._last.append(failed)
            _count(self._since, failed)
        else:
            self._advance(failed)
        if self.fired is None and self._sum > THRESHOLD and self._baseline_healthy():
            self.fired = self._reason()
            return self.fired
        return None

    def _advance(self, failed: bool) -> None:
        if self._sum <= 0.0:
            self._candidate, self._since = [0, 0], [0, 0]
        self._sum = max(0.0, self._sum + (FAILED if failed else SERVED))
        _count(self._candidate, failed)

    def _baseline_healthy(self) -> bool:
        reports, failures = self._since
        return reports >= SINCE and failures <= SINCE_RATE * reports and sum(self._last) <= LAST_FAILED

    def _reason(self) -> str:
        (n, bad), (base, base_bad) = self._candidate, self._since
        return f"tripwire: {bad} of the candidate's last {n} requests failed, against {base_bad} of {base} at baseline"


def _count(cell: list[int], failed: bool) -> None:
    cell[0] += 1
    cell[1] += failed
