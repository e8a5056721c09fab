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

*Load* hits both arms, so the baseline's requests that are overdue are counted as well. The watchdog barks only if, of
the baseline's requests since the candidate's first overdue one, at most a fifth were late or are overdue, and if
`SINCE` of those sent within the last limit were answered in time; of the candidate's, two thirds must be overdue for
the sum to grow at all. And where answers come in the order of their requests, as from a queue, load alone cannot do it:
no request of an equal baseline that was sent after an overdue one is answered yet.

*Unlike requests.* One user's prompts all go to one arm, and very long ones wait long. A request larger than the 99 %
quantile of what the baseline has answered lately is not watched; the gateway's limits see to it.

Below `LEAST` answers of the baseline there is nothing to compare with, and nothing is overdue.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from canary.core.arms import Arm

Who = TypeVar("Who")  # anything that can be a key

FLOOR_S: Final = 10.0  # seconds; nothing is overdue before
TIMES: Final = 3.0
KEPT: Final = 200  # answers of the baseline that are remembered
LEAST: Final = 20
SINCE: Final = 3
LATE_RATE: Final = 0.2
_SERVED_KEPT: Final = 256  # of the candidate: so many answers outweigh any number that could be waiting


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

    __slots__ = ("_asked", "_baseline", "_served", "_waiting")

    def __init__(self) -> None:
        self._waiting: dict[Who, tuple[float, int]] = {}  # for the candidate
        self._asked: dict[Who, tuple[float, int]] = {}  # of the baseline
        self._served: deque[float] = deque(maxlen=_SERVED_KEPT)
        self._baseline: deque[tuple[float, float, int]] = deque(maxlen=KEPT)

    @property
    def waiting(self) -> Collection[Who]:
        """Who waits for the candidate's first byte."""
        return self._waiting.keys()

    def sent(self, arm: Arm, who: Who, now: float, size: int) -> None:
        """Note that an arm was asked."""
        (self._waiting if arm is Arm.CANDIDATE else self._asked)[who] = now, size

    def heard(self, arm: Arm, who: Who, now: float) -> None:
        """Note the first byte of an arm's answer."""
        if arm is Arm.CANDIDATE:
            sent = self._waiting.pop(who, None)
            if sent is not None:
                self._served.append(sent[0])
        else:
            sent = self._asked.pop(who, None)
            if sent is not None:
                self._baseline.append((sent[0], now - sent[0], sent[1]))

    def gone(self, arm: Arm, who: Who) -> None:
        """Forget one that has ended without a first byte."""
        (self._waiting if arm is Arm.CANDIDATE else self._asked).pop(who, None)

    def look(self, now: float) -> Hang | None:
        """Return what hangs, None if nothing does or if nothing can be said."""
        if len(self._baseline) < LEAST or not self._any_older(now - FLOOR_S):
            return None
        usual, largest = _p99([wait for _, wait, _ in self._baseline]), _p99([size for *_, size in self._baseline])
        limit = max(FLOOR_S, TIMES * usual)
        overdue = _older(self._waiting.values(), now - limit, largest)
        if not overdue or not self._baseline_served(now, limit, min(overdue), largest):
            return None
        served = [(sent, False) for sent in self._served if sent >= min(overdue)]
        return Hang(tuple(sorted([(sent, True) for sent in overdue] + served)), limit, usual)

    def _any_older(self, then: float) -> bool:
        """Tell whether the request asked first was asked before `then`: one step, as most looks find nothing."""
        oldest = next(iter(self._waiting.values()), None)
        return oldest is not None and oldest[0] < then

    def _baseline_served(self, now: float, limit: float, since: float, largest: float) -> bool:
        """Tell whether the baseline has answered in time what it was asked since then, and still does."""
        answered = [(sent, wait) for sent, wait, _ in self._baseline if sent >= since]
        late = sum(wait > limit for _, wait in answered)
        hanging = len(_older(self._asked.values(), now - limit, largest))
        prompt = sum(sent > now - limit for sent, _ in answered)
        return prompt >= SINCE and late + hanging <= LATE_RATE * (len(answered) + hanging)


def _older(requests: Iterable[tuple[float, int]], then: float, largest: float) -> list[float]:
    """Return when those were sent that were sent before `then`, without the largest."""
    return [sent for sent, size in requests if sent < then and size <= largest]


def _p99(values: Iterable[float]) -> float:
    """Return the 99 % quantile: the smallest value that 99 % do not exceed."""
    ordered = sorted(values)
    return ordered[math.ceil(0.99 * len(ordered)) - 1]
