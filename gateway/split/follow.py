"""What a worker does beside its requests: follow the splits, acknowledge them, say that it lives.

Every call to the store is bounded and off the request path; a dead store costs a warning and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping

from canary.core.arms import Split
from canary.storage.link import StoreError, ending
from canary.storage.worker_store import WorkerStore, parse_split
from gateway.record.metrics import Metrics
from gateway.split.splits import Splits

_LOG = logging.getLogger("linnet.gateway")
POLL_S = 1.0
BEAT_S = 0.5


class Follower:
    """Keeps one worker's splits in step with the store."""

    def __init__(self, store: WorkerStore, splits: Splits, worker: str, metrics: Metrics) -> None:
        self._store = store
        self._splits = splits
        self._worker = worker
        self._metrics = metrics
        self._seen = ""  # the digest of what was read last
        self._texts: dict[str, str] = {}
        self._named: dict[str, Split] = {}
        self._damage: StoreError | None = None
        self._routed: dict[str, int] = {}  # generations that this store has named
        self._acknowledged: dict[str, int] = {}
        self._saying = False
        self._shown = -1

    async def listen(self) -> None:
        """Take pushed splits until the store is lost."""
        async for split in self._store.splits():
            if self._offer(split, polled=False):
                await self._acknowledge()

    async def poll(self) -> None:
        """Ask for all splits once; what has not changed since costs a comparison."""
        try:
            digest, texts = await self._store.split_texts(self._seen)
            if texts is not None:
                self._read(texts)
                self._seen = digest
            self._take_all()
            await self._acknowledge()
        except StoreError:
            self._acknowledged.clear()  # whoever answers next may never have heard of this worker
            self._metrics.store_up(up=False)
            raise
        finally:
            self._splits.look(time.monotonic())
            self._show()
        self._metrics.store_up(up=self._damage is None)
        if self._damage is not None:
            raise self._damage

    async def beat(self) -> None:
        """Say once that this worker lives."""
        await self._store.heartbeat(self._worker, _unix_ms())

    async def leave(self) -> None:
        """Say that this worker has ended, so that nobody waits for it; to be called when nothing beats any more."""
        await self._store.leave(self._worker, _unix_ms())

    def _read(self, texts: Mapping[str, str]) -> None:
        """Read the splits whose text has changed; a damaged one is told and stops no other."""
        named: dict[str, Split] = {}
        self._damage = None
        for model, text in texts.items():
            try:
                if text:
                    same = self._texts.get(model) == text and model in self._named
                    named[model] = self._named[model] if same else parse_split(model, text)
            except StoreError as error:
                self._damage = error
        self._texts, self._named = dict(texts), named

    def _take_all(self) -> None:
        """Offer what the store names, and note for which models it has nothing."""
        for split in self._named.values():
            self._offer(split, polled=True)
        for model in self._splits.models:
            if not self._texts.get(model):
                self._splits.absent(model, time.monotonic())

    def _offer(self, split: Split, *, polled: bool) -> bool:
        routed = self._splits.offer(split, time.monotonic(), polled=polled)
        if routed:
            self._routed[split.model] = split.generation
        return routed

    async def _acknowledge(self) -> None:
        """Tell the store by which generations this worker routes.

        One says it for all until nothing is left to say, so that the last word is the newest and a push waits for no
        slow one.
        """
        if self._saying:
            return
        self._saying = True
        try:
            while due := self._due():
                await self._store.acknowledge_all(self._worker, due, _unix_ms())
                self._acknowledged |= due
        finally:
            self._saying = False

    def _due(self) -> dict[str, int]:
        """Return the generations that are routed by and were not said."""
        news = self._routed.items() - self._acknowledged.items()
        return {model: generation for model, generation in news if model in self._splits.routes}

    def _show(self) -> None:
        """Show the routes, if one has changed."""
        if self._shown != self._splits.changes:
            self._shown = self._splits.changes
            self._metrics.routes(self._splits.routes)


async def forever(what: str, act: Callable[[], Awaitable[None]], pause_s: float) -> None:
    """Do something again and again. A store that is lost is told once; nothing that goes wrong here ends the worker."""
    well = True
    while not ending():
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
