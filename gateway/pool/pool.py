"""The pools of a worker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Sequence
from random import Random
from time import monotonic
from typing import Final

from gateway.pool.admission import Gate
from gateway.pool.balance import Rings
from gateway.pool.options import PoolOptions
from gateway.pool.replica import Replica
from gateway.pool.retry import RetryBudget
from gateway.pool.seats import Pool
from gateway.pool.sending import Errand, Sending
from gateway.pool.sink import Sink
from gateway.settings import Limits

_USUAL: Final = PoolOptions()


def _nobody(_: str) -> None:
    """Count nothing."""


class Pools:
    """Every arm's pool, and every replica by its URL: it keeps its connections from one generation to the next.

    `retried` is told the model of each request that another replica is asked for.
    """

    def __init__(self, limits: Limits, retried: Callable[[str], None] = _nobody) -> None:
        self._limits = limits
        self._chance = Random().random  # noqa: S311 - it spreads load, it guards nothing
        self._pools: dict[tuple[str, ...], Pool] = {}
        self._budgets: dict[str, RetryBudget] = {}
        self._replicas: dict[str, Replica] = {}
        self._rings = Rings()
        self._tasks: set[asyncio.Task[None]] = set()
        self.connecting_s = 2 * limits.connect_s
        self.retried = retried

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return sum(replica.connections for replica in self._replicas.values())

    @property
    def replicas(self) -> Collection[Replica]:
        """Every replica that is in use, for the health checks."""
        return [replica for replica in self._replicas.values() if not replica.retired]

    def pool(self, model: str, arm: str, urls: Sequence[str], options: PoolOptions = _USUAL) -> Pool:
        """Return an arm's pool as it is now. It is one and the same for as long as its arm is named."""
        pool = self._pools.get((model, arm))
        if pool is None or pool.urls is not urls or pool.options is not options:
            pool = self._settle((model, arm), urls, options)
        return pool

    def send(self, urls: Sequence[str], errand: Errand, sink: Sink) -> Sending:
        """Send a request that belongs to no arm to one of the replicas; `sink` hears the reply."""
        return self.send_to(self._settle(("", "", *urls), urls, _USUAL), errand, sink, monotonic())

    def send_to(self, pool: Pool, errand: Errand, sink: Sink, now: float) -> Sending:
        """Send one request `now` to one of a pool's replicas; `sink` hears the reply, perhaps before this returns."""
        sending = Sending(self, pool, errand, sink)
        sending.start(now)
        return sending

    def up(self, model: str, arm: str) -> bool:
        """Tell whether an arm has a replica that is not known to fail; nothing is known of one never asked."""
        pool = self._pools.get((model, arm))
        return pool is None or pool.up(monotonic())

    def waiting(self, model: str, arm: str) -> int:
        """Return how many requests wait for a slot of an arm."""
        pool = self._pools.get((model, arm))
        return 0 if pool is None else pool.gate.waiting

    def keep(self, urls: Collection[str]) -> None:
        """Forget every replica but these; what is under way there goes on. Call it about once a second."""
        now = monotonic()
        for replica in self._replicas.values():
            replica.sweep(now)
        gone = [url for url in self._replicas if url not in urls]
        for url in gone:
            replica = self._replicas[url]
            replica.retire()
            if not replica.connections:
                del self._replicas[url]
        if gone:
            self._forget(urls)

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        """Run what has to wait for a connection."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        """Close what is idle."""
        for replica in self._replicas.values():
            replica.close()

    def _forget(self, urls: Collection[str]) -> None:
        for key, pool in list(self._pools.items()):
            pool.forget(urls)
            if not pool.known and not pool.gate.inside:
                del self._pools[key]
        models = {key[0] for key in self._pools}
        self._budgets = {model: budget for model, budget in self._budgets.items() if model in models}

    def _settle(self, key: tuple[str, ...], urls: Sequence[str], options: PoolOptions) -> Pool:
        """Bring a pool up to date."""
        pool = self._pools.get(key)
        if pool is None:
            pool = self._pools[key] = self._open(key[0], options)
        elif pool.options is not options:
            pool.obey(options)
        pool.follow(urls, lambda url: self._replica(url, options), monotonic())
        return pool

    def _open(self, model: str, options: PoolOptions) -> Pool:
        budget = self._budgets.get(model)
        if budget is None:
            budget = self._budgets[model] = RetryBudget(options, monotonic())
        gate = Gate(options, asyncio.get_running_loop().call_later, monotonic, self._chance)
        return Pool(model, options, gate, budget, rings=self._rings, chance=self._chance)

    def _replica(self, url: str, options: PoolOptions) -> Replica:
        replica = self._replicas.get(url)
        if replica is None:
            replica = self._replicas[url] = Replica(url, self._limits, options)
        replica.retired = False
        return replica
