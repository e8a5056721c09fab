"""API keys in a real store: made once, listed without secrets, revoked for good, each change told and audited."""

from __future__ import annotations

import asyncio
import json
import math
import time
from contextlib import aclosing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canary.core.events import Cause
from canary.errors import Unknown, Usage
from canary.storage import keys
from canary.storage.apikeys import ApiKey, ApiKeys, KeyLimits, Scope, checked, hash_of, new_secret, parse
from canary.storage.store import Store, StoreError

CAUSE = Cause("ann@desk", "for the demo", 1_800_000_000.0)
WISH = checked("app", ["inference"], KeyLimits(60, 1000, 2.5))


@pytest.fixture
def api_keys(store: Store) -> ApiKeys:
    """The keys of an empty store."""
    return store.api_keys()


def test_a_secret_is_long_random_and_url_safe() -> None:
    """256 bits behind a prefix that a scanner of leaked secrets can look for."""
    made = {new_secret() for _ in range(100)}
    assert len(made) == 100
    assert all(secret.startswith("lk-") and len(secret) == 46 for secret in made)
    assert all(secret.replace("-", "").replace("_", "").isalnum() for secret in made)


async def test_a_key_is_kept_as_a_hash_and_shown_once(store: Store, api_keys: ApiKeys) -> None:
    """Nothing in the whole store holds the secret."""
    key, secret = await api_keys.create(WISH, CAUSE)
    assert (key.id[:4], key.name, key.limits) == ("key_", "app", KeyLimits(60, 1000, 2.5))
    assert await api_keys.texts() == {hash_of(secret): key.to_json()}
    everything = [await store._redis.hgetall(keys.API_KEYS), await store.audit()]
    assert secret not in json.dumps(everything)
    assert hash_of(secret) not in json.dumps(await store.audit())


async def test_keys_are_listed_oldest_first_and_the_revoked_stay(api_keys: ApiKeys) -> None:
    """A list is also a history."""
    first, _ = await api_keys.create(WISH, CAUSE)
    second, _ = await api_keys.create(WISH, Cause("ann", "more", CAUSE.now + 1))
    ended = await api_keys.revoke(first.id, Cause("bob", "leaked", CAUSE.now + 2))
    assert await api_keys.every() == [ended, second]
    assert ended.revoked_ms == first.created_ms + 2000


async def test_each_change_is_in_the_audit(store: Store, api_keys: ApiKeys) -> None:
    """Who, what, why, when; a second revocation changes nothing and writes nothing."""
    key, _ = await api_keys.create(WISH, CAUSE)
    ended = await api_keys.revoke(key.id, Cause("bob", "leaked", CAUSE.now + 2))
    assert await api_keys.revoke(key.id, Cause("eve", "again", CAUSE.now + 3)) == ended
    made, gone = await store.audit()
    assert (made["who"], made["why"], made["what"]) == ("ann@desk", "for the demo", f"keys create app ({key.id})")
    assert json.loads(made["evidence"]) == {"scopes": ["inference"], "rpm": 60, "tpm": 1000, "usd_per_day": 2.5}
    assert (gone["who"], gone["why"], gone["before"], gone["after"]) == ("bob", "leaked", "active", "revoked")
    assert gone.keys() >= {"unix_ms", "model", "generation"}


async def test_an_unknown_key_cannot_be_revoked(api_keys: ApiKeys) -> None:
    """The line says where the ids are."""
    with pytest.raises(Unknown, match="keys list"):
        await api_keys.revoke("key_0", CAUSE)


async def test_two_who_revoke_at_once_revoke_once(store: Store, api_keys: ApiKeys) -> None:
    """The slower sees what the faster did."""
    key, _ = await api_keys.create(WISH, CAUSE)
    ends = [api_keys.revoke(key.id, Cause(who, "leaked", CAUSE.now + n)) for n, who in enumerate("abc")]
    assert len({ended.revoked_ms for ended in await asyncio.gather(*ends)}) == 1
    assert [entry["what"].split()[1] for entry in await store.audit()] == ["create", "revoke"]


async def test_a_change_is_heard_at_once(api_keys: ApiKeys) -> None:
    """Subscribed first, so nothing is missed; then each change with its record."""
    async with asyncio.timeout(5), aclosing(api_keys.changes()) as heard:
        assert await anext(heard) == ("", "")
        key, secret = await api_keys.create(WISH, CAUSE)
        began = time.monotonic()
        assert await anext(heard) == (hash_of(secret), key.to_json())
        ended = await api_keys.revoke(key.id, CAUSE)
        assert parse(dict([await anext(heard)])) == {hash_of(secret): ended}
        assert time.monotonic() - began < 2


async def test_a_lost_store_is_one_error(valkey) -> None:
    """No call waits for ever, and listening ends."""
    store = Store.connect(valkey.url)
    heard = store.api_keys().changes()
    assert await anext(heard) == ("", "")
    valkey.kill()
    with pytest.raises(StoreError, match="start it"):
        await anext(heard)
    with pytest.raises(StoreError, match="start it"):
        await store.api_keys().texts()
    await store.close()


@pytest.mark.parametrize(
    ("name", "scopes", "limits", "word"),
    [
        ("", ["inference"], KeyLimits(), "no name"),
        ("a\nb", ["inference"], KeyLimits(), "no name"),
        ("x" * 65, ["inference"], KeyLimits(), "no name"),
        ("app", [], KeyLimits(), "no scope"),
        ("app", ["root"], KeyLimits(), "root"),
        ("app", ["inference"], KeyLimits(rpm=0), "--rpm 0"),
        ("app", ["inference"], KeyLimits(tpm=-1), "--tpm -1"),
        ("app", ["inference"], KeyLimits(usd_per_day=math.nan), "--usd-per-day nan"),
        ("app", ["inference"], KeyLimits(usd_per_day=math.inf), "--usd-per-day inf"),
        ("app", ["inference"], KeyLimits(rpm=True), "--rpm True"),
    ],
)
def test_a_wish_that_makes_no_sense_is_one_line(name, scopes, limits, word) -> None:
    """What, and what to write instead."""
    with pytest.raises(Usage, match=word) as refused:
        checked(name, scopes, limits)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"id": 1}', WISH.to_json().replace("60", "-1")])
def test_a_damaged_record_opens_nothing(text) -> None:
    """What cannot be read is left out; the others stay."""
    assert parse({"a" * 64: text, "b" * 64: WISH.to_json(), "z": WISH.to_json()}) == {"b" * 64: WISH}


LIMIT = st.none() | st.integers(1, 10**12)


@given(st.sets(st.sampled_from(Scope)), LIMIT, LIMIT, st.none() | st.floats(1e-6, 1e12), st.integers(0, 2**50))
def test_a_record_is_read_as_it_was_written(scopes, rpm, tpm, usd, when) -> None:
    """Round trip."""
    key = ApiKey("key_1", "a b", frozenset(scopes), KeyLimits(rpm, tpm, usd), when, when)
    assert ApiKey.from_json(key.to_json()) == key
