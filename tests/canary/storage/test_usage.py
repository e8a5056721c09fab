"""What API keys have used, summed over workers in a real store."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from canary.storage import keys
from canary.storage.store import Store, StoreError
from canary.storage.usage import Heard, Usage, Used

MINE = Used("key_1", 100, 7, requests=3, tokens=40, requests_before=1, tokens_before=5, usd=0.25)


@pytest.fixture
def usage(store: Store) -> Usage:
    """The sums of an empty store."""
    return store.usage()


async def test_each_hears_the_others_and_not_itself(usage: Usage) -> None:
    """Requests, tokens and USD of all other workers, added up."""
    assert (await usage.exchange("w1", [MINE])).others == (Used("key_1", 100, 7),)
    assert (await usage.exchange("w2", [MINE])).others == (MINE,)
    heard = await usage.exchange("w3", [Used("key_1", 100, 7)])
    assert heard.others == (Used("key_1", 100, 7, 6, 80, 2, 10, 0.5),)


async def test_a_repetition_changes_nothing(usage: Usage) -> None:
    """Sums are written, not increments: an answer that was lost costs nothing."""
    for _ in range(3):
        await usage.exchange("w1", [MINE])
    assert (await usage.exchange("w2", [Used("key_1", 100, 7)])).others == (MINE,)


async def test_a_correction_replaces_what_was_told(usage: Usage) -> None:
    """Also down to nothing."""
    await usage.exchange("w1", [MINE])
    await usage.exchange("w1", [replace(MINE, tokens=0, requests=0, usd=0.0)])
    assert (await usage.exchange("w2", [Used("key_1", 100, 7)])).others == (replace(MINE, tokens=0, requests=0, usd=0),)


async def test_minutes_days_and_keys_are_kept_apart(usage: Usage) -> None:
    """The minute before is the minute that it was."""
    await usage.exchange("w1", [MINE, replace(MINE, key_id="key_2", requests=9)])
    later = Used("key_1", 101, 8)
    assert (await usage.exchange("w2", [later, Used("key_3", 100, 7)])).others == (
        replace(later, requests_before=3, tokens_before=40),
        Used("key_3", 100, 7),
    )


async def test_the_store_tells_time_and_workers(store: Store, usage: Usage) -> None:
    """Its own clock, and whoever had a heartbeat lately."""
    now_ms = round(time.time() * 1000)
    for worker, age in (("w1", 0), ("w2", 100), ("gone", 20_000)):
        await store.heartbeat(worker, now_ms - age)
    heard = await usage.exchange("w1", [])
    assert heard == Heard(heard.unix_s, 2, ())
    assert abs(heard.unix_s - time.time()) < 1


async def test_what_is_over_is_forgotten_and_what_is_nothing_is_not_written(store: Store, usage: Usage) -> None:
    """The store does not grow with the years, nor with keys that are only looked at."""
    await usage.exchange("w1", [MINE, Used("key_2", 100, 7)])
    names = {
        keys.usage_minute("key_1", 100): 300,
        keys.usage_minute("key_1", 99): 300,
        keys.usage_day("key_1", 7): 172800,
    }
    assert {name: await store._redis.ttl(name) for name in await store._redis.keys("linnet:usage:*")} == names


async def test_damage_counts_as_nothing(store: Store, usage: Usage) -> None:
    """One worker's damaged line does not stop the others' sums."""
    await usage.exchange("w1", [MINE])
    await store._redis.hset(keys.usage_minute("key_1", 100), "w2", "many")
    assert (await usage.exchange("w3", [Used("key_1", 100, 7)])).others == (MINE,)


async def test_a_lost_store_is_one_error(valkey) -> None:
    """Within a second, as every call."""
    store = Store.connect(valkey.url)
    valkey.kill()
    with pytest.raises(StoreError, match="start it"):
        await store.usage().exchange("w1", [MINE])
    await store.close()
