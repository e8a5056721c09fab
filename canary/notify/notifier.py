"""The notifier: follows the audit while its controller leads, and sends on what the specs ask for.

It decides nothing and nobody waits for it. How far it has come is kept in the store, under the lease: whoever leads
next goes on from there, so a message may be sent twice (under the same id) but none is lost with a process. Each
receiver has a lane of its own; a dead one holds up nobody else.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from canary.card.spec import parse
from canary.errors import SpecError
from canary.metrics import Metrics
from canary.notify.message import Message, kinds, message
from canary.notify.sender import Result, Sender
from canary.notify.target import NotifySpec
from canary.storage import keys
from canary.storage.link import ending, loads
from canary.storage.store import Lease, Store, StoreError

log = logging.getLogger("linnet.notify")

TRIES = 8
QUEUE = 100  # messages that wait for one receiver; the oldest give way
FIRST_WAIT_S = 4.0  # doubled with each try: with the time of the tries themselves, ten minutes at most
LOOK_BACK_S = 600.0  # what a store without a position is asked for: older news is none
_POLL_MS = 500
_STANDBY_S = 0.2
_LOST_S = 1.0


def pause(tries: int, chance: float) -> float:
    """Return the seconds to wait after `tries` failures; `chance` in [0, 1) takes up to half of it off."""
    return float(FIRST_WAIT_S * 2 ** (tries - 1) * (1 - chance / 2))


@dataclass(slots=True)
class Progress:
    """Up to which entry of the audit everything has been seen to; later ones may be done before earlier ones."""

    position: str
    _open: OrderedDict[str, int] = field(default_factory=OrderedDict)

    def begin(self, entry: str, messages: int) -> None:
        """Note an entry, in the order of the audit, and how many messages it makes."""
        self._open[entry] = messages
        self._advance()

    def done(self, entry: str) -> None:
        """Note that one message of an entry was sent or given up."""
        self._open[entry] -= 1
        self._advance()

    def _advance(self) -> None:
        while self._open and next(iter(self._open.values())) == 0:
            self.position, _ = self._open.popitem(last=False)


class Notifier:
    """One beside each controller; `lease` tells whether that one leads."""

    def __init__(
        self,
        store: Store,
        lease: Callable[[], Lease | None],
        metrics: Metrics,
        *,
        environment: Mapping[str, str] = os.environ,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        timeout: float = 5.0,
    ) -> None:
        self._store = store
        self._lease = lease
        self._metrics = metrics
        self._clock = clock
        self._sleep = sleep
        self._sender = Sender(environment, timeout)
        self._said: dict[NotifySpec, Result] = {}

    async def run(self) -> None:
        """Follow and send until cancelled."""
        try:
            while not ending():
                try:
                    await self._term()
                except StoreError:
                    await asyncio.sleep(_LOST_S)  # the controller has said so
                except Exception as error:  # noqa: BLE001 - whatever goes wrong here is no release's concern
                    log.error("%s; goes on from where it was", _line(error))  # noqa: TRY400 - one line
                    await asyncio.sleep(_LOST_S)
                await asyncio.sleep(_STANDBY_S)
        finally:
            await self._sender.close()

    async def _term(self) -> None:
        """Serve as long as one lease holds."""
        lease = self._lease()
        if lease is None:
            return
        position = await self._store.notified() or f"{int((self._clock() - LOOK_BACK_S) * 1000)}-0"
        async with asyncio.TaskGroup() as tasks:
            term = Term(self, tasks, Progress(position))
            try:
                await self._follow(lease, term, position)
            finally:
                term.end()

    async def _follow(self, lease: Lease, term: Term, position: str) -> None:
        audit, read, saved = self._store.audit_log(), position, position
        while self._lease() == lease and not ending():
            try:
                for entry in await audit.wait(read, _POLL_MS):
                    await self._take(entry, term)
                    read = entry["id"]
                if term.progress.position != saved:
                    saved = term.progress.position
                    if not await self._store.write(lease, {keys.NOTIFIED: saved}):
                        return
            except StoreError:
                await asyncio.sleep(_LOST_S)  # what is on its way goes on

    async def _take(self, entry: Mapping[str, str], term: Term) -> None:
        wanted = frozenset(kinds(entry))
        targets = await self._targets(entry["model"]) if wanted else ()
        chosen = tuple(target for target in targets if wanted.intersection(target.events))
        term.progress.begin(entry["id"], len(chosen))
        for target in chosen:
            term.enqueue(target, message(entry, target.form))

    async def _targets(self, model: str) -> tuple[NotifySpec, ...]:
        """Return who is to hear of a model's release, as its present spec says."""
        text = await self._store.release_text(model)
        return tuple(dict.fromkeys(_receivers(text))) if text else ()

    async def deliver(self, target: NotifySpec, told: Message) -> None:
        """Send one message; again, later and later, until the receiver has it or `TRIES` are spent."""
        for tries in range(1, TRIES + 1):
            result, line = await self._sender.send(target, told, int(self._clock()))
            if result is Result.RETRIED and tries == TRIES:
                result = Result.FAILED
            self.count(target, result, line)
            if result is not Result.RETRIED or ending():
                return
            await self._sleep(pause(tries, random.random()))  # noqa: S311 - spreads tries, guards nothing

    def count(self, target: NotifySpec, result: Result, line: str) -> None:
        """Count what became of a try; say it once until something else does."""
        self._metrics.notified(result)
        if self._said.get(target) is not result:
            self._said[target] = result
            log.log(logging.INFO if result is Result.SENT else logging.WARNING, "notification %s: %s", result, line)


class Term:
    """The time of one lease: a lane for each receiver, and how far all of them have come."""

    def __init__(self, notifier: Notifier, tasks: asyncio.TaskGroup, progress: Progress) -> None:
        self.progress = progress
        self._notifier = notifier
        self._tasks = tasks
        self._lanes: dict[NotifySpec, tuple[asyncio.Queue[Message], asyncio.Task[None]]] = {}

    def enqueue(self, target: NotifySpec, told: Message) -> None:
        """Let a message wait for its turn; the oldest gives way if too many do."""
        if target not in self._lanes:
            queue: asyncio.Queue[Message] = asyncio.Queue(QUEUE)
            self._lanes[target] = queue, self._tasks.create_task(self._serve(target, queue))
        queue, _ = self._lanes[target]
        if queue.full():
            self.progress.done(queue.get_nowait().entry)
            self._notifier.count(target, Result.DROPPED, f"more than {QUEUE} wait for one receiver")
        queue.put_nowait(told)

    def end(self) -> None:
        """Stop sending; what was not sent is the next leader's."""
        for _, task in self._lanes.values():
            task.cancel()

    async def _serve(self, target: NotifySpec, queue: asyncio.Queue[Message]) -> None:
        while not ending():
            told = await queue.get()
            try:
                await self._notifier.deliver(target, told)
            except Exception as error:  # noqa: BLE001 - one message must not be the end of all
                self._notifier.count(target, Result.FAILED, _line(error))
            if not ending():
                self.progress.done(told.entry)


@lru_cache(maxsize=64)
def _receivers(release: str) -> tuple[NotifySpec, ...]:
    """Return the receivers that a release's state names; one that cannot be read names none."""
    try:
        value: Any = loads(release)
        return parse(value["spec"], "the release's spec").notify
    except (SpecError, ValueError, KeyError, TypeError):
        return ()


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
