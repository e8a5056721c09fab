"""The tripwire's watchdog: requests of the candidate that hang are seen before any limit has passed (pure).

A candidate that accepts requests and never answers fails none of them until the gateway's own limits pass, and those
are made for the longest prompt. So a request of the candidate counts as failed for as long as its first byte is
*overdue*: it has waited longer than `FLOOR_S`, and than `TIMES` the 99 % quantile of the baseline's last `KEPT` waits
for answers of the same kind. Nothing is booked: a first byte that comes after all is an answer like others.

False alarms, for a candidate that is equal:

*Chance.* Less than 0.5 % of equal requests wait three times the 99 % quantile, also where waits have heavy tails
(log-normal with a standard deviation of 2: 0.2 %; Pareto with index 1: 0.33 %). The sum is Page's (1954): requests in
the order they were sent, +ln(.95/.2) one that is overdue, +ln(.05/.8) one that was answered, never below zero. It is
made for telling 95 % from 20 %: even at 20 % a run that starts at zero passes 9.2 with probability e^-9.2 = 1e-4 at
most (Wald's inequality); at 0.5 % it takes six in a row, 2e-14.

*Load* hits both arms. Requests of one kind are answered about in the order they come, so if arms are equal, no request
of the baseline that was sent after an overdue one is answered yet. The watchdog barks only if the baseline has answered
`SINCE` requests sent within the last limit, each in time, and not more than a fifth of its answers in that time were
late.

*Unlike requests.* One user's prompts all go to one arm, and very long ones wait long. A request larger than the 99 %
quantile of what the baseline has answered lately is not watched; the gateway's limits see to it.

Below `LEAST` answers of the baseline there is nothing to compare with, and nothing is overdue.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

Who = TypeVar("Who")  # anything that can be a key

FLOOR_S = 10.0  # seconds; nothing is overdue before
TIMES = 3.0
KEPT = 200  # answers of the baseline that are remembered
LEAST = 20
SINCE = 3
LATE_RATE = 0.2
_SERVED_KEPT = 256  # of the candidate: so many answers outweigh any number that could be waiting


@dataclass(frozen=True, slots=True)
class Hang:
    """What hangs at one moment: `requests` are the candidate's since the first overdue one, (sent at, overdue).

    `limit` and `usual` (the baseline's 99 % quantile) are in seconds.
    """

    requests: tuple[tuple[float, bool], ...]
    limit: float
    usual: float


class Watchdog(Generic[Who]):
    """The waits for a first byte in one attempt, as one worker sees them, for answers of one kind.

    Times are monotonic seconds; `size` says how much work a request is, in any unit. Whoever waits is a key of the
    caller's.
    """

    __slots__ = ("_baseline", "_served", "_waiting")

    def __init__(self) -> None:
        self._waiting: dict[Who, tuple[float, int]] = {}
        self._served: deque[float] = deque(maxlen=_SERVED_KEPT)
        self._baseline: deque[tuple[float, float, int]] = deque(maxlen=KEPT)

    @property
    def waiting(self) -> Collection[Who]:
        """Who waits for the candidate's first byte."""
        return self._waiting.keys()

    def sent(self, who: Who, now: float, size: int) -> None:
        """Note that the candidate was asked."""
        self._waiting[who] = now, size

    def gone(self, who: Who) -> None:
        """Forget one that has ended in another way."""
        self._waiting.pop(who, None)

    def answered(self, who: Who) -> None:
        """Note the first byte of the candidate's answer."""
        sent = self._waiting.pop(who, None)
        if sent is not None:
            self._served.append(sent[0])

    def baseline(self, sent: float, now: float, size: int) -> None:
        """Note the first byte of an answer of the baseline."""
        self._baseline.append((sent, now - sent, size))

    def look(self, now: float) -> Hang | None:
        """Return what hangs, None if nothing does or if nothing can be said."""
        if len(self._baseline) < LEAST or not self._any_older(now - FLOOR_S):
            return None
        usual, largest = _p99([wait for _, wait, _ in self._baseline]), _p99([size for *_, size in self._baseline])
        limit = max(FLOOR_S, TIMES * usual)
        overdue = [sent for sent, size in self._waiting.values() if sent < now - limit and size <= largest]
        if not overdue or not self._baseline_served(now, limit):
            return None
        first = min(overdue)
        requests = [(sent, True) for sent in overdue] + [(sent, False) for sent in self._served if sent >= first]
        return Hang(tuple(sorted(requests)), limit, usual)

    def _any_older(self, then: float) -> bool:
        """Tell whether the request asked first was asked before `then`: one step, as most looks find nothing."""
        oldest = next(iter(self._waiting.values()), None)
        return oldest is not None and oldest[0] < then

    def _baseline_served(self, now: float, limit: float) -> bool:
        """Tell whether the baseline answers in time what it is asked now."""
        lately = [(sent, wait) for sent, wait, _ in self._baseline if sent + wait > now - limit]
        late = sum(wait > limit for _, wait in lately)
        prompt = sum(sent > now - limit for sent, _ in lately)
        return prompt >= SINCE and late <= LATE_RATE * len(lately)


def _p99(values: Iterable[float]) -> float:
    """Return the 99 % quantile: the smallest value that 99 % do not exceed."""
    ordered = sorted(values)
    return ordered[math.ceil(0.99 * len(ordered)) - 1]
