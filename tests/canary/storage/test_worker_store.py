"""The worker's side of the store against a real Valkey: splits, sums, signs of life."""

from __future__ import annotations

import asyncio

import pytest

from canary.core.arms import Split
from canary.storage import keys
from canary.storage.store import Batch, Store, StoreError
from tests.canary.storage.test_store import BASE, change
from tests.support.valkey import Valkey


async def test_a_model_without_release_has_no_split(store: Store) -> None:
    """Nothing is invented for an unknown model."""
    assert await store.models() == ()
    assert await store.read_split("m") is None


async def test_flush_adds_up_and_a_replay_changes_nothing(store: Store) -> None:
    """Whole numbers and sums are added once a number."""
    batch = Batch("m", "r", 1, {"0|baseline||ok": 2, "0|baseline||sum.cost": 0.25})
    assert await store.flush("w1", 1, [batch]) is True
    assert await store.flush("w1", 1, [batch]) is False
    assert await store.flush("w1", 2, [batch]) is True
    assert await store.tallies("m", "r", 1) == {"0|baseline||ok": "4", "0|baseline||sum.cost": "0.5"}


async def test_flush_of_one_worker_leaves_the_numbers_of_another(store: Store) -> None:
    """Each worker counts its own deltas."""
    batch = Batch("m", "r", 1, {"0|baseline||ok": 1})
    assert await store.flush("w1", 5, [batch, batch])
    assert await store.flush("w2", 1, [batch])
    assert await store.tallies("m", "r", 1) == {"0|baseline||ok": "3"}


async def test_flush_refuses_what_cannot_be_summed(store: Store) -> None:
    """A NaN would poison every later sum."""
    with pytest.raises(ValueError, match="cannot be summed"):
        await store.flush("w", 1, [Batch("m", "r", 1, {"0|baseline||sum.cost": float("nan")})])


async def test_splits_yields_the_present_then_what_is_published(store: Store) -> None:
    """A worker that joins late starts from the split that stands."""
    first, second = Split("m", 1, BASE), Split("m", 2, BASE, percent=0.0, phase="canary")
    await store.commit(change(split=first.to_json()))
    stream = store.splits()
    assert await anext(stream) == first
    waiting = asyncio.ensure_future(anext(stream))
    await store.commit(change('{"generation":1}', '{"generation":2}', split=second.to_json()))
    assert await waiting == second
    assert await store.read_split("m") == second
    await stream.aclose()


async def test_all_splits_come_in_one_answer_and_unchanged_ones_not_at_all(store: Store) -> None:
    """A thousand models cost a poll one round trip; a model without a split is named with nothing."""
    assert (await store.split_texts())[1] == {}
    first, second = Split("m", 1, BASE), Split("n:split", 2, BASE)
    await store.commit(change(split=first.to_json()))
    await store.commit(change(split=second.to_json(), model="n:split"))
    await store.commit(change(model="bare"))
    digest, texts = await store.split_texts()
    assert texts == {"bare": "", "m": first.to_json(), "n:split": second.to_json()}
    assert await store.split_texts(digest) == (digest, None)
    await store.commit(change('{"generation":1}', '{"generation":2}', split=Split("m", 2, BASE).to_json()))
    again, texts = await store.split_texts(digest)
    assert again != digest
    assert texts is not None
    assert Split.from_json(texts["m"]).generation == 2


async def test_many_generations_are_acknowledged_at_once(store: Store) -> None:
    """A worker that starts with a thousand models says so in one round trip."""
    await store.acknowledge_all("w", {"m": 3, "n": 4}, 7)
    assert (await store.acks("m"), await store.acks("n")) == ({"w": (3, 7)}, {"w": (4, 7)})


async def test_a_damaged_split_keeps_no_other_from_being_heard(store: Store) -> None:
    """The one that cannot be read is left out; the poll tells of it."""
    await store.commit(change(split="{"))
    await store.commit(change(split=Split("n", 1, BASE).to_json(), model="n"))
    stream = store.splits()
    assert (await anext(stream)).model == "n"
    await stream.aclose()


async def test_nobody_waits_for_a_worker_that_has_left(store: Store) -> None:
    """It is no worker from that moment, but a copy of its last delta still changes nothing."""
    batch = Batch("m", "r", 1, {"0|baseline||ok": 1})
    await store.heartbeat("w", 10_000)
    assert await store.flush("w", 1, [batch])
    await store.leave("w", 10_001)
    assert await store.workers(10_001) == ()
    assert not await store.flush("w", 1, [batch])
    await store.forget_workers(10_001)
    assert not await store._redis.hexists(keys.FLUSHED, "w")


async def test_splits_survives_silence_and_ends_with_a_lost_store(valkey: Valkey) -> None:
    """Silence is no loss; a killed server is, within two seconds."""
    store = Store.connect(valkey.url)
    stream = store.splits()
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(1.8)
    assert not waiting.done()
    valkey.kill()
    with pytest.raises(StoreError, match="start it"):
        await asyncio.wait_for(waiting, 3)
    await store.close()


async def test_a_dead_store_is_one_line_and_a_restarted_one_is_used_again(valkey: Valkey) -> None:
    """Every call fails with the mend while the server is gone, and the data is there after kill -9."""
    store = Store.connect(valkey.url)
    await store.acknowledge("m", "w", 3, 1000)
    valkey.kill()
    with pytest.raises(StoreError, match="LINNET_REDIS_URL") as caught:
        await store.models()
    assert "\n" not in str(caught.value)
    valkey.start()
    assert await store.acks("m") == {"w": (3, 1000)}
    await store.close()


def test_a_url_that_is_none_is_refused() -> None:
    """The mend says what a store URL looks like, without a password in it."""
    with pytest.raises(StoreError, match="redis://HOST") as caught:
        Store.connect("http://user:secret@localhost")
    assert "secret" not in str(caught.value)


async def test_old_heartbeats_are_gone(store: Store) -> None:
    """A worker silent for more than five seconds is not waited for."""
    await store.heartbeat("old", 1_000)
    await store.heartbeat("new", 9_000)
    assert await store.workers(10_000) == ("new",)
