"""T0, the worker's own tripwire: a plainly broken candidate is off before the control plane has looked once."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from typing import Final, Generic

from canary.core.arms import Arm
from canary.core.watchdog import Hang, Watchdog, Who

FAILED: Final = math.log(0.95 / 0.2)  # log likelihood ratio of a failure: 95 % of requests fail, against 20 %
SERVED: Final = math.log(0.05 / 0.8)
THRESHOLD: Final = 9.2  # six failures running cross it
LAST: Final = 50  # baseline reports that must look healthy
LAST_FAILED: Final = 2
SINCE: Final = 3  # baseline reports needed since the candidate began to fail
SINCE_RATE: Final = 0.2


class Tripwire(Generic[Who]):
    """A CUSUM over one attempt's requests as one worker sees them.

    Source: Page (1954), continuous inspection schemes; the sum is max(0, S + log likelihood ratio) in natural logs. It
    fires only while the baseline is healthy, because an outage of both arms is not the candidate's fault: at least 3
    baseline reports with at most 20 % failures since the sum left zero, and at most 2 failures in the last 50. Feed it
    requests, never sessions, and no client errors or cancellations: those blame nobody.

    Requests that are still under way count too once they hang (see `canary.core.watchdog`): `streams` and `wholes` are
    told when a request is sent and when its first byte comes, apart, because a whole answer's first byte is its last.
    """

    def __init__(self) -> None:
        self.fired: str | None = None
        self.streams = Watchdog[Who]()
        self.wholes = Watchdog[Who]()
        self._sum = 0.0
        self._candidate: list[int] = [0, 0]  # reports and failures since the sum left zero
        self._since: list[int] = [0, 0]  # the same of the baseline
        self._last: deque[bool] = deque(maxlen=LAST)

    @property
    def waiting(self) -> tuple[Who, ...]:
        """Who waits for the candidate's first byte."""
        return (*self.streams.waiting, *self.wholes.waiting)

    def observe(self, arm: Arm, failed: bool) -> str | None:
        """Take one report; return the reason, with its numbers, at the one report at which the wire trips."""
        if arm is Arm.BASELINE:
            self._last.append(failed)
            _count(self._since, failed)
        elif failed or self._sum > 0.0:  # a served request leaves a sum of zero where it is
            self._advance(failed)
        if self.fired is None and self._sum > THRESHOLD and self._baseline_healthy():
            self.fired = self._reason()
            return self.fired
        return None

    def look(self, now: float) -> str | None:
        """Look for requests that hang; return the reason at the one look at which the wire trips.

        What the reports have summed up to is where the sum starts. It is not changed: what is overdue may yet come.
        """
        if self.fired is not None or sum(self._last) > LAST_FAILED:
            return None
        hangs = [hang for dog in (self.streams, self.wholes) if (hang := dog.look(now)) is not None]
        if not hangs or _summed(self._sum, hangs) <= THRESHOLD:
            return None
        self.fired = _told(hangs)
        return self.fired

    def _advance(self, failed: bool) -> None:
        if self._sum <= 0.0:
            self._candidate, self._since = [0, 0], [0, 0]
        self._sum = _next(self._sum, failed)
        _count(self._candidate, failed)

    def _baseline_healthy(self) -> bool:
        reports, failures = self._since
        return reports >= SINCE and failures <= SINCE_RATE * reports and sum(self._last) <= LAST_FAILED

    def _reason(self) -> str:
        (n, bad), (base, base_bad) = self._candidate, self._since
        return f"tripwire: {bad} of the candidate's last {n} requests failed, against {base_bad} of {base} at baseline"


def _next(total: float, failed: bool) -> float:
    return max(0.0, total + (FAILED if failed else SERVED))


def _summed(start: float, hangs: Iterable[Hang]) -> float:
    """Return the sum after every request since the first overdue one, in the order they were sent."""
    total = start
    for _, overdue in sorted(request for hang in hangs for request in hang.requests):
        total = _next(total, overdue)
    return total


def _told(hangs: list[Hang]) -> str:
    requests = [overdue for hang in hangs for _, overdue in hang.requests]
    limit, usual = max(hang.limit for hang in hangs), max(hang.usual for hang in hangs)
    return (
        f"tripwire: {sum(requests)} of the candidate's last {len(requests)} requests wait for a first byte for more "
        f"than {limit:.1f} s, against {usual:.2f} s (99 %) at baseline"
    )


def _count(cell: list[int], failed: bool) -> None:
    cell[0] += 1
    cell[1] += failed
