"""The audit in a real store: every writer chains, in the same step as what it writes."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from hashlib import sha256

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from canary.core.events import Cause
from canary.storage import keys
from canary.storage.apikeys import KeyLimits, checked
from canary.storage.chain import Link, verify
from canary.storage.records import Change
from canary.storage.store import Store, StoreError
from tests.canary.specs import SPEC
from tests.canary.world import BY, World
from tests.support.valkey import Valkey


async def whole(store: Store) -> Link:
    """Return the last link of an audit that is whole."""
    log = store.audit_log()
    head = await log.head()
    found = verify(await log.page(), head)
    assert found.fault == ""
    assert head is not None
    return head


async def change(store: Store, model: str, number: int, **audit: str) -> str:
    """Write the `number`-th change of a model."""
    before = "" if number == 0 else f"state {number - 1}"
    entry = {"who": "ann", "what": f"act {number}", "model": model, **audit}
    return (await store.commit(Change(model, before, f"state {number}", entry))).code


async def test_every_writer_chains_its_entry(store: Store) -> None:
    """A change, an acknowledgement, a key, a gate's report: one chain."""
    assert await store.audit_log().head() is None
    await change(store, "m", 0)
    lease = await store.lead("c", None, 5000)
    assert lease is not None
    await store.record_acknowledged(lease, "m", 1, {"who": "controller", "what": "acknowledged", "model": "m"})
    await store.api_keys().create(checked("app", ["admin"], KeyLimits()), Cause("ann", "go", 1.0))
    await store.put_report("m", "load", "d", {"verdict": "pass"}, BY)
    assert (await whole(store)).seq == 4
    assert [entry["seq"] for entry in await store.audit()] == ["1", "2", "3", "4"]


async def test_a_report_is_told_with_its_verdict_and_what_it_is_of(store: Store) -> None:
    """Each time one is put; the hash shows whether what the store has is what was put there."""
    for verdict in ("fail", "pass"):
        await store.put_report("m", "eval", "d-new", {"verdict": verdict, "slices": {}}, Cause("ci", "", 2.5))
    await store.put_report("other", "load", "d-new", {}, BY)
    told = await store.audit("m")
    assert [(entry["who"], entry["what"], entry["unix_ms"]) for entry in told] == [
        ("ci", "eval report: fail", "2500"),
        ("ci", "eval report: pass", "2500"),
    ]
    text = await store._redis.get(keys.report("m", "eval", "d-new"))
    assert json.loads(told[1]["evidence"]) == {
        "kind": "eval",
        "digest": "d-new",
        "verdict": "pass",
        "sha256": sha256(text.encode()).hexdigest(),
    }
    assert (await store.audit("other"))[0]["what"] == "load report: none"


async def test_a_report_is_kept_with_its_entry_or_not_at_all(store: Store) -> None:
    """A store that refuses the entry has no report, and no load test in the ledger."""
    await store._redis.set(keys.AUDIT, "no stream")
    with pytest.raises(StoreError):
        await store.put_report("m", "load", "d", {"verdict": "pass", "created_ms": 1}, BY)
    assert await store.get_report("m", "load", "d") is None
    assert await store.load_tests("m", "d") == {}


async def test_a_change_that_is_refused_leaves_no_link(store: Store) -> None:
    """The chain has what happened, nothing else."""
    await change(store, "m", 0)
    assert await change(store, "m", 0) == "conflict"
    assert await change(store, "m", 1) == "ok"
    assert (await whole(store)).seq == 2


async def test_many_who_write_at_once_make_one_chain(store: Store) -> None:
    """Twenty models, none of which waits for another."""

    async def one(model: str) -> None:
        for number in range(5):
            assert await change(store, model, number) == "ok"

    await asyncio.gather(*(one(f"m{number}") for number in range(20)))
    assert (await whole(store)).seq == 100


TEXT = st.text(max_size=200) | st.text(st.characters(), max_size=20)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(said=st.lists(TEXT, min_size=1, max_size=4))
def test_the_stores_hash_is_ours_whatever_is_said(said: list[str], valkey_session: Valkey) -> None:
    """Any text of a person, control characters and half characters too, is written and verified."""

    async def story() -> None:
        valkey_session.ask("FLUSHALL")
        store = Store.connect(valkey_session.url)
        for number, why in enumerate(said):
            assert await change(store, "m", number, why=why) == "ok"
        await whole(store)
        await store.close()

    asyncio.run(story())


async def test_entries_of_an_earlier_version_come_before_the_chain(store: Store) -> None:
    """They stay readable; the chain begins after them."""
    await store._redis.xadd(keys.AUDIT, {"who": "ann", "what": "old", "model": "m"})
    await change(store, "m", 0)
    log = store.audit_log()
    found = verify(await log.page(), await log.head())
    assert (found.fault, found.unchained, found.first) == ("", 1, 1)


async def test_a_damaged_head_blocks_nothing_and_shows(store: Store) -> None:
    """A rollback is written whatever became of the audit."""
    await change(store, "m", 0)
    await store._redis.set(keys.AUDIT_HEAD, "nonsense")
    assert await change(store, "m", 1) == "ok"
    log = store.audit_log()
    assert "inserted at seq 1" in verify(await log.page(), await log.head()).fault


async def test_every_change_of_a_release_has_before_after_and_evidence(store: Store) -> None:
    """A person's word with what the last look saw, a start with its spec, a trip with its moment."""
    world = World(store)
    await world.to_canary()
    await world.traffic(300)
    await world.step()
    for verb in ("pause", "resume", "freeze", "unfreeze"):
        await world.say(verb, f"to {verb}")
    await world.say("set-weight", args={"percent": 10})
    await world.controller.tripped(await world.trip())
    await world.say("retry")
    await world.say("start", args={"spec": SPEC.replace("r1", "r2"), "where": "r.yaml", "supersede": True})
    told = [entry for entry in await store.audit() if entry["release"]]
    known = {entry["what"]: json.loads(entry["evidence"]) for entry in told}
    changed = {entry["what"]: json.loads(entry["changed"]) for entry in told}
    assert [entry["what"] for entry in told if not (entry["after"] and json.loads(entry["changed"]))] == []
    assert changed["pause"] == {"paused": ["", "to pause"]}
    assert changed["unfreeze"] == {"frozen": ["to freeze", ""]}
    assert changed["set-weight"]["percent"] == [5.0, 10.0]
    assert known["pause"]["samples"] == 300
    assert known["pause"]["looked_ms"] == int(world.now * 1000)
    assert known["start"].keys() == {"spec_sha256", "baseline", "candidate"}
    assert known["rolled_back"] == {"tripped_ms": int(world.now * 1000) - 20}


async def test_a_damaged_look_keeps_no_one_from_rolling_back(store: Store) -> None:
    """Nothing is known then, and that is written."""
    world = World(store)
    await world.to_canary()
    for text in ("nonsense", "[]", '{"at": 1}', '{"at": "r1/1/canary/1", "evidence": 1, "unix_ms": 1}'):
        await store._redis.set(keys.look("m"), text)
        with suppress(ValueError, KeyError, TypeError, AttributeError):  # the status that follows cannot be told
            await world.say("rollback")
        assert (await store.audit())[-1]["what"] == "rollback"
        assert (await store.audit())[-1]["evidence"] == "{}"
        await store._redis.delete(keys.look("m"))
        await world.say("retry")


async def test_pages_follow_one_another(store: Store) -> None:
    """Each begins after the last id of the one before."""
    for number in range(5):
        await change(store, "m", number)
    log = store.audit_log()
    first = await log.page(count=3)
    assert [entry["seq"] for entry in [*first, *await log.page(first[-1]["id"])]] == ["1", "2", "3", "4", "5"]


async def test_waiting_ends_with_the_next_entry(store: Store) -> None:
    """At once, and not with the time that was given."""
    log = store.audit_log()
    await change(store, "m", 0)
    last = (await log.page())[-1]["id"]
    assert await log.wait(last, 10) == []
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(log.wait(last, 900))
        await asyncio.sleep(0.05)
        await change(store, "m", 1)
    assert [entry["what"] for entry in waiting.result()] == ["act 1"]
