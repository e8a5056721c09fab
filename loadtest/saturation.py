"""The saturation run: a closed loop that keeps an arm as busy as its users can, to find what it serves at capacity.

Closed on purpose: each user waits for its answer, so the engine sets the pace, and a slower engine serves less in the
same paid time. Latency is not judged here (see loadtest.schedule for why).
"""

from __future__ import annotations

import time
from itertools import chain, count, repeat
from random import Random

import gevent
from gevent.pool import Group

from loadtest.records import Job, Record
from loadtest.schedule import Line, draw
from loadtest.users import Ask, Clock, Keep, outcome

_AFTER_FAILURE_S = 0.1  # an engine that refuses at once is not hammered


class ClosedLoop:
    """So many users at a time; each sends its next request as soon as its last one has ended."""

    def __init__(
        self, job: Job, lines: tuple[Line, ...], ask: Ask, keep: Keep, clock: Clock = time.perf_counter
    ) -> None:
        self._job = job
        self._lines = draw(lines, Random(job.seed + 2))  # noqa: S311 - no secrets
        self._ask = ask
        self._keep = keep
        self._clock = clock
        self._group = Group()
        self.began = 0.0
        self.sent = 0

    def run(self) -> None:
        """Keep the users asking for the duration, then let go of what is in flight: it is not counted."""
        asked = self._job.saturation
        self.began = self._clock()
        for user in range(asked.in_flight):
            self._group.spawn(self._user, user)
        self._group.join(asked.duration)  # users go on for ever
        self.stop()

    def stop(self) -> None:
        """End it at once."""
        self._group.kill()

    def _user(self, user: int) -> None:
        for number, tokens in zip(count(), chain([self._first(user)], repeat(self._job.max_tokens)), strict=False):
            if not self._one(f"{self._job.session}-saturation-{user}-{number}", tokens):
                gevent.sleep(_AFTER_FAILURE_S)

    def _first(self, user: int) -> int:
        """Return a first answer's length: each user's its own, lest all go on in step and end together."""
        return -(-self._job.max_tokens * (user + 1) // self._job.saturation.in_flight)

    def _one(self, session: str, tokens: int) -> bool:
        line, due, unix = next(self._lines), self._clock(), time.time()
        self.sent += 1
        told = outcome(self._ask(line, session, tokens), self._job.arm, due)
        self._keep(Record(unix=round(unix, 4), at=round(due - self.began, 6), slice=line.slice, **told))
        return bool(told["ok"])
