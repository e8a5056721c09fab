"""What a worker does beside its requests: follow the splits, acknowledge them, say that it lives.

Every call to the store is bounded and off the request path; a dead store costs a warning and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from canary.core.arms import Split
from canary.store import Store, StoreError
from gateway.record.metrics import Metrics
from gateway.split.splits import Splits

_LOG = logging.getLogger("linnet.gateway")
POLL_S = 1.0
BEAT_S = 0.5


class Follower:
    """Keeps one worker's splits in step with the store."""

    def __init__(self, store: Store, splits: Splits, worker: str, metrics: Metrics) -> None:
        self._store = store
        self._splits = splits
        self._worker = worker
        self._metrics = metrics
        self._acknowledged: dict[str, int] = {}

    async def listen(self) -> None:
        """Take pushed splits until the store is lost."""
        async for split in self._store.splits():
            await self._take(split, polled=False)

    async def poll(self) -> None:
        """Ask for every model's split once."""
        try:
            models = dict.fromkeys([*self._splits.models, *await self._store.models()])
            failures = [failure for model in models if (failure := await self._ask(model)) is not None]
            if failures:
                raise failures[0]
        except StoreError:
            self._acknowledged.clear()  # whoever answers next may never have heard of this worker
            self._metrics.store_up(up=False)
            raise
        finally:
            self._splits.look(time.monotonic())
            self._metrics.routes(self._splits.routes)
        self._metrics.store_up(up=True)

    async def _ask(self, model: str) -> StoreError | None:
        """Ask for one model's split; return what went wrong, so that a damaged one does not stop the others."""
        try:
            split = await self._store.read_split(model)
            if split is None:
                self._splits.absent(model, time.monotonic())
            else:
                await self._take(split, polled=True)
        except StoreError as error:
            return error
        return None

    async def beat(self) -> None:
        """Say once that this worker lives."""
        await self._store.heartbeat(self._worker, _unix_ms())

    async def _take(self, split: Split, *, polled: bool) -> None:
        routed = self._splits.offer(split, time.monotonic(), polled=polled)
        if routed and self._acknowledged.get(split.model) != split.generation:
            await self._store.acknowledge(split.model, self._worker, split.generation, _unix_ms())
            self._acknowledged[split.model] = split.generation


async def forever(what: str, act: Callable[[], Awaitable[None]], pause_s: float) -> None:
    """Do something again and again. A store that is lost is told once; nothing that goes wrong here ends the worker."""
    well = True
    while True:
        try:
            await act()
            well = True
        except StoreError as error:
            if well:
                _LOG.warning("%s: %s", what, error)
            well = False
        except Exception:  # noqa: BLE001 - the gateway serves whatever goes wrong beside its requests
            if well:
                _LOG.exception("%s failed", what)
            well = False
        await asyncio.sleep(pause_s)


def _unix_ms() -> int:
    return int(time.time() * 1000)
