"""The store against a real Valkey: changes, races, fences."""

from __future__ import annotations

import asyncio
import json

from canary.core.arms import Endpoint, Split
from canary.storage import keys
from canary.storage.store import Change, Committed, Store, Trip
from tests.canary.world import BY

BASE = Endpoint(engine="base", served_model="base", replicas=("http://127.0.0.1:8101",))


def change(before: str = "", after: str = '{"generation":1}', **more) -> Change:
    """Return a change of model m."""
    fields = {"model": "m", "before": before, "after": after, "audit": {"what": "test"}} | more
    return Change(**fields)


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
