from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from canary.core.arms import Split
from canary.storage.store import Store, StoreError
from gateway.record.metrics import Metrics
from gateway.split.catalogue import Catalogue
from gateway.split.follow import Follower, forever
from gateway.split.splits import SplitFiles, Splits
from tests.gateway.record.sample import sample
from tests.gateway.rig import publish, until
from tests.gateway.split.test_splits import LIVE, STATIC

A = replace(STATIC, model="a")


def follower(store: Store, folder: Path, *static: Split) -> tuple[Follower, Splits, Metrics]:
    """What follows the store in one worker."""
    splits, metrics = Splits(static, SplitFiles(folder), "w", 60), Metrics()
    return Follower(store, splits, "w", metrics), splits, metrics


async def test_a_damaged_split_stops_no_other(store: Store, tmp_path: Path):
    """Each model stands for itself; the damage is told, and the last good split holds."""
    await publish(store, replace(LIVE, model="a"))
    following, splits, metrics = follower(store, tmp_path, A, STATIC)
    await following.poll()
    assert sample(metrics, "linnet_store_up") == 1
    await publish(store, LIVE)
    await store._redis.set("linnet:a:split", "{")
    for _ in range(2):
        with pytest.raises(StoreError, match="linnet:a:split"):
            await following.poll()
    assert splits.route("m").split == LIVE
    assert splits.route("a").split == replace(LIVE, model="a")
    assert (await store.acks("m"))["w"][0] == LIVE.generation
    assert sample(metrics, "linnet_store_up") == 0


async def test_a_store_that_lost_its_memory_hears_the_acknowledgement_again(store: Store, tmp_path: Path):
    """The controller waits for every worker: silence would stall the release."""
    following, *_ = follower(store, tmp_path, STATIC)
    await publish(store, LIVE)
    await following.poll()
    asked, store.split_texts = store.split_texts, _lost
    with pytest.raises(StoreError):
        await following.poll()
    store.split_texts = asked
    await store._redis.delete("linnet:m:acks")
    await following.poll()
    assert (await store.acks("m"))["w"][0] == LIVE.generation


async def _lost(_: str) -> tuple[str, None]:
    raise StoreError("lost")


async def test_a_model_the_file_does_not_name_is_neither_served_nor_acknowledged(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """The store can add no public name; whoever waits for its acknowledgement finds the reason in the log, once."""
    await publish(store, replace(LIVE, model="other"))
    following, splits, _ = follower(store, tmp_path, STATIC)
    for _ in range(3):
        await following.poll()
    assert splits.route("other") is None
    assert await store.acks("other") == {}
    assert caplog.text.count("LINNET_MODELS") == 1
    splits.list(Catalogue((STATIC, replace(STATIC, model="other"))), 0)
    await following.poll()
    assert splits.route("other").split == replace(LIVE, model="other")
    assert (await store.acks("other"))["w"][0] == LIVE.generation


async def test_an_older_split_of_the_store_is_believed_after_three_polls(store: Store, tmp_path: Path):
    """A store restored from a copy; the digest of its splits is the same each time, and each time is a word of it."""
    following, splits, _ = follower(store, tmp_path, STATIC)
    await publish(store, LIVE)
    await following.poll()
    await publish(store, replace(LIVE, generation=2))
    seen = []
    for _ in range(3):
        await following.poll()
        seen.append(splits.route("m").split.generation)
    assert seen == [5, 5, 2]
    assert (await store.acks("m"))["w"][0] == 2


class _Counting:
    """A connection's commands, counted."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        ask = store._ask

        async def counted(call):
            self.count += 1
            return await ask(call)

        monkeypatch.setattr(store, "_ask", counted)


async def test_a_thousand_models_cost_a_poll_one_round_trip(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """One more for the acknowledgements when something has changed; nothing is made anew that stayed as it was."""
    models = [replace(STATIC, model=f"m{number}") for number in range(1000)]
    pipe = store._redis.pipeline(transaction=False)
    for model in models:
        pipe.sadd("linnet:models", model.model)
        pipe.set(f"linnet:{model.model}:split", replace(LIVE, model=model.model).to_json())
    await pipe.execute()
    following, splits, _ = follower(store, tmp_path, *models)
    calls = _Counting(store, monkeypatch)
    await following.poll()
    assert calls.count == 2
    assert {route.split.generation for route in splits.routes.values()} == {5}
    assert (await store.acks("m999"))["w"][0] == 5
    before, calls.count = dict(splits.routes), 0
    began = time.process_time()
    await following.poll()
    assert time.process_time() - began < 0.05  # 3 ms when measured; a poll stops every request of the worker
    assert calls.count == 1
    assert all(splits.routes[model] is route for model, route in before.items())
    await publish(store, replace(LIVE, model="m7", generation=6))
    calls.count = 0
    await following.poll()
    assert calls.count == 2
    changed = [model for model, route in splits.routes.items() if before[model] is not route]
    assert changed == ["m7"]


async def test_the_last_acknowledgement_is_of_the_newest(store: Store, tmp_path: Path):
    """A poll and a push may say theirs at once; the slow word of an older one does not come last."""
    following, _, _ = follower(store, tmp_path, STATIC)
    await publish(store, LIVE)
    say, slow = store.acknowledge_all, asyncio.Event()

    async def slowly(worker: str, generations: Mapping[str, int], unix_ms: int) -> None:
        if generations == {"m": 5}:
            await slow.wait()
        await say(worker, generations, unix_ms)

    store.acknowledge_all = slowly
    async with asyncio.TaskGroup() as group:
        group.create_task(following.poll())
        listening = group.create_task(following.listen())
        await until(lambda: following._routed == {"m": 5}, "the first")
        await publish(store, replace(LIVE, generation=6))
        await until(lambda: following._routed == {"m": 6}, "the push")
        slow.set()
        await until(lambda: _generation(store, 6), "the newest")
        listening.cancel()


async def _generation(store: Store, generation: int) -> bool:
    return (await store.acks("m")).get("w", (0, 0))[0] == generation


async def test_nobody_waits_for_a_worker_that_has_left(store: Store, tmp_path: Path):
    """Its last word, after its last heartbeat."""
    following, *_ = follower(store, tmp_path, STATIC)
    await following.beat()
    assert await store.workers(_now_ms()) == ("w",)
    await following.leave()
    assert await store.workers(_now_ms()) == ()


def _now_ms() -> int:
    return int(time.time() * 1000)


async def test_nothing_beside_the_requests_ends_a_worker(caplog: pytest.LogCaptureFixture):
    """An error of any kind is told once, not once a turn."""
    turns = 0

    async def fails() -> None:
        nonlocal turns
        turns += 1
        raise RuntimeError("a bug")

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await forever("failing", fails, 0.001)
    assert turns > 3
    assert caplog.text.count("failing failed") == 1


async def test_a_cancellation_that_a_library_swallows_ends_the_loop_all_the_same():
    """Else a worker never comes to its end."""
    began = asyncio.Event()

    async def swallow() -> None:
        began.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)

    task = asyncio.ensure_future(forever("nothing", swallow, 0.0))
    await began.wait()
    task.cancel()
    await asyncio.wait([task], timeout=5)
    assert task.done()
