"""What one API key has used, as one worker knows it (pure: time is an argument, in Unix seconds).

A sliding window of a minute is estimated from two counters, the running minute's and the one before it: what was used
in the minute before counts by the part of it that the last 60 seconds still reach. That is the sliding window counter
(Cloudflare, "How we built rate limiting capable of scaling to millions of domains", 2017: 0.003 % of 400 million
requests were decided otherwise than by an exact log). A leaky bucket (GCRA) would need as little memory; but its state
is a moment, and moments of several workers cannot be added up, while counters can, and a reservation can be taken back
from a counter exactly. Like a full bucket, a key that was silent may use its limit at once and again over the minute
that follows: over time the rate is exact, and within a calendar minute never more than the limit is used.
"""

from __future__ import annotations

from math import inf
from typing import Final

from canary.storage.usage import Used

MINUTE_S: Final = 60.0
DAY_S: Final = 86_400.0


class Count:
    """One amount in this minute and the one before: own, told (what the store has of it), and the others'."""

    __slots__ = ("others", "others_before", "own", "own_before", "told", "told_before")

    def __init__(self) -> None:
        self.own = self.own_before = 0.0
        self.told = self.told_before = 0.0
        self.others = self.others_before = 0.0

    def roll(self, minutes: int) -> None:
        """Let minutes pass."""
        keep = minutes == 1
        self.own_before, self.own = self.own if keep else 0.0, 0.0
        self.told_before, self.told = self.told if keep else 0.0, 0.0
        self.others_before, self.others = self.others if keep else 0.0, 0.0

    def used(self, ask: float, rest: float, fold: float) -> float:
        """Return what a minute's window would hold with `ask` more; `rest` is what `Meter.turn` returned.

        With `fold` > 1, that many workers are taken to have used as much as this one since they last spoke.
        """
        own = self.own + ask
        used = self.others + own + (self.others_before + self.own_before) * rest
        if fold > 1.0:
            fresh, fresh_before = own - self.told, self.own_before - self.told_before
            used += (fold - 1.0) * (max(0.0, fresh) + max(0.0, fresh_before) * rest)
        return used

    def take_back(self, amount: float, minutes_ago: int) -> None:
        """Correct what was reserved; a refund of a minute that no longer counts is void, a surcharge never."""
        if minutes_ago <= 0 or (minutes_ago > 1 and amount > 0.0):
            self.own = max(0.0, self.own + amount)
        elif minutes_ago == 1:
            self.own_before = max(0.0, self.own_before + amount)


class Meter:
    """One key's counters in one worker."""

    __slots__ = ("day", "heard", "minute", "requests", "tokens", "touched", "usd", "usd_others", "usd_told")

    def __init__(self, unix_s: float) -> None:
        self.minute = int(unix_s // MINUTE_S)
        self.day = int(unix_s // DAY_S)
        self.requests = Count()
        self.tokens = Count()
        self.usd = self.usd_told = self.usd_others = 0.0
        self.touched = self.heard = -inf  # when it was last used, and exchanged

    def turn(self, unix_s: float) -> float:
        """Move to a moment; return the part of the minute before that the last 60 seconds still reach, 0..1.

        A clock that steps back frees nothing: the minute stays, and nothing of the one before expires, until the clock
        has caught up. After a step of more than a minute that might take for ever, so then it is the next minute on the
        new clock that the counters belong to.
        """
        minutes = unix_s / MINUTE_S
        passed = int(minutes) - self.minute
        if passed > 0:
            self.requests.roll(passed)
            self.tokens.roll(passed)
            self.minute += passed
        elif passed < -1:
            self.minute += passed + 1
        self._turn_day(int(unix_s // DAY_S))
        rest = 1.0 - (minutes - self.minute)
        return min(1.0, rest)

    def _turn_day(self, day: int) -> None:
        if day > self.day:
            self.usd = self.usd_told = self.usd_others = 0.0
            self.day = day
        elif day < self.day - 1:
            self.day = day + 1

    def spent(self, fold: float) -> float:
        """Return the day's USD; `fold` as in Count."""
        fresh = self.usd - self.usd_told
        return self.usd_others + self.usd + ((fold - 1.0) * fresh if fresh > 0.0 else 0.0)

    def own(self, key_id: str) -> Used:
        """Return what this worker has used."""
        requests, tokens = self.requests, self.tokens
        minutes = (requests.own, tokens.own, requests.own_before, tokens.own_before)
        return Used(key_id, self.minute, self.day, *minutes, self.usd)

    def hear(self, told: Used, others: Used) -> None:
        """Take what the store has: of this worker what was told, and the others' sums.

        A minute or a day that ended while the answer was on its way is put where it belongs by now. USD only grow
        within a day, so a store that knows of fewer has lost some.
        """
        if self.minute == told.minute:
            _hear(self.requests, (told.requests, told.requests_before), (others.requests, others.requests_before))
            _hear(self.tokens, (told.tokens, told.tokens_before), (others.tokens, others.tokens_before))
        elif self.minute == told.minute + 1:
            _hear(self.requests, (0.0, told.requests), (self.requests.others, others.requests))
            _hear(self.tokens, (0.0, told.tokens), (self.tokens.others, others.tokens))
        if self.day == told.day:
            self.usd_told, self.usd_others = told.usd, max(self.usd_others, others.usd)


def _hear(count: Count, told: tuple[float, float], others: tuple[float, float]) -> None:
    count.told, count.told_before = told
    count.others, count.others_before = others


def wait(count: Count, ask: float, limit: float, rest: float, fold: float) -> float:
    """Return in how many seconds `ask` would be within the limit if nothing else came, infinity for never.

    Within this minute while the one before expires, or in the next while this one does.
    """
    now, full = count.used(ask, 0.0, fold), count.used(ask, 1.0, fold)
    if now <= limit:
        return max(0.0, rest - (limit - now) / (full - now)) * MINUTE_S if full > now else 0.0
    spare, sum_now = limit - ask * fold, count.used(0.0, 0.0, fold)
    if spare < 0.0 or sum_now <= 0.0:
        return inf
    return (rest + max(0.0, 1.0 - spare / sum_now)) * MINUTE_S
