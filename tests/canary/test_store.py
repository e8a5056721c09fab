"""The store against a real Valkey: sums, splits, races, fences."""

from __future__ import annotations

import asyncio
import json

import pytest

from canary import keys
from canary.core.arms import Endpoint, Split
from canary.store import Batch, Change, Committed, Store, StoreError, Trip
from tests.canary.world import BY
from tests.support.valkey import Valkey

BASE = Endpoint(engine="base", served_model="base", replicas=("http://127.0.0.1:8101",))


def change(before: str = "", after: str = '{"generation":1}', **more) -> Change:
    """Return a change of model m."""
    fields = {"model": "m", "before": before, "after": after, "audit": {"what": "test"}} | more
    return Change(**fields)


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


async def test_trips_wake_the_reader_at_once(store: Store) -> None:
    """A trip is read as it is written, not at the next look."""
    trip = Trip("m", "r", 1, 2, "w", "6 of 6 failed", 123)
    waiting = asyncio.ensure_future(store.trips("0"))
    await asyncio.sleep(0.05)
    start = asyncio.get_running_loop().time()
    await store.trip(trip)
    last, trips = await waiting
    assert asyncio.get_running_loop().time() - start < 0.1
    assert trips == [trip]
    assert (await store.trips(last)) == (last, [])


async def test_engines_and_reports_come_back(store: Store) -> None:
    """What is registered is read as it was."""
    await store.register_engine({"name": "base", "url": "http://x", "digest": "d"})
    assert (await store.engines())["base"]["digest"] == "d"
    assert await store.get_report("m", "load", "d") is None
    await store.put_report("m", "load", "d", {"verdict": "pass"}, BY)
    assert await store.get_report("m", "load", "d") == {"verdict": "pass"}


async def test_commit_writes_everything_at_once(store: Store) -> None:
    """State, split, audit, quarantine, attempt, result and reply are one step."""
    split = Split("m", 1, BASE)
    outcome = await store.commit(
        change(
            split=split.to_json(),
            key="k",
            reply='{"done":1}',
            quarantine={"d": "slow"},
            attempt={"r": 2},
            result="rolled_back",
        )
    )
    assert outcome == Committed("ok")
    assert await store.release_text("m") == '{"generation":1}'
    assert await store.models() == ("m",)
    assert await store.read_split("m") == split
    assert await store.quarantined("m") == {"d": "slow"}
    assert await store.attempts("m", "r") == 2
    assert await store.results() == {("m", "rolled_back"): 1}
    assert await store.remembered("m", "k") == '{"done":1}'
    assert [entry["what"] for entry in await store.audit()] == ["test"]


async def test_commit_on_a_state_that_has_gone_is_a_conflict(store: Store) -> None:
    """Nothing at all is written, and the state that stands comes back."""
    await store.commit(change())
    late = await store.commit(change("", '{"generation":9}', split="never", quarantine={"d": "x"}))
    assert late == Committed("conflict", '{"generation":1}')
    assert await store.quarantined("m") == {}
    assert len(await store.audit()) == 1


async def test_of_many_racing_commits_one_wins(store: Store) -> None:
    """A hundred writers on one state make one change."""
    race = (store.commit(change(after=json.dumps({"generation": n}))) for n in range(100))
    codes = [outcome.code for outcome in await asyncio.gather(*race)]
    assert codes.count("ok") == 1
    assert codes.count("conflict") == 99
    assert len(await store.audit()) == 1


async def test_a_replayed_command_changes_nothing(store: Store) -> None:
    """The second run of an idempotency key returns the first one's reply."""
    await store.commit(change(key="k", reply="first"))
    again = await store.commit(change('{"generation":1}', '{"generation":2}', key="k", reply="second"))
    assert again == Committed("replayed", "first")
    assert await store.release_text("m") == '{"generation":1}'


async def test_one_leader_and_a_late_one_is_fenced_off(store: Store) -> None:
    """A controller that slept through its lease writes nothing any more."""
    old = await store.lead("a", None, 50)
    assert old is not None
    assert await store.lead("b", None, 50) is None
    assert await store.lead("a", old.token, 50) == old
    await asyncio.sleep(0.08)
    new = await store.lead("b", None, 5_000)
    assert new is not None
    assert new.token > old.token
    assert (await store.commit(change(fence=old.fence))).code == "fenced"
    assert not await store.write(old, {keys.look("m"): "{}"})
    assert await store.last_look("m") is None
    assert await store.write(new, {keys.look("m"): "{}"})
    assert (await store.commit(change(fence=new.fence))).code == "ok"
    await store.resign(old)
    assert await store.lead("a", None, 50) is None
    await store.resign(new)
    assert await store.lead("a", None, 50) is not None


async def test_an_acknowledgement_is_recorded_once(store: Store) -> None:
    """The same generation does not enter the audit twice."""
    lease = await store.lead("a", None, 5_000)
    assert lease is not None
    assert await store.record_acknowledged(lease, "m", 4, {"what": "acknowledged", "model": "m"})
    assert not await store.record_acknowledged(lease, "m", 4, {"what": "acknowledged", "model": "m"})
    assert await store.acknowledged("m") == 4
    assert len(await store.audit("m")) == 1
    assert await store.audit("other") == []
