from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from canary.store import Store, StoreError
from gateway.record.metrics import Metrics
from gateway.split.follow import Follower, forever
from gateway.split.splits import SplitFiles, Splits
from tests.gateway.record.sample import sample
from tests.gateway.rig import publish
from tests.gateway.split.test_splits import LIVE


async def test_a_damaged_split_stops_no_other(store: Store, tmp_path: Path):
    """Each model stands for itself; the damage is told."""
    await publish(store, replace(LIVE, model="a"))
    await publish(store, replace(LIVE, model="z"))
    await store._redis.set("linnet:a:split", "{")
    splits = Splits([], SplitFiles(tmp_path), "w", 60)
    metrics = Metrics()
    with pytest.raises(StoreError, match="linnet:a:split"):
        await Follower(store, splits, "w", metrics).poll()
    assert list(splits.routes) == ["z"]
    assert (await store.acks("z"))["w"][0] == LIVE.generation
    assert sample(metrics, "linnet_store_up") == 0


async def test_a_store_that_lost_its_memory_hears_the_acknowledgement_again(store: Store, tmp_path: Path):
    """The controller waits for every worker: silence would stall the release."""
    splits = Splits([], SplitFiles(tmp_path), "w", 60)
    follower = Follower(store, splits, "w", Metrics())
    await publish(store, LIVE)
    await follower.poll()
    models, store.models = store.models, _lost
    with pytest.raises(StoreError):
        await follower.poll()
    store.models = models
    await store._redis.delete("linnet:m:acks")
    await follower.poll()
    assert (await store.acks("m"))["w"][0] == LIVE.generation


async def _lost() -> tuple[str, ...]:
    raise StoreError("lost")


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
