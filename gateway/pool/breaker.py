"""A replica's circuit breaker: it is left alone while it fails, and tried by one request at a time (pure).

    CLOSED --too many failures--> OPEN --its time is over, one request is sent--> PROBING
       ^                            ^------------------ it fails: twice as long ----'  |
       '------------------------------ it answers -------------------------------------'

What a client did wrong never counts: the caller reports failures of the engine only (no connection, a lost one, a limit
that passed, a 5xx). Where every replica of a pool is open, the pool asks them all the same: a failure that is common to
all is not mended by asking none. Such a request's good answer closes the breaker, its failure changes nothing.

A result speaks for the time its request was sent in: each change of state starts a new epoch, and results of an older
one are ignored. So sixty streams that die with their engine open it once, and cannot close or open it later.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Final

from gateway.pool.options import PoolOptions

_MOST_DOUBLINGS: Final = 16


class State(StrEnum):
    """Whether a replica is asked."""

    CLOSED = "closed"
    OPEN = "open"
    PROBING = "probing"


class Breaker:
    """One replica's breaker in one pool. `now` is monotonic seconds; `chance` draws from [0, 1)."""

    __slots__ = (
        "_chance",
        "_changed",
        "_failed",
        "_in_a_row",
        "_results",
        "_trips",
        "_unreachable",
        "_window_ends",
        "closed_at",
        "epoch",
        "options",
        "state",
        "until",
    )

    def __init__(self, options: PoolOptions, chance: Callable[[], float], changed: Callable[[], None]) -> None:
        self.options = options
        self._chance = chance
        self._changed = changed  # called after each change of state
        self._trips = 0
        self._unreachable = False
        self.state = State.CLOSED
        self.epoch = 0
        self.closed_at = 0.0
        self.until = 0.0  # an open breaker lets a probe through from this time on
        self._in_a_row = self._results = self._failed = 0
        self._window_ends = 0.0

    def due(self, now: float) -> bool:
        """Tell whether the next request should be the probe."""
        return self.state is State.OPEN and now >= self.until

    def begin(self, now: float) -> int:
        """Note that a request is sent, a probe if one is due; return the epoch that its result belongs to."""
        if self.state is State.OPEN and now >= self.until:
            self._enter(State.PROBING)
        return self.epoch

    def heard(self, epoch: int, now: float) -> None:
        """Hear that an answer began, and is not a 5xx: enough to close, whatever becomes of its stream."""
        if self.state is not State.CLOSED and epoch == self.epoch:
            self._close(now)

    def succeeded(self, epoch: int, now: float) -> None:
        """Hear that an answer came whole."""
        if self.state is State.CLOSED:
            self._in_a_row = 0
            self._count(now)
        else:
            self.heard(epoch, now)

    def failed(self, epoch: int, now: float) -> None:
        """Hear that the engine failed."""
        if epoch != self.epoch or self.state is State.OPEN:
            return
        if self.state is State.CLOSED:
            self._count(now)
            self._failed += 1
            self._in_a_row += 1
            if not self._too_many():
                return
        self._open(now)

    def let_go(self, epoch: int) -> None:
        """Hear that a request ended without saying anything about the engine: the next one is the probe."""
        if self.state is State.PROBING and epoch == self.epoch:
            self._enter(State.OPEN)

    def unreachable(self, now: float) -> None:
        """Hear that there is no connection to be had: one failure is enough."""
        if self.state is not State.OPEN:
            self._open(now)
            self._unreachable = True

    def reachable(self, now: float) -> None:
        """Hear that a connection can be had again. Only a real answer closes: an engine may accept, and be frozen."""
        if self._unreachable and self.state is State.OPEN and now < self.until:
            self.until = now
            self._changed()

    def _too_many(self) -> bool:
        rule = self.options
        enough = self._results >= rule.window_least
        return self._in_a_row >= rule.failures or (enough and self._failed >= rule.failure_rate * self._results)

    def _count(self, now: float) -> None:
        if now >= self._window_ends:
            self._results = self._failed = 0
            self._window_ends = now + self.options.window_s
        self._results += 1

    def _open(self, now: float) -> None:
        """Leave alone, longer each time; three quarters to five quarters of it, so that workers do not come at once."""
        rule = self.options
        if self.state is State.CLOSED and now - self.closed_at > rule.open_most_s:
            self._trips = 0
        wait = min(rule.open_most_s, rule.open_s * 2.0 ** min(self._trips, _MOST_DOUBLINGS))
        self._trips += 1
        self._unreachable = False
        self.until = now + wait * (0.75 + self._chance() / 2)
        self._enter(State.OPEN)

    def _close(self, now: float) -> None:
        self.closed_at = now
        self._in_a_row = self._results = self._failed = 0
        self._window_ends = 0.0
        self._enter(State.CLOSED)

    def _enter(self, state: State) -> None:
        self.state = state
        self.epoch += 1
        self._changed()
