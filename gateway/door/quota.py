"""Requests per minute, tokens per minute and USD per day of each API key, without asking anybody on the way.

Each worker decides by its own counters and by what it last heard of the others', which it exchanges with the store
every `SYNC_S` seconds while a key is in use, and at once for a key that was silent. So no request waits for the store,
and this is the price: a worker cannot know what another has let in since. With N workers, in any minute,

    overshoot <= N x (requests or tokens of the key that a worker lets in per second) x 2 x SYNC_S,

where the exchange in which the store is found lost may take a second more, and where more than `AT_ONCE` keys are in
use they take turns: the interval grows with their number, while the share of each in what a worker can serve falls. A
budget is checked against what answers have cost, so what is under way when it is spent is still served, and paid.

With the store lost, each worker enforces its share: it takes every other worker to use as much as itself since they
were last heard of. That divides what remained of the minute, and from then on gives each limit / N a minute, N being
how many workers lived when the store was last heard. Only a worker that had not met a key in that minute knows nothing
of the others' use of it, and gives it its share once too often. What is smaller than one request a worker lets none in:
an outage closes a small limit rather than open it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from math import ceil, inf
from typing import Final

from canary.storage.apikeys import KeyLimits
from canary.storage.link import StoreError
from canary.storage.usage import Usage
from gateway.door.access import Caller
from gateway.door.client import pairs
from gateway.door.meter import DAY_S, Meter, wait
from gateway.errors import ApiError

SYNC_S: Final = 0.1  # between two exchanges of a key that is in use
LOST_S: Final = 0.5  # between two tries while the store is lost
GAP_S: Final = 0.01  # between two exchanges at least: a key that was silent is exchanged at once
_ACTIVE_S: Final = 10.0  # a key that was used so recently is exchanged each time
AT_ONCE: Final = 100  # keys in one exchange, so that it takes a worker and the store 1 ms or two
_FORGET_S: Final = DAY_S
_LOST_WAIT_S: Final = 60.0  # what is larger than a worker's share has to wait for the store
_LOG: Final = logging.getLogger("linnet.gateway")

Headers = tuple[tuple[bytes, bytes], ...]


def span(seconds: float) -> str:
    """Write a length of time as OpenAI's headers do: "1s", "6m0s", "7h12m30s"; rounded up to whole seconds."""
    whole = ceil(seconds)
    minutes, s = divmod(whole, 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}h{m}m{s}s" if hours else f"{m}m{s}s" if m else f"{s}s"


_SPANS: Final = tuple(span(60 + left).encode() for left in range(1, 62))  # by the whole seconds left of this minute


def _lines(what: bytes) -> bytes:
    """Return three of OpenAI's headers, to be filled in: a limit, what remains of it, how long until it is whole."""
    return b"".join(
        [
            b"x-ratelimit-%b-%b: %b\r\n" % line
            for line in ((b"limit", what, b"%d"), (b"remaining", what, b"%d"), (b"reset", what, b"%b"))
        ]
    )


_OF_REQUESTS: Final = _lines(b"requests")
_OF_TOKENS: Final = _lines(b"tokens")


class _Metered(Meter):
    """A key's meter with what is the same in each of its answers."""

    __slots__ = ("key_id", "limits")

    def __init__(self, key_id: str, limits: KeyLimits, unix_s: float) -> None:
        super().__init__(unix_s)
        self.key_id = key_id
        self.limit(limits)

    def limit(self, limits: KeyLimits) -> None:
        """Take limits; what was used stays used."""
        self.limits = limits

    def told(self, requests: float, tokens: float, rest: float) -> bytes:
        """Return OpenAI's headers as lines: limits, what remains of them, and in how long all of it is there again.

        What was used in this minute has expired at the end of the next.
        """
        rpm, tpm, reset = self.limits.rpm, self.limits.tpm, _SPANS[int(rest * 60.0)]
        for_requests = b"" if rpm is None else _OF_REQUESTS % (rpm, rpm - requests, reset)
        return for_requests if tpm is None else for_requests + _OF_TOKENS % (tpm, tpm - tokens, reset)


class Quota:
    """The limits of one worker's callers; `workers` is how many there are at least, this machine's.

    `now` is the worker's monotonic clock in seconds, everywhere; the store says which minute of the day that is.
    `alone` tells a metric that each worker enforces its share.
    """

    def __init__(
        self,
        usage: Usage,
        worker: str,
        workers: int,
        *,
        alone: Callable[[bool], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
        unix: Callable[[], float] = time.time,
    ) -> None:
        self._usage = usage
        self._worker = worker
        self._workers = self._live = max(1, workers)
        self._tell_alone = alone
        self._clock = clock
        self._offset = unix() - clock()  # until the store says what time it is
        self._meters: dict[str, _Metered] = {}
        self._fold = 1.0
        self._lost = self._heard = False
        self._lost_at = -inf
        self._wake = asyncio.Event()

    def admit(self, caller: Caller, tokens: int, now: float) -> bytes:
        """Reserve a request and its tokens (prompt and longest answer); return header lines for its answer.

        Nothing for a caller without limits. Raises ApiError 429, and then nothing was reserved.
        """
        limits = caller.limits
        if limits is None:
            return b""
        meter = self._meters.get(caller.key_id)
        if meter is None or meter.limits is not limits:
            meter = self._open(caller.key_id, limits, now)
        if now - meter.touched > _ACTIVE_S:
            self._wake.set()
        meter.touched = now
        rest, fold = meter.turn(now + self._offset), self._fold
        requests = meter.requests.used(1.0, rest, fold)
        used = meter.tokens.used(tokens, rest, fold)
        if (
            (limits.rpm is not None and requests > limits.rpm)
            or (limits.tpm is not None and used > limits.tpm)
            or (limits.usd_per_day is not None and meter.spent(fold) >= limits.usd_per_day)
        ):
            raise self._refusal(meter, tokens, rest, now + self._offset)
        meter.requests.own += 1.0
        meter.tokens.own += tokens
        return meter.told(requests, used, rest)

    def settle(self, caller: Caller, reserved: int, used: int, usd: float, *, at: float, now: float) -> None:
        """Correct a reservation made `at` a moment, once the answer is over: the tokens it used, and its USD.

        To be called once for each request that was admitted, however it ended.
        """
        meter = None if caller.limits is None else self._meters.get(caller.key_id)
        if meter is None:
            return
        meter.turn(now + self._offset)
        meter.touched = now
        minute = int((at + self._offset) // 60.0)
        meter.tokens.take_back(used - reserved, meter.minute - minute)
        if 0.0 < usd < inf and meter.limits.usd_per_day is not None:
            meter.usd += usd

    async def sync(self) -> None:
        """Exchange once with the store, as soon as it is due; to be called for ever. Raises StoreError.

        Nothing is asked for keys that nobody uses; the first request of such a key has it exchanged at once.
        """
        await self._turn()
        await self.exchange()

    async def exchange(self) -> None:
        """Exchange now. Raises StoreError."""
        now = self._clock()
        meters = self._due(now)
        if not meters and self._heard and not self._lost:
            return
        try:
            if not self._heard:
                await self._exchange((), now)  # what time it is, before anything is counted
            if meters or self._lost:
                await self._exchange(meters, now)
        except StoreError:
            self._apart(now)
            raise
        self._together()

    @property
    def alone(self) -> bool:
        """Tell whether this worker enforces its share, because the store is lost."""
        return self._lost

    async def _turn(self) -> None:
        """Wait for the next exchange: until it is time, or until a key is used that was not exchanged lately."""
        await asyncio.sleep(GAP_S)
        try:
            async with asyncio.timeout(LOST_S if self._lost else SYNC_S - GAP_S):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()

    def _due(self, now: float) -> list[_Metered]:
        """Return the meters to exchange, those that waited longest.

        After the store was lost these are all: it may have lost what it had.
        """
        due, forgotten = [], []
        for meter in self._meters.values():
            silent = now - meter.touched
            if silent <= _ACTIVE_S or meter.heard < self._lost_at:
                due.append(meter)
            elif silent > _FORGET_S:
                forgotten.append(meter.key_id)
        for key_id in forgotten:
            del self._meters[key_id]
        if len(due) > AT_ONCE:
            due.sort(key=lambda meter: meter.heard)
        return due[:AT_ONCE]

    async def _exchange(self, batch: Sequence[_Metered], now: float) -> None:
        for meter in batch:
            meter.turn(now + self._offset)
        told = [meter.own(meter.key_id) for meter in batch]
        heard = await self._usage.exchange(self._worker, told)
        for meter, own, others in zip(batch, told, heard.others, strict=True):
            meter.hear(own, others)
            meter.heard = now
        self._heard = True
        self._offset = heard.unix_s - self._clock()
        self._live = max(self._workers, heard.live)

    def _together(self) -> None:
        if self._lost:
            _LOG.warning("the store is back: the limits of API keys hold for all workers together")
            self._tell_alone(False)
        self._lost, self._fold = False, 1.0

    def _apart(self, now: float) -> None:
        self._lost_at = now
        if not self._lost:
            _LOG.warning("the store is lost: each of %d workers enforces its share of the limits", self._live)
            self._tell_alone(True)
        self._lost, self._fold = True, float(self._live)

    def _open(self, key_id: str, limits: KeyLimits, now: float) -> _Metered:
        """Return the meter of a key that is new here, or whose limits are."""
        meter = self._meters.get(key_id)
        if meter is None:
            meter = self._meters[key_id] = _Metered(key_id, limits, now + self._offset)
        meter.limit(limits)
        return meter

    def _refusal(self, meter: _Metered, tokens: int, rest: float, unix_s: float) -> ApiError:
        """Say which limit it was: the one that lasts longest first."""
        limits, fold = meter.limits, self._fold
        requests, used = meter.requests.used(0.0, rest, fold), meter.tokens.used(0.0, rest, fold)
        headers = pairs(meter.told(min(requests, limits.rpm or 0), min(used, limits.tpm or 0), rest))
        if limits.usd_per_day is not None and meter.spent(fold) >= limits.usd_per_day:
            return _broke(limits.usd_per_day, DAY_S - unix_s % DAY_S, headers)
        if limits.rpm is not None and meter.requests.used(1.0, rest, fold) > limits.rpm:
            return _too_fast(REQUESTS, limits.rpm, 1, wait(meter.requests, 1.0, limits.rpm, rest, fold), headers)
        limit = limits.tpm or 0
        return _too_fast(TOKENS, limit, tokens, wait(meter.tokens, tokens, limit, rest, fold), headers)


REQUESTS: Final = ("requests", "RPM")
TOKENS: Final = ("tokens", "TPM")


def _too_fast(what: tuple[str, str], limit: int, asked: int, seconds: float, headers: Headers) -> ApiError:
    """A limit per minute. What is larger than the limit is never let in; what is larger than a share, not now."""
    said = "{} for this key on {} per min ({}): Limit {}, Requested {}."
    if asked > limit:
        said = said.format("Request too large", *what, limit, asked)
    else:
        seconds = _LOST_WAIT_S if seconds == inf else seconds
        said = said.format("Rate limit reached", *what, limit, asked) + f" Please try again in {span(seconds)}."
    return ApiError(429, said, "rate_limit_exceeded", kind=what[0], retry_after_s=seconds, headers=headers)


def _broke(usd: float, seconds: float, headers: Headers) -> ApiError:
    said = f"You exceeded your current quota: this key's budget of {usd:g} USD a day is spent. "
    said += f"The next day (UTC) begins in {span(seconds)}."
    kind = "insufficient_quota"
    return ApiError(429, said, "insufficient_quota", kind=kind, retry_after_s=seconds, headers=headers)
