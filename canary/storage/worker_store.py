"""The store as a worker sees it: what it routes by, and what it has to tell."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Self, cast

from redis.asyncio import Redis

from canary.core.arms import Split
from canary.storage import keys, scripts
from canary.storage.apikeys import ApiKeys
from canary.storage.link import StoreError, bounded, ending, heard, open_redis
from canary.storage.records import Batch, Trip
from canary.storage.usage import Usage

LIVE_MS = 5_000  # a worker whose heartbeat is older is gone
_TRIPS_KEPT = 10_000


class WorkerStore:
    """One connection pool to a Redis or Valkey server; nothing here changes a release.

    Every call ends within a second; whatever goes wrong is a `StoreError` of one line. Nothing is retried in here.
    """

    def __init__(self, redis: Redis, url: str) -> None:
        self._redis = redis
        self.url = url

    @classmethod
    def connect(cls, url: str) -> Self:
        """Return a store that connects on its first call. Raises StoreError on a URL that is none."""
        return cls(open_redis(url), url)

    async def close(self) -> None:
        """Close every connection."""
        await self._redis.aclose()

    def api_keys(self) -> ApiKeys:
        """Return the API keys, on the same connections."""
        return ApiKeys(self._redis, self.url)

    def usage(self) -> Usage:
        """Return what API keys have used, on the same connections."""
        return Usage(self._redis, self.url)

    async def ping(self) -> None:
        """Raise StoreError unless the server answers."""
        await self._ask(self._redis.ping())

    async def models(self) -> tuple[str, ...]:
        """Return the public model names, sorted."""
        return tuple(sorted(await self._ask(self._redis.smembers(keys.MODELS))))

    async def read_split(self, model: str) -> Split | None:
        """Return what workers route `model` by, None before its first release. Raises StoreError if it is damaged."""
        text = await self._ask(self._redis.get(keys.split(model)))
        return None if text is None else parse_split(model, text)

    async def split_texts(self, seen: str = "") -> tuple[str, dict[str, str] | None]:
        """Return a digest of all splits, and each model's split as text ("" before its first release).

        None in place of the texts says that the digest still is `seen`: nothing has changed.
        """
        words = [seen, keys.ROOT, keys.SPLIT]
        digest, text = await self._run(scripts.SPLITS, [keys.MODELS], words)
        if digest == seen:
            return digest, None
        flat = json.loads(text)
        return digest, dict(zip(flat[::2], flat[1::2], strict=True))

    async def splits(self) -> AsyncIterator[Split]:
        """Yield every model's split once subscribed, then each one published. Raises StoreError when the line is lost.

        The present splits come after the subscription stands, so none is missed between reading and listening. A
        silent server is asked for a sign of life each second. Damaged messages are left out: the last split holds.
        """
        async with aclosing(self._redis.pubsub()) as channel:
            await self._ask(channel.subscribe(keys.SPLITS))
            _, texts = await self.split_texts()
            for text in (texts or {}).values():
                split = _legible(text)
                if split is not None:
                    yield split
            while not ending():
                split = _split(await heard(channel, self.url))
                if split is not None:
                    yield split

    async def acknowledge(self, model: str, worker: str, generation: int, unix_ms: int) -> None:
        """Record that `worker` routes `model` by `generation` since `unix_ms`."""
        await self._ask(self._redis.hset(keys.acks(model), worker, f"{generation}:{unix_ms}"))

    async def acknowledge_all(self, worker: str, generations: Mapping[str, int], unix_ms: int) -> None:
        """Record many models' generations (by model) in one round trip."""
        pipe = self._redis.pipeline(transaction=False)
        for model, generation in generations.items():
            pipe.hset(keys.acks(model), worker, f"{generation}:{unix_ms}")
        await self._ask(pipe.execute())

    async def heartbeat(self, worker: str, unix_ms: int) -> None:
        """Record that `worker` lives; to be called every 500 ms."""
        await self._ask(self._redis.zadd(keys.WORKERS, {worker: unix_ms}))

    async def leave(self, worker: str, unix_ms: int) -> None:
        """Record that `worker` has ended: nobody waits for its acknowledgement any more.

        Its last heartbeat is dated back rather than dropped: the number of its last delta must outlive any copy of that
        delta that is still under way, and goes with everything else of it in `forget_workers`.
        """
        await self._ask(self._redis.zadd(keys.WORKERS, {worker: unix_ms - LIVE_MS - 1}))

    async def flush(self, worker: str, seq: int, batches: Sequence[Batch]) -> bool:
        """Add a numbered delta to the sums; False, and nothing added, if `seq` was applied before.

        `seq` grows from 0 or 1 within one life of a worker; `worker` names one life of a process, so a restarted one
        takes a new name. A delta whose answer was lost is sent again under the same number.
        """
        names, words = [keys.FLUSHED, keys.REFERENCES], [worker, str(seq)]
        for batch in batches:
            attempt = batch.model, batch.release, batch.attempt
            names += keys.tally(*attempt), keys.units(*attempt)
            words += "" if batch.release else batch.model, str(len(batch.fields)), *batch.increments(), batch.claimed()
        return bool(await self._run(scripts.FLUSH, names, words))

    async def trip(self, trip: Trip) -> None:
        """Report that a tripwire fired; the controller hears at once."""
        await self._ask(self._redis.xadd(keys.TRIPS, cast("Any", trip.to_fields()), maxlen=_TRIPS_KEPT))

    async def _ask(self, call: Any) -> Any:
        return await bounded(call, self.url)

    async def _run(self, script: str, names: Sequence[str], words: Sequence[str]) -> Any:
        return await self._ask(self._redis.eval(script, len(names), *names, *words))


def parse_split(model: str, text: str) -> Split:
    """Read a split as the store keeps it. Raises StoreError if it is damaged."""
    try:
        return Split.from_json(text)
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{keys.split(model)}: not a split ({error}); start the release again") from error


def _split(message: Mapping[str, Any]) -> Split | None:
    """Read a message of the channel; None for what is no split."""
    return _legible(message["data"]) if message.get("type") == "message" else None


def _legible(text: str) -> Split | None:
    try:
        return Split.from_json(text)
    except (ValueError, KeyError, TypeError):
        return None
