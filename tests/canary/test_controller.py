"""The controller on a real store: it holds, advances, rolls back, and resumes where it was."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable

import pytest

from canary.controller import Controller
from canary.core.guardrails import Analysis
from canary.core.state import Phase, Release
from canary.report.facts import build
from canary.status import material, status
from canary.storage import keys
from canary.storage.store import Store, StoreError, Trip
from tests.canary.specs import SPEC, changed
from tests.canary.world import BY, EVAL, LOAD, World, following, healthy
from tests.support.valkey import Valkey


@pytest.fixture
async def world(store: Store) -> World:
    """A control plane without a release."""
    return World(store)


async def until(world: World, true_of: Callable[[Release], bool]) -> None:
    """Wait for the release to become so."""
    async with asyncio.timeout(5):
        while not true_of(await world.release()):  # noqa: ASYNC110 - it changes in the store
            await asyncio.sleep(0.002)


async def test_preflight_holds_until_the_load_report_of_this_candidate(world: World) -> None:
    """Without a report it holds with the command to run; a failing one holds; another digest's counts for nothing."""
    await world.engines()
    await world.start()
    assert (await world.step()).phase is Phase.PREFLIGHT
    await world.store.put_report("m", "load", "another", LOAD, BY)
    held = await world.step()
    assert held.phase is Phase.PREFLIGHT
    assert "linnet loadtest SPEC" in held.held
    await world.store.put_report("m", "load", "d-new", {**LOAD, "verdict": "fail", "reasons": ["ttft p95 900 ms"]}, BY)
    assert "says fail (ttft p95 900 ms)" in (await world.step()).held
    split = await world.store.read_split("m")
    assert split.candidate.engine == "new"
    assert split.percent == 0
    await world.store.put_report("m", "load", "d-new", LOAD, BY)
    moved = await world.step()
    assert (moved.phase, moved.held) == (Phase.SHADOW, "")
    assert moved.split().candidate.price == (0, 1e-6, 1e-6)


async def test_a_good_candidate_is_promoted(world: World) -> None:
    """From start to promoted by synthetic sums alone, every move in the audit."""
    release = await world.to_canary()
    places = [release.place]
    while release.active:
        await world.traffic(300)
        release = await world.step(3)
        places.append(release.place)
    assert places == ["canary 5 %", "canary 50 %", "bake 95 %", "promoted 100 %"]
    split = await world.store.read_split("m")
    assert (split.baseline.engine, split.candidate) == ("new", None)
    assert await world.store.results() == {("m", "promoted"): 1}
    said = [entry["what"] for entry in await world.store.audit("m") if entry["release"]]
    assert said == ["start", "preflight", "rehearsing", "rehearsed", "shadow", "canary", "step", "bake", "promoted"]


async def test_a_rollback_after_promotion_returns_the_old_baseline(world: World) -> None:
    """The split names the old engine again, and the promoted digest is quarantined."""
    await world.to_canary()
    await world.say("promote", args={"skip_analysis": True})
    assert (await world.store.read_split("m")).baseline.engine == "new"
    await world.say("rollback", "users complain")
    assert (await world.store.read_split("m")).baseline.engine == "base"
    assert await world.store.quarantined("m") == {"d-new": "users complain"}


async def test_a_failing_guardrail_rolls_back_with_its_numbers(world: World) -> None:
    """Errors of the candidate alone end it at the next look, paused or not."""
    await world.to_canary()
    await world.say("pause")
    await world.traffic(200, errors=120)
    release = await world.step()
    assert release.phase is Phase.ROLLED_BACK
    assert "error_rate" in release.reason
    assert "120/" in release.reason
    split = await world.store.read_split("m")
    assert (split.candidate, split.percent) == (None, 0)
    assert "d-new" in await world.store.quarantined("m")


async def test_a_trip_is_decided_at_once_and_measured_to_the_last_worker(world: World) -> None:
    """Within 100 ms of the tripwire, without waiting for the next look; the audit has the milliseconds."""
    await world.to_canary()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(world.controller.run())
        await asyncio.sleep(0.3)
        await world.trip()
        start = asyncio.get_running_loop().time()
        await until(world, lambda release: not release.active)
        assert asyncio.get_running_loop().time() - start < 0.1
        running.cancel()
    await world.acknowledge(after_ms=30)
    release = await world.step(0)
    assert release.reason == "6 of 6 failed"
    entry = (await world.store.audit("m"))[-1]
    assert entry["what"] == "acknowledged"
    numbers = json.loads(entry["evidence"])
    assert (numbers["breach_to_decision_ms"], numbers["breach_to_acknowledged_ms"]) == (20, 50)
    assert numbers["workers"] == 1
    text = (await world.metrics.render(world.store)).decode()
    assert 'linnet_rollback_seconds_count{span="acknowledged"} 1.0' in text
    await world.step()
    assert [entry["what"] for entry in await world.store.audit("m")].count("acknowledged") == 1


async def test_an_end_waits_for_the_last_live_worker(world: World) -> None:
    """One that lives and has not heard keeps the entry back; one that is gone does not."""
    await world.to_canary()
    await world.say("rollback")
    await world.acknowledge()
    await world.store.heartbeat("deaf", int(world.now * 1000))
    await world.step()
    assert (await world.store.audit("m"))[-1]["what"] == "rollback"
    await world.step(6)
    assert (await world.store.audit("m"))[-1]["what"] == "acknowledged"


async def test_a_killed_controller_resumes_where_it_was(world: World) -> None:
    """Another process with nothing but the store goes on from the same phase, weights, evidence and clock."""
    before = await world.to_canary()
    await world.traffic(300)
    await world.step(0.5)
    memory = await world.store.analysis("m", "r1", 1)
    await world.controller._resign()
    world.controller = world.another("c2")
    after = await world.step(0.5)
    assert (after.phase, after.shares, after.entered) == (before.phase, before.shares, before.entered)
    assert memory is not None
    assert (await world.step(2)).percent == 50


async def test_a_paused_leader_that_wakes_late_changes_nothing(world: World) -> None:
    """The lease ran out and another leads: the sleeper's write is fenced off."""
    await world.to_canary()
    await world.controller._resign()
    sleeper, other = world.another("sleeper", lease_ms=200), world.another("other")
    await sleeper.step()
    await asyncio.sleep(0.25)
    await other.step()
    assert other.leading
    await world.traffic(300)
    world.now += 10
    before = await world.store.release_text("m")
    await sleeper.look("m")
    assert await world.store.release_text("m") == before
    assert not sleeper.leading
    await other.look("m")
    assert (await world.release()).percent == 50


async def test_a_lost_store_is_one_line_and_a_hold(valkey: Valkey, caplog: pytest.LogCaptureFixture) -> None:
    """Signal 9 to the store: it says so once; after its restart the release is where it was and goes on."""
    store = Store.connect(valkey.url)
    world = World(store)
    before = await world.to_canary()
    with caplog.at_level(logging.WARNING):
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(world.controller.run())
            await asyncio.sleep(0.2)
            valkey.kill()
            await asyncio.sleep(1.6)
            lost = [record for record in caplog.records if "holding every release" in record.getMessage()]
            assert len(lost) == 1
            with pytest.raises(StoreError):
                await store.models()
            valkey.start()
            assert (await world.release()) == before
            await world.traffic(300)
            world.now += 3
            await until(world, lambda release: release.percent == 50)
            running.cancel()
    assert (await world.release()).percent == 50
    await store.close()


async def test_a_dead_engine_holds_and_a_moved_one_is_followed(world: World) -> None:
    """Neither arm may be down to advance; the same digest elsewhere is the same arm."""
    await world.to_canary()
    await world.traffic(300)
    await world.engines(base="failed")
    held = await world.step(3)
    assert held.percent == 5
    assert "base is failed" in held.held
    await world.store.register_engine(
        {"name": "base", "url": "http://127.0.0.1:9", "digest": "d-base", "state": "ready"}
    )
    await world.step()
    assert (await world.store.read_split("m")).baseline.replicas == ("http://127.0.0.1:9",)
    assert (await world.step()).percent == 50


async def test_a_control_that_is_down_holds_and_one_that_moved_is_followed(world: World) -> None:
    """It is a part of the baseline: without it the arms are not loaded alike."""
    line = "  candidate: {engine: new, served_model: new, usd_per_hour: 0.2}\n"
    spare = {"name": "spare", "url": "http://127.0.0.1:8103", "digest": "d-base", "state": "ready"}
    await world.store.register_engine(spare)
    await world.to_canary(spec=changed(line, line + "  control: {engine: spare}\n"))
    split = await world.store.read_split("m")
    assert (split.control.replicas, split.control_percent) == (("http://127.0.0.1:8103",), 5)
    await world.traffic(300)
    await world.store.register_engine({**spare, "state": "failed"})
    held = await world.step(3)
    assert (held.percent, "the control's engine spare is failed" in held.held) == (5, True)
    await world.store.register_engine({**spare, "url": "http://127.0.0.1:9"})
    await world.step()
    assert (await world.store.read_split("m")).control.replicas == ("http://127.0.0.1:9",)


async def test_sums_that_cannot_be_read_hold(world: World) -> None:
    """A damaged field is unknown evidence, never a pass."""
    await world.to_canary()
    await world.traffic(300)
    await world.store._redis.hset(keys.tally("m", "r1", 1), "1|candidate|domain|done", "many")
    held = await world.step(3)
    assert held.percent == 5
    assert "done" in held.held


async def test_blocks_are_remembered_and_their_sums_dropped(world: World) -> None:
    """What the guardrails took in need not be read again each second; what is not closed yet stays."""
    spec = changed("error_rate: {max_increase: 5pp}", "error_rate: {max_increase: 5pp}\n  ttft_p95: {max_ratio: 1.5}")
    await world.to_canary(spec=spec)
    await world.traffic(300)
    fields = {}
    first = int(world.now // 10)
    for block in (first, first + 1, first + 30):
        for arm in ("candidate", "baseline"):
            sums = {"n": 250, "k": 250 * 400, "kk": 250 * 400**2 + 250 * 300}
            fields |= {f"1|{arm}||ttft@{block}.{word}": amount for word, amount in sums.items()}
    await world._flush(fields)
    await world.step(250)
    assert sum("@" in name for name in await world.store.tallies("m", "r1", 1)) == 6
    text = await world.store.analysis("m", "r1", 1)
    course = Analysis.from_json(text or "").courses["ttft", ""]
    assert course.blocks == 1  # the first told how times spread
    assert course.taken == (10.0 * (first + 1), 1)


async def test_a_damaged_state_holds_that_model_alone(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """It is told once, in one line, and the other model goes on."""
    await world.to_canary()
    await world.store._redis.sadd(keys.MODELS, "broken")
    await world.store._redis.set(keys.release("broken"), "{}")
    await world.traffic(300)
    assert (await world.step(3)).percent == 50
    await world.step()
    assert len([record for record in caplog.records if "broken" in record.getMessage()]) == 1
    await world.store.trip(Trip("broken", "r", 1, 0, "w", "6 of 6 failed", 1))
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(world.controller.run())
        await asyncio.sleep(0.3)
        await world.trip()
        await until(world, lambda release: not release.active)
        running.cancel()


async def test_workers_long_gone_are_forgotten(world: World) -> None:
    """Their heartbeats, numbers and acknowledgements do not pile up; a living worker keeps its own."""
    await world.to_canary()
    await world.traffic(10)
    await world.acknowledge()
    world.seq = 0
    world.now += 4000
    await world.store.heartbeat("alive", int(world.now * 1000))
    await world.step(1)
    assert await world.store.acks("m") == {}
    await world.traffic(10)
    assert (await world.store.tallies("m", "r1", 1))["1|candidate|domain|done"] == "20"
    assert await world.store.workers(0) == ("alive",)


async def test_the_stop_loss_ends_the_release(world: World) -> None:
    """Engine-hours of the candidate add up to the card's limit: the attempt is aborted."""
    await world.engines()
    await world.start(changed("usd_per_hour: 0.2", "usd_per_hour: 10", SPEC))
    await world.step()
    release = await world.step(3600)
    assert release.phase is Phase.ABORTED
    assert "over the stop loss of 8.00 USD" in release.reason


async def test_a_freeze_window_of_the_spec_holds(world: World) -> None:
    """While it is open nothing advances, and the overlay says until when."""
    window = "freeze:\n  - {from: 2027-01-15T00:00:00Z, to: 2027-01-16T00:00:00Z, reason: audit}\n"
    await world.engines()
    await world.start(SPEC + window)
    held = await world.step()
    assert held.phase is Phase.DRAFT
    assert "audit" in held.held


async def test_a_trip_outlives_a_store_that_fails_while_it_is_decided(world: World) -> None:
    """It is read again: a rollback that a worker asked for is never lost."""
    await world.to_canary()
    decide, failed = world.controller.tripped, []

    async def once_lost(trip: Trip) -> Release | None:
        if not failed:
            failed.append(trip)
            raise StoreError("gone for a moment")
        return await decide(trip)

    world.controller.tripped = once_lost
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(world.controller.run())
        await asyncio.sleep(0.3)
        await world.trip()
        await until(world, lambda release: not release.active)
        running.cancel()
    assert failed


@pytest.mark.parametrize("ending", [{"verb": "promote", "args": {"skip_analysis": True}}, {"verb": "rollback"}])
async def test_engines_that_move_after_the_end_are_followed(world: World, ending: dict) -> None:
    """Users are still served by them; how the release ended stays its reason."""
    await world.to_canary()
    reason = (await world.say(**ending))["reason"]
    for port, name in ((11, "base"), (12, "new")):
        await world.store.register_engine({"name": name, "url": f"http://127.0.0.1:{port}", "digest": f"d-{name}"})
    moved = await world.step()
    port = 12 if ending["verb"] == "promote" else 11
    assert (await world.store.read_split("m")).baseline.replicas == (f"http://127.0.0.1:{port}",)
    assert moved.reason == reason
    assert (await world.store.audit("m"))[-1]["why"].startswith("engines serve elsewhere now")
    await world.say("freeze", "holidays")
    assert (await world.release()).reason == reason
    assert (await world.store.audit("m"))[-1]["why"] == "holidays"


async def test_a_load_report_against_another_baseline_opens_no_gate(world: World) -> None:
    """Its cost ratio and its prices are of another pair; so is one with an arm left out."""
    await world.engines()
    await world.start()
    await world.step()
    other = {**LOAD, "arms": {**LOAD["arms"], "baseline": {**LOAD["arms"]["baseline"], "digest": "d-older"}}}
    await world.store.put_report("m", "load", "d-new", other, BY)
    assert "is against another baseline" in (await world.step()).held
    half = {**LOAD, "arms": {"candidate": LOAD["arms"]["candidate"]}}
    await world.store.put_report("m", "load", "d-new", half, BY)
    assert "lacks the baseline" in (await world.step()).held


async def test_an_end_is_acknowledged_once_whatever_moves_later(world: World) -> None:
    """An engine that moves after a rollback makes no second, longer way back of it."""
    await world.to_canary()
    await world.say("rollback")
    await world.acknowledge()
    await world.step()
    told = (await status(world.store, "m", world.now))["rollback"]
    await world.store.register_engine({"name": "base", "url": "http://127.0.0.1:11", "digest": "d-base"})
    await world.step()
    await world.acknowledge()
    await world.step()
    assert [entry["what"] for entry in await world.store.audit("m")].count("acknowledged") == 1
    assert (await status(world.store, "m", world.now))["rollback"] == told
    assert build(await material(world.store, "m", world.now), 0).rollback.acknowledged_ms is not None


async def test_an_evaluation_against_another_baseline_opens_no_gate(world: World) -> None:
    """What the candidate gained over one baseline says nothing about another."""
    await world.engines()
    await world.start(changed("shadow: {percent", "  eval: {passages: 20}\nshadow: {percent"))
    await world.step()
    await world.store.put_report("m", "load", "d-new", LOAD, BY)
    found = {"kind": "eval", "verdict": "pass", "baseline_digest": "d-older"}
    await world.store.put_report("m", "eval", "d-new", found, BY)
    held = await world.step()
    assert held.phase is Phase.PREFLIGHT
    assert "the eval report of candidate d-new is against another baseline" in held.held
    await world.store.put_report("m", "eval", "d-new", {**found, "baseline_digest": "d-base"}, BY)
    assert (await world.step()).phase is Phase.SHADOW


async def test_a_rehearsal_without_a_worker_holds(world: World) -> None:
    """Nobody would follow a rollback: preflight says so, and nobody is exposed."""
    await world.engines()
    await world.start()
    await world.controller.step()
    await world.store.put_report("m", "load", "d-new", LOAD, BY)
    await world.controller.step()
    held = await world.release()
    assert (held.phase, "no live worker" in held.held) == (Phase.PREFLIGHT, True)


async def test_a_rehearsal_is_over_in_a_moment(store: Store) -> None:
    """A controller that looks each second watches a rehearsal closely: users' way is not kept open for it."""
    world = World(store)
    world.now = time.time()
    world.controller = Controller(store, "c", world.metrics, ask=healthy)
    await world.engines()
    await world.start(SPEC)
    await store.put_report("m", "load", "d-new", LOAD, BY)
    async with following(store), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(world.controller.run())
        await until(world, lambda release: release.phase is Phase.SHADOW)
        running.cancel()
    entries = {entry["what"]: entry for entry in await store.audit("m")}
    lasted = int(entries["rehearsed"]["unix_ms"]) - int(entries["rehearsing"]["unix_ms"])
    release = await world.release()
    assert lasted < 500
    assert 0 <= release.rehearsal_ms <= lasted
    assert json.loads(entries["rehearsed"]["evidence"])["heard"]["workers"] == 1


async def test_a_bake_waits_for_the_evaluation_and_says_the_command(world: World) -> None:
    """Without one for this digest nothing takes the baseline's place."""
    await world.to_canary(50)
    await world.store._redis.delete(keys.report("m", "eval", "d-new"))
    await world.traffic(300)
    await world.step(3)
    await world.traffic(300)
    held = await world.step(3)
    assert (held.phase, "run `linnet eval SPEC`" in held.held) == (Phase.BAKE, True)
    await world.store.put_report("m", "eval", "d-new", EVAL, BY)
    assert (await world.step()).phase is Phase.PROMOTED


async def test_a_baseline_that_could_not_take_everything_exposes_nobody(world: World) -> None:
    """Traffic during preflight against what the load test saw it serve."""
    await world.engines()
    await world.start()
    await world.step()
    await world._flush({"0|baseline||assigned": 600})
    baseline = {**LOAD["arms"]["baseline"], "capacity": {"requests_per_s": 20}}
    await world.store.put_report("m", "load", "d-new", {**LOAD, "arms": {**LOAD["arms"], "baseline": baseline}}, BY)
    held = await world.step(20)
    assert "30 requests/s arrive, and under load the baseline served 20/s" in held.held
    await world.step(20)
    assert (await world.step()).phase is Phase.SHADOW


async def test_a_step_that_gets_nowhere_ends_as_the_spec_says(world: World) -> None:
    """From the YAML to the end of the attempt."""
    line = "{percent: 5, min_duration: 2s, min_samples: 20}"
    spec = changed(line, line[:-1] + ", max_duration: 1m, on_inconclusive: abort}")
    await world.to_canary(spec=spec)
    assert (await world.step(60)).phase is Phase.CANARY
    ended = await world.step(1)
    assert (ended.phase, ended.reason) == (Phase.ABORTED, "over the 60 s at canary 5 %: 0 of 20 samples at canary 5 %")
