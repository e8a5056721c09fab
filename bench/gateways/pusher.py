"""Push a new generation of a model's split every second, far more often than a release does.

`python -m bench.gateways.pusher URL MODEL [--listen]`: with --listen it also hears and acknowledges each one as a
second worker would, so that the store serves two.
"""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import replace

from redis import Redis

from canary.core.arms import Split
from canary.storage import keys
from canary.storage.store import Store

_EVERY_S = 1.0
_SECOND_WORKER = "bench-second-worker"


def publish(redis: Redis, split: Split) -> None:
    """Publish a split as the controller does."""
    pipe = redis.pipeline(transaction=True)
    pipe.sadd(keys.MODELS, split.model)
    pipe.set(keys.split(split.model), split.to_json())
    pipe.publish(keys.SPLITS, split.to_json())
    pipe.execute()


async def push(store: Store, redis: Redis, model: str) -> None:
    """Raise the generation again and again."""
    while True:
        await asyncio.sleep(_EVERY_S)
        split = await store.read_split(model)
        if split is not None:
            publish(redis, replace(split, generation=split.generation + 1))
        await store.heartbeat(_SECOND_WORKER, _unix_ms())


async def listen(store: Store) -> None:
    """Acknowledge what is pushed."""
    async for split in store.splits():
        await store.acknowledge(split.model, _SECOND_WORKER, split.generation, _unix_ms())


async def serve(url: str, model: str, *, listening: bool) -> None:
    """Push, and listen if asked, until the process is ended."""
    store = Store.connect(url)
    with Redis.from_url(url, decode_responses=True) as redis:
        async with asyncio.TaskGroup() as group:
            group.create_task(push(store, redis, model))
            if listening:
                group.create_task(listen(store))


def _unix_ms() -> int:
    return int(time.time() * 1000)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], sys.argv[2], listening="--listen" in sys.argv[3:]))
