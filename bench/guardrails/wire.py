"""The workers' tripwire (`canary.core.tripwire`) for many runs at once, report by report; one worker sees all."""

from __future__ import annotations

import numpy as np

from bench.guardrails.bets import BASELINE, CANDIDATE, Bools, Floats, Ints
from canary.core import tripwire


class Wire:
    """One tripwire a run."""

    def __init__(self, runs: int) -> None:
        self.fired: Bools = np.zeros(runs, bool)
        self._sum: Floats = np.zeros(runs)
        self._baseline: Ints = np.zeros((runs, 2), np.int64)  # reports and failures so far
        self._before: Ints = np.zeros((runs, 2), np.int64)  # those when the sum left zero
        # At which of the baseline's reports it failed last, and before that: enough to count failures in the last 50.
        self._failures: Ints = np.full((runs, tripwire.LAST_FAILED + 1), -tripwire.LAST, np.int64)

    def take(self, runs: Ints, arms: Ints, failed: Bools) -> dict[int, int]:
        """Take reports, each run's in their order; return the candidate's reports up to the one at which it fired."""
        blamed = np.zeros(len(self._sum), bool)
        blamed[runs[failed & (arms == CANDIDATE)]] = True
        awake = (blamed | (self._sum > 0)) & ~self.fired
        self._count(runs, arms, failed, ~awake)
        return self._follow(runs, arms, failed, np.flatnonzero(awake))

    def _count(self, runs: Ints, arms: Ints, failed: Bools, calm: Bools) -> None:
        """Count the baseline's reports where the candidate's change nothing."""
        mine = np.flatnonzero((arms == BASELINE) & calm[runs])
        before, counts = self._baseline[:, 0].copy(), np.bincount(runs[mine], minlength=len(calm))
        self._baseline[:, 0] += counts
        places = np.flatnonzero(failed[mine])
        which = runs[mine[places]]
        at = before[which] + places - (np.cumsum(counts) - counts)[which] + 1
        while which.size:  # the first of each run, then what is left
            rows, first = np.unique(which, return_index=True)
            self._fail(rows, at[first])
            which, at = np.delete(which, first), np.delete(at, first)

    def _fail(self, rows: Ints, at: Ints) -> None:
        self._baseline[rows, 1] += 1
        self._failures[rows, 1:] = self._failures[rows, :-1]
        self._failures[rows, 0] = at

    def _follow(self, runs: Ints, arms: Ints, failed: Bools, rows: Ints) -> dict[int, int]:
        """Go through the reports of `rows` one by one, side by side."""
        first, last = np.searchsorted(runs, rows), np.searchsorted(runs, rows, side="right")
        found: dict[int, int] = {}
        own = np.zeros(len(rows), np.int64)
        for number in range(int((last - first).max(initial=0))):
            here = np.flatnonzero((first + number < last) & ~self.fired[rows])
            place, which = first[here] + number, rows[here]
            arm, bad = arms[place], failed[place]
            own[here] += arm == CANDIDATE
            self._observe(which[arm == BASELINE], bad[arm == BASELINE])
            self._advance(which[arm == CANDIDATE], bad[arm == CANDIDATE])
            trips = here[(self._sum[which] > tripwire.THRESHOLD) & self._healthy(which)]
            self.fired[rows[trips]] = True
            found |= {int(rows[i]): int(own[i]) for i in trips}
        return found

    def _observe(self, rows: Ints, bad: Bools) -> None:
        self._baseline[rows, 0] += 1
        self._fail(rows[bad], self._baseline[rows[bad], 0])

    def _advance(self, rows: Ints, bad: Bools) -> None:
        leaves = rows[self._sum[rows] <= 0]
        self._before[leaves] = self._baseline[leaves]
        moved = self._sum[rows] + np.where(bad, tripwire.FAILED, tripwire.SERVED)
        self._sum[rows] = np.maximum(0.0, moved)

    def _healthy(self, rows: Ints) -> Bools:
        since = self._baseline[rows] - self._before[rows]
        recent = self._baseline[rows, 0] - self._failures[rows, -1] < tripwire.LAST
        few = since[:, 1] <= tripwire.SINCE_RATE * since[:, 0]
        found: Bools = (since[:, 0] >= tripwire.SINCE) & few & ~recent
        return found
