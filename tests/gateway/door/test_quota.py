"""Limits of API keys over several workers on a real store: never more than was promised, nothing free, no waiting."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial

import openai
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from canary.core.events import Cause
from canary.storage import keys as names
from canary.storage.apikeys import KeyLimits, Scope, checked
from canary.storage.link import StoreError, ending
from canary.storage.store import Store
from canary.storage.usage import Heard, Usage, Used
from gateway.door.access import Caller
from gateway.door.client import pairs
from gateway.door.quota import AT_ONCE, SYNC_S, Quota, span
from gateway.errors import ApiError
from tests.gateway.rig import MODEL, House, Sim, until
from tests.support.valkey import Valkey

START = 1_800_000_000.0  # the beginning of a minute
STORED = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def caller(rpm: int | None = None, tpm: int | None = None, usd: float | None = None, key: str = "key_1") -> Caller:
    """A caller with limits."""
    return Caller("hash", frozenset({Scope.INFERENCE}), key, KeyLimits(rpm, tpm, usd))


class Clock:
    """A time that the test moves; `lost` cuts the line to the store."""

    def __init__(self) -> None:
        self.now = 0.0
        self.lost = False


class Shifted(Usage):
    """The store's sums under the test's clock."""

    def __init__(self, store: Store, clock: Clock) -> None:
        super().__init__(store._redis, store.url)
        self._clock = clock

    async def exchange(self, worker: str, own: Sequence[Used]) -> Heard:
        """Exchange, unless the line is cut."""
        if self._clock.lost:
            raise StoreError("store: cut")
        return replace(await super().exchange(worker, own), unix_s=START + self._clock.now)


class Workers:
    """Several workers, one key, and a ledger of what was let in."""

    def __init__(self, store: Store, count: int, who: Caller) -> None:
        self.clock, self.who = Clock(), who
        usage = Shifted(store, self.clock)
        self.quotas = [
            Quota(usage, f"w{n}", count, clock=lambda: self.clock.now, unix=lambda: START + self.clock.now)
            for n in range(count)
        ]
        self.admitted: dict[int, list[int]] = {}  # minute -> tokens let in by each worker
        self._told = [dict[int, int]() for _ in range(count)]
        self._known = [[dict[int, int]() for _ in range(count)] for _ in range(count)]
        self.worst = 0  # the most that a worker let in knowingly

    def ask(self, worker: int, tokens: int) -> bool:
        """Ask once; tell whether it was let in."""
        try:
            self.quotas[worker].admit(self.who, tokens, self.clock.now)
        except ApiError:
            return False
        minute = self._minute(int(self.clock.now // 60))
        minute[worker] += tokens
        self.worst = max(self.worst, sum(minute) - self._unknown(worker))
        return True

    async def sync(self, worker: int) -> None:
        """Let one worker exchange, the key being in use there."""
        quota = self.quotas[worker]
        quota._open(self.who.key_id, self.who.limits or KeyLimits(), self.clock.now).touched = self.clock.now
        with suppress(StoreError):
            await self.quotas[worker].exchange()
        if not self.clock.lost:
            self._told[worker] = {minute: cells[worker] for minute, cells in self.admitted.items()}
            self._known[worker] = [dict(told) for told in self._told]

    async def in_step(self) -> None:
        """Let everybody know everything."""
        for worker in [*range(len(self.quotas)), *range(len(self.quotas))]:
            await self.sync(worker)

    def _minute(self, minute: int) -> list[int]:
        return self.admitted.setdefault(minute, [0] * len(self.quotas))

    def _unknown(self, worker: int) -> int:
        """What others let in, in the window, that this worker cannot know of."""
        now = int(self.clock.now // 60)
        others = [n for n in range(len(self.quotas)) if n != worker]
        return sum(
            self._minute(minute)[n] - self._known[worker][n].get(minute, 0) for minute in (now - 1, now) for n in others
        )

    def most(self) -> int:
        """What the fullest minute let in."""
        return max((sum(cells) for cells in self.admitted.values()), default=0)


def run(url: str, count: int, who: Caller, story: Callable[[Workers], Awaitable[None]]) -> None:
    """Run a story on an empty store with a heartbeat of each worker."""

    async def play() -> None:
        store = Store.connect(url)
        try:
            await store._redis.flushall()
            for n in range(count):
                await store.heartbeat(f"w{n}", round(time.time() * 1000))
            await story(Workers(store, count, who))
        finally:
            await store.close()

    asyncio.run(play())


WORKERS = st.integers(1, 4)
LIMIT = st.integers(1, 30)
ASK = st.tuples(st.just("ask"), st.integers(0, 3), st.integers(1, 10))
SYNC = st.tuples(st.just("sync"), st.integers(0, 3), st.just(0))
PASS = st.tuples(st.just("pass"), st.just(0), st.integers(1, 90))
EVENTS = st.lists(st.one_of(ASK, ASK, SYNC, PASS), max_size=60)
FLOOD = st.lists(st.one_of(ASK, ASK, ASK, ASK, SYNC, PASS), min_size=30, max_size=60)


@given(WORKERS, LIMIT, FLOOD)
@STORED
def test_no_schedule_lets_in_more_than_the_limit_and_what_nobody_could_know(valkey_url, count, limit, events) -> None:
    """Whoever speaks with the store when: beyond the limit there is only what others let in unheard."""

    async def story(workers: Workers) -> None:
        for what, worker, amount in events:
            if what == "ask":
                workers.ask(worker % count, amount)
            elif what == "sync":
                await workers.sync(worker % count)
            else:
                workers.clock.now += amount
        assert workers.worst <= limit

    run(valkey_url, count, caller(tpm=limit), story)


@given(WORKERS, st.integers(1, 50), st.integers(1, 6), st.randoms(use_true_random=False))
@STORED
def test_the_overshoot_is_what_others_let_in_within_two_exchanges(valkey_url, count, limit, asks, chance) -> None:
    """N x rate x 2 intervals, under a flood at every worker; and the limit itself is reached.

    Between two exchanges of a worker lie up to two rounds, because each round has an order of its own.
    """

    async def story(workers: Workers) -> None:
        for _ in range(2 + limit // asks):
            order = [(n, kind) for n in range(count) for kind in ["ask"] * asks + ["sync"]]
            chance.shuffle(order)
            for worker, kind in order:
                if kind == "ask":
                    workers.ask(worker, 1)
                else:
                    await workers.sync(worker)
        assert min(limit, asks * count) <= workers.most() <= limit + count * asks * 2 * 2

    run(valkey_url, count, caller(rpm=limit, tpm=10**9), story)


@given(WORKERS, LIMIT, EVENTS, FLOOD)
@STORED
def test_a_lost_store_opens_no_limit(valkey_url, count, limit, events, after) -> None:
    """Everybody in step, then the line is cut: every minute from then on holds the limit, whoever asks whom."""

    async def story(workers: Workers) -> None:
        await workers.in_step()
        for what, worker, amount in events:
            if what == "ask":
                workers.ask(worker % count, amount)
                await workers.in_step()
        assert workers.most() <= limit
        workers.clock.lost = True
        for each in range(count):
            await workers.sync(each)
        for what, worker, amount in after:
            if what == "ask":
                workers.ask(worker % count, amount)
            elif what == "sync":
                await workers.sync(worker % count)
            else:
                workers.clock.now += amount
        assert workers.most() <= limit

    run(valkey_url, count, caller(tpm=limit), story)


@given(WORKERS, LIMIT, FLOOD)
@STORED
def test_workers_in_step_decide_as_one(valkey_url, count, limit, events) -> None:
    """With an exchange after each request: this minute, and the last by the part of it that 60 seconds reach."""

    async def story(workers: Workers) -> None:
        for what, worker, amount in events:
            if what == "pass":
                workers.clock.now += amount * 15 / 16  # an exact part of a minute
            await workers.in_step()
            if what == "ask":
                minute, part = divmod(workers.clock.now, 60)
                now, before = (sum(workers.admitted.get(int(minute) - back, [])) for back in (0, 1))
                fits = now + amount + before * (1 - part / 60) <= limit
                assert workers.ask(worker % count, amount) is fits

    run(valkey_url, count, caller(tpm=limit), story)


def _admits(quota: Quota, who: Caller, tokens: int, now: float) -> bool:
    try:
        quota.admit(who, tokens, now)
    except ApiError:
        return False
    return True


@given(st.lists(st.tuples(st.floats(-200, 200), st.integers(1, 20)), max_size=60), st.integers(1, 60))
def test_a_clock_that_goes_back_and_forth_gives_nothing_free(steps, limit) -> None:
    """No step back ever lets in what was refused before it."""
    quota, now, who = Quota(Usage(None, ""), "w", 1, unix=lambda: 0.0, clock=lambda: 0.0), START, caller(tpm=limit)
    for step, tokens in steps:
        let_in = _admits(quota, who, tokens, now)
        now += step
        if step <= 0 and not let_in:
            assert not _admits(quota, who, tokens, now)


def test_a_caller_without_limits_costs_nothing() -> None:
    """No header, no counter, whatever it asks for."""
    quota, free = Quota(Usage(None, ""), "w", 1), Caller("", frozenset(), "key_0")
    assert quota.admit(free, 10**9, 0.0) == b""
    quota.settle(free, 10**9, 5, 3.0, at=0.0, now=0.0)
    assert quota._meters == {}


def fixed(now: float = 0.0) -> Quota:
    """A quota that starts at the beginning of a minute; nothing is asked of its store."""
    return Quota(Usage(None, ""), "w", 1, clock=lambda: now, unix=lambda: START + now)


def refused(quota: Quota, who: Caller, tokens: int, now: float) -> tuple[ApiError, dict[bytes, bytes]]:
    """Return a refusal and its headers."""
    with pytest.raises(ApiError) as error:
        quota.admit(who, tokens, now)
    assert error.value.status == 429
    return error.value, dict(error.value.headers())


def test_the_headers_are_openais() -> None:
    """Limit, what remains after this request, and when everything is there again."""
    assert dict(pairs(fixed().admit(caller(rpm=60, tpm=150_000), 16, 30.0))) == {
        b"x-ratelimit-limit-requests": b"60",
        b"x-ratelimit-limit-tokens": b"150000",
        b"x-ratelimit-remaining-requests": b"59",
        b"x-ratelimit-remaining-tokens": b"149984",
        b"x-ratelimit-reset-requests": b"1m31s",
        b"x-ratelimit-reset-tokens": b"1m31s",
    }


@pytest.mark.parametrize(("who", "word"), [(caller(rpm=5), b"requests"), (caller(tpm=500), b"tokens")])
def test_only_what_is_limited_is_told(who, word) -> None:
    """A key that has one limit has three headers; one with a budget only has none."""
    head = pairs(fixed().admit(who, 16, 0.0))
    assert len(head) == 3
    assert all(name.endswith(word) for name, _ in head)
    assert fixed().admit(caller(usd=5), 16, 0.0) == b""


def test_too_many_requests_are_told_when_to_come_back() -> None:
    """OpenAI's code and words, both forms of Retry-After, and the limits' headers."""
    quota, who = fixed(), caller(rpm=3, tpm=1000)
    for _ in range(3):
        quota.admit(who, 10, 30.0)
    error, head = refused(quota, who, 10, 30.0)
    assert error.code == "rate_limit_exceeded"
    assert b'"type": "requests"' in error.body()
    assert "(RPM): Limit 3, Requested 1. Please try again in 50s." in str(error)
    assert (head[b"retry-after"], head[b"retry-after-ms"], head[b"x-should-retry"]) == (b"50", b"50000", b"true")
    assert (head[b"x-ratelimit-remaining-requests"], head[b"x-ratelimit-remaining-tokens"]) == (b"0", b"970")
    assert quota.admit(who, 10, 80.001)


def test_too_many_tokens_are_refused_whole() -> None:
    """What was refused was not reserved: a smaller request still fits."""
    quota, who = fixed(), caller(rpm=10, tpm=100)
    quota.admit(who, 60, 0.0)
    error, head = refused(quota, who, 50, 0.0)
    assert b'"type": "tokens"' in error.body()
    assert head[b"x-ratelimit-remaining-tokens"] == b"40"
    assert quota.admit(who, 40, 0.0)
    assert head[b"x-should-retry"] == b"false"  # ten seconds of the next minute have to pass as well
    assert head[b"retry-after"] == b"70"


def test_what_is_larger_than_the_limit_is_told_so() -> None:
    """No wait would help, so none is named."""
    error, head = refused(fixed(), caller(tpm=100), 101, 0.0)
    assert str(error).startswith("Request too large")
    assert head[b"x-should-retry"] == b"false"
    assert b"retry-after" not in head
    assert b"retry-after-ms" not in head


def test_a_spent_budget_is_openais_insufficient_quota() -> None:
    """Until midnight UTC, so an SDK should not try again by itself."""
    quota, who = fixed(), caller(usd=1.0)
    assert quota.admit(who, 10, 0.0) == b""
    quota.settle(who, 10, 10, 0.6, at=0.0, now=1.0)
    quota.admit(who, 10, 2.0)
    quota.settle(who, 10, 10, 0.6, at=2.0, now=3.0)
    error, head = refused(quota, who, 10, 4.0)
    assert (error.code, head[b"x-should-retry"]) == ("insufficient_quota", b"false")
    assert b'"type": "insufficient_quota"' in error.body()
    midnight = 86_400 - START % 86_400
    assert head[b"retry-after"] == b"%d" % (midnight - 4)
    assert span(midnight - 4) in str(error)
    assert quota.admit(who, 10, midnight) == b""


@pytest.mark.parametrize("usd", [0.0, -1.0, math.nan, math.inf])
def test_a_price_that_is_none_is_not_booked(usd) -> None:
    """An answer without a price, or with a damaged one, leaves the budget as it was."""
    quota, who = fixed(), caller(usd=1.0)
    quota.admit(who, 10, 0.0)
    quota.settle(who, 10, 10, usd, at=0.0, now=0.0)
    assert quota._meters["key_1"].spent(1) == 0


def test_settling_gives_back_what_was_not_used() -> None:
    """And takes what was used beyond."""
    quota, who = fixed(), caller(tpm=100)
    quota.admit(who, 100, 0.0)
    quota.settle(who, 100, 30, 0.0, at=0.0, now=5.0)
    assert dict(pairs(quota.admit(who, 20, 5.0)))[b"x-ratelimit-remaining-tokens"] == b"50"
    quota.settle(who, 20, 60, 0.0, at=5.0, now=6.0)
    assert dict(pairs(quota.admit(who, 10, 6.0)))[b"x-ratelimit-remaining-tokens"] == b"0"


def test_other_limits_for_the_same_key_forget_nothing() -> None:
    """What was used stays used."""
    quota = fixed()
    quota.admit(caller(rpm=5), 10, 0.0)
    assert dict(pairs(quota.admit(caller(rpm=3), 10, 0.0)))[b"x-ratelimit-remaining-requests"] == b"1"


@pytest.mark.parametrize(
    ("seconds", "said"), [(0, "0s"), (0.2, "1s"), (59, "59s"), (60, "1m0s"), (360, "6m0s"), (27_150, "7h32m30s")]
)
def test_a_length_of_time_reads_as_openais(seconds, said) -> None:
    """As in their documentation."""
    assert span(seconds) == said


@pytest.fixture
async def looping() -> AsyncIterator[Callable[[Quota], None]]:
    """Sync a quota again and again, as a worker does."""
    tasks = set()

    async def forever(quota: Quota) -> None:
        while not ending():
            with suppress(StoreError):
                await quota.sync()

    yield lambda quota: tasks.add(asyncio.ensure_future(forever(quota)))
    for task in tasks:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_two_workers_share_a_limit(store: Store, looping) -> None:
    """Within a few exchanges one knows what the other let in: requests, tokens and USD."""
    one, two = (Quota(store.usage(), name, 2) for name in ("w1", "w2"))
    looping(one)
    looping(two)
    who = caller(rpm=6, tpm=1000, usd=5.0)
    for _ in range(5):
        one.admit(who, 10, time.monotonic())
    began = time.monotonic()
    two.admit(who, 10, began)
    await until(lambda: two._meters["key_1"].requests.others >= 5 or two._meters["key_1"].requests.others_before >= 5)
    assert time.monotonic() - began < SYNC_S * 5
    refused(two, who, 10, time.monotonic())
    one.settle(who, 10, 10, 9.0, at=began, now=time.monotonic())
    await until(lambda: two._meters["key_1"].spent(1) == 9)


async def test_a_restarted_worker_takes_over_what_was_used(store: Store, looping) -> None:
    """It has another name; what its last life used stays used."""
    who, now = caller(rpm=3, key="key_2"), time.monotonic()
    first = Quota(store.usage(), "w1-a", 1)
    for _ in range(3):
        first.admit(who, 1, now)
    await first.exchange()
    second = Quota(store.usage(), "w1-b", 1)
    second.admit(who, 1, now)  # decided before it has heard
    await second.exchange()
    refused(second, who, 1, time.monotonic())


async def test_nothing_is_asked_for_keys_that_nobody_uses(store: Store, looping) -> None:
    """An idle worker costs the store nothing; the first request of a silent key is exchanged at once."""
    calls = []

    class Counted(Usage):
        async def exchange(self, worker, own):
            calls.append([used.key_id for used in own])
            return await super().exchange(worker, own)

    quota = Quota(Counted(store._redis, store.url), "w1", 1)
    looping(quota)
    await asyncio.sleep(SYNC_S * 3)
    assert calls == [[]]  # what time it is
    began = time.monotonic()
    quota.admit(caller(rpm=3), 1, began)
    await until(lambda: calls[1:] == [["key_1"]])
    assert time.monotonic() - began < SYNC_S / 2
    quota._meters["key_1"].touched -= 20
    await asyncio.sleep(SYNC_S)
    calls.clear()
    await asyncio.sleep(SYNC_S * 2)
    assert calls == []
    quota._meters["key_1"].touched -= 90_000
    await quota.exchange()
    assert quota._meters == {}


async def test_many_keys_take_turns(store: Store) -> None:
    """No exchange is longer than another, and nobody waits twice before everybody had a turn."""
    quota, now = Quota(store.usage(), "w1", 1), time.monotonic()
    await quota.exchange()
    for n in range(AT_ONCE * 3 + 1):
        quota.admit(caller(rpm=9, key=f"key_{n}"), 1, now)
    for turn in range(1, 5):
        await quota.exchange()
        told = len(await store._redis.keys("linnet:usage:*"))
        assert told == min(AT_ONCE * turn, AT_ONCE * 3 + 1)


async def test_the_store_dies_and_comes_back(valkey: Valkey, looping, caplog) -> None:
    """Said once, shown to a metric, each worker its share; afterwards one limit again and no use counted twice."""
    store, told, now_ms = Store.connect(valkey.url), [], round(time.time() * 1000)
    for name in ("w1", "w2", "w3"):
        await store.heartbeat(name, now_ms)
    one, two = (Quota(store.usage(), name, 2, alone=told.append) for name in ("w1", "w2"))
    who = caller(rpm=30)
    one.admit(who, 1, time.monotonic())
    two.admit(who, 1, time.monotonic())
    for quota in (one, two, one):
        await quota.exchange()
    assert not one.alone
    valkey.kill()
    caplog.set_level(logging.WARNING)
    looping(one)
    await until(lambda: one.alone)
    assert told == [True]
    assert "each of 3 workers" in caplog.text
    admitted = 0
    while _admits(one, who, 1, time.monotonic()):
        admitted += 1
    assert admitted == (30 - 2) // 3
    await asyncio.sleep(0.6)
    assert caplog.text.count("the store is lost") == 1
    valkey.start()
    await until(lambda: not one.alone)
    assert told == [True, False]
    await two.exchange()
    count = two._meters["key_1"].requests
    assert count.others + count.others_before == 1 + admitted
    assert one.admit(who, 1, time.monotonic())
    await store.close()


async def test_an_emptied_store_has_everything_again(store: Store) -> None:
    """Each worker writes its own sums, so what was lost is back with the next exchange."""
    one, two = (Quota(store.usage(), name, 2) for name in ("w1", "w2"))
    who, now = caller(rpm=10), time.monotonic()
    for quota in (one, two):
        for _ in range(3):
            quota.admit(who, 1, now)
        await quota.exchange()
    await store._redis.flushall()
    for quota in (one, two, one):
        await quota.exchange()
    count = one._meters["key_1"].requests
    assert count.others + count.others_before == 3


async def test_a_store_that_is_back_hears_of_silent_keys_too(valkey: Valkey) -> None:
    """It may have lost what it had, also of keys that were not used for a while."""
    store, clock = Store.connect(valkey.url), Clock()
    quota = Quota(Shifted(store, clock), "w1", 1, clock=lambda: clock.now, unix=lambda: START + clock.now)
    quota.admit(caller(usd=5.0), 1, 0.0)
    quota.settle(caller(usd=5.0), 1, 1, 2.0, at=0.0, now=1.0)
    await quota.exchange()
    valkey.kill()
    clock.now = 600.0
    quota.admit(caller(usd=5.0, key="key_2"), 1, clock.now)
    with pytest.raises(StoreError):
        await quota.exchange()
    (valkey.folder / "appendonlydir").rename(valkey.folder / "gone")
    valkey.start()
    await quota.exchange()
    heard = await store.usage().exchange("w2", [quota._meters["key_1"].own("key_1")])
    assert heard.others[0].usd == 2
    await store.close()


async def test_the_stores_clock_says_which_minute_it_is(store: Store) -> None:
    """A worker whose own clock is an hour off shares the same minute as the others."""
    one = Quota(store.usage(), "w1", 2)
    off = Quota(store.usage(), "w2", 2, unix=lambda: time.time() - 3600)
    who, now = caller(rpm=10), time.monotonic()
    for quota in (off, one):
        await quota.exchange()
        quota.admit(who, 1, now)
        await quota.exchange()
    assert abs(off._offset - one._offset) < 0.5
    used = one._meters["key_1"].requests
    assert used.others + used.others_before == 1


async def test_a_request_never_waits_for_the_store(store: Store) -> None:
    """Ten thousand decisions while an exchange is on its way, in much less than a second."""
    quota, who, now = Quota(store.usage(), "w1", 1), caller(rpm=10**6, tpm=10**9, usd=1e6), time.monotonic()
    quota.admit(who, 1, now)
    exchanging = asyncio.ensure_future(quota.exchange())
    began = time.perf_counter()
    for _ in range(10_000):
        quota.admit(who, 100, now)
    assert time.perf_counter() - began < 1
    await exchanging
    assert quota._meters["key_1"].requests.own == 10_001


async def test_another_rooms_names_are_left_alone(store: Store) -> None:
    """The sums of keys live under a prefix of their own."""
    quota = Quota(store.usage(), "w1", 1)
    quota.admit(caller(rpm=5, usd=1.0), 1, time.monotonic())
    quota.settle(caller(rpm=5, usd=1.0), 1, 1, 0.5, at=time.monotonic(), now=time.monotonic())
    await quota.exchange()
    found = await store._redis.keys("*")
    assert len(found) == 2
    assert all(name.startswith(f"{names.ROOT}usage:key_1:") for name in found)


async def key_with(house: House, store: Store, **limits: float) -> dict[str, str]:
    """Make a key; return the header that presents it once the worker knows it."""
    keys = house.app.parts.keys
    wish, before = checked("app", ["inference"], KeyLimits(**limits)), len(keys._callers)
    _, secret = await store.api_keys().create(wish, Cause("ann", "because", time.time()))
    await until(lambda: len(keys._callers) > before, "the key was heard of")
    return {"Authorization": f"Bearer {secret}"}


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_says_what_is_left(house: House, store: Store, stream) -> None:
    """After all that it might have cost; and what it did not use is given back when it is over."""
    headers = await key_with(house, store, rpm=100, tpm=100_000)
    answer = await house.ask(headers=headers, max_tokens=900, stream=stream)
    reserved = 100_000 - int(answer.headers["x-ratelimit-remaining-tokens"])
    assert 900 < reserved < 950
    assert answer.headers["x-ratelimit-remaining-requests"] == "99"
    meter = next(iter(house.app.parts.quota._meters.values()))
    await until(lambda: 0 < meter.tokens.own + meter.tokens.own_before < reserved, "settled")


@pytest.mark.parametrize("stream", [False, True])
async def test_who_leaves_pays_for_what_was_made(house: House, base: Sim, cand: Sim, store: Store, stream) -> None:
    """The reservation of an answer that nobody waits for any more is settled too."""
    headers = await key_with(house, store, tpm=100_000)
    for sim in (base, cand):
        sim.behave(tpot_ms=50)
    asking = asyncio.ensure_future(house.ask(headers=headers, max_tokens=2000, stream=stream, ignore_eos=True))
    await until(lambda: base.running + cand.running == 1, "running")
    meter = next(iter(house.app.parts.quota._meters.values()))
    assert meter.tokens.own + meter.tokens.own_before > 2000
    asking.cancel()
    await until(lambda: meter.tokens.own + meter.tokens.own_before < 200, "settled")


async def test_beyond_the_limit_a_request_reaches_no_engine(house: House, base: Sim, cand: Sim, store: Store) -> None:
    """429 as OpenAI says it."""
    headers = await key_with(house, store, rpm=2)
    answers = [await house.ask(headers=headers) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[2].json()["error"]["code"] == "rate_limit_exceeded"
    assert answers[2].headers["x-ratelimit-remaining-requests"] == "0"
    assert 0 < int(answers[2].headers["retry-after-ms"]) <= 120_000


async def test_openais_own_client_waits_as_it_is_told(house: House, store: Store) -> None:
    """It does not try again where it would have to wait for longer than it is willing to."""
    headers = await key_with(house, store, usd_per_day=1e-6)
    secret = headers["Authorization"].removeprefix("Bearer ")
    async with openai.AsyncOpenAI(base_url=f"{house.url}/v1", api_key=secret, max_retries=5) as client:
        ask = partial(client.chat.completions.create, model=MODEL, messages=[{"role": "user", "content": "hello"}])
        await ask()
        await until(lambda: next(iter(house.app.parts.quota._meters.values())).usd > 0, "billed")
        began = time.monotonic()
        with pytest.raises(openai.RateLimitError) as error:
            await ask()
    assert error.value.code == "insufficient_quota"
    assert time.monotonic() - began < 5
