"""What the requests of this worker leave behind: sums for the store, and the tripwire that does not wait for it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from dataclasses import dataclass
from typing import Final, Protocol

from canary.core.arms import Split
from canary.core.ledger import Ledger
from canary.core.outcome import FAILURES, Outcome, Result
from canary.core.tripwire import Tripwire
from canary.core.units import WAITING_MOST
from canary.core.watchdog import Watchdog
from canary.storage.records import Batch, Trip
from canary.storage.worker_store import WorkerStore
from gateway.record.metrics import Metrics
from gateway.split.splits import Splits

_LOG: Final = logging.getLogger("linnet.gateway")
FLUSH_S: Final = 0.25
AT_ONCE: Final = 128  # attempts in one flush: with more under way they take turns, and evidence is that much later
_KEPT_MOST: Final = 64  # attempts that are over, kept while the store is away; each is a bounded set of sums
_TRIPS_MOST: Final = 64
_OK: Final = Result.OK  # an Enum looks its members up in Python; every request would pay for it

Attempt = tuple[str, str, int]  # model, release, attempt


class Waiter(Protocol):
    """A request of the candidate that waits for its first byte."""

    def hung(self) -> None:
        """The candidate was found broken: let the baseline answer, now."""


@dataclass(frozen=True, slots=True)
class _Page:
    """What is open for a split: its attempt's ledger, its wire unless it has no candidate, its model's reference.

    The reference compares the baseline's replicas with each other, whatever release is under way; one has nobody.
    """

    split: Split
    key: Attempt
    ledger: Ledger
    wire: Tripwire[Waiter] | None
    reference: Ledger | None


class Evidence:
    """One worker's ledgers and tripwires, by release attempt.

    A request finds them on the page of the split it was chosen by. Pages are found by the split's identity, which is
    its own for as long as its page holds it; they are thrown away whenever a ledger or a wire is.
    """

    def __init__(self, store: WorkerStore, splits: Splits, worker: str, metrics: Metrics) -> None:
        self._store = store
        self._splits = splits
        self._worker = worker
        self._metrics = metrics
        self._ledgers: dict[Attempt, Ledger] = {}
        self._wires: dict[Attempt, Tripwire[Waiter]] = {}
        self._pages: dict[int, _Page] = {}
        self._trips: deque[Trip] = deque(maxlen=_TRIPS_MOST)
        self._seq = 0
        self._pending: list[Batch] = []
        self._urgent = asyncio.Event()

    def ledger(self, split: Split) -> Ledger:
        """Return the open page of a split's attempt."""
        return self._page(split).ledger

    def record(self, split: Split, outcome: Outcome) -> None:
        """Add one outcome that chance assigned; those of no release are for the reference alone."""
        if not outcome.evidence or not (split.release or len(split.baseline.replicas) > 1):
            return
        page = self._page(split)
        if page.reference is not None:
            page.reference.refer(outcome)
        if split.release:
            page.ledger.record(outcome)
            self.watch(split, outcome)

    def watch(self, split: Split, outcome: Outcome) -> None:
        """Show one outcome to the tripwire.

        A baseline that answers in place of a failed candidate is shown too: it is no evidence for the release, but it
        tells an outage of both arms from a candidate that is broken, also when hardly anyone is left on the baseline.
        """
        failed = outcome.result in FAILURES
        if split.candidate is None or not (failed or outcome.result is _OK):
            return
        page, route = self._page(split), self._splits.route(split.model)
        if page.wire is None or route is None or (route.split is not split and not self._current(page.key)):
            return
        reason = page.wire.observe(outcome.arm, failed)
        if reason is not None:
            self._trip(split, reason)

    def watchdog(self, split: Split, *, stream: bool) -> Watchdog[Waiter] | None:
        """Return who is told of first bytes under a split, None if there is no candidate to be watched.

        Of the candidate: `sent` once the engine is asked, `answered` at the first byte, `gone` at any other end; of the
        baseline: `baseline` at the first byte.
        """
        wire = self._page(split).wire if split.release else None
        if wire is None:
            return None
        return wire.streams if stream else wire.wholes

    def asked(self, split: Split) -> bool:
        """Tell whether a split's candidate still gets requests: it may have tripped, or its attempt be over."""
        return self._current(_key(split))

    def look(self, now: float) -> None:
        """Look for candidates that hang; `now` is monotonic seconds."""
        for key, wire in tuple(self._wires.items()):
            reason = wire.look(now) if self._current(key) else None
            if reason is not None:
                self._trip(self._splits.routes[key[0]].split, reason)

    async def flush(self) -> None:
        """Look, and write what has gathered as one numbered delta; one perhaps applied is sent again as it was."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_S):
                await self._urgent.wait()
        self._urgent.clear()
        self.look(time.monotonic())
        await self.write()

    async def write(self) -> None:
        """Write now. Raises StoreError; nothing is lost then."""
        while self._trips:
            await self._store.trip(self._trips[0])
            self._trips.popleft()
        if not self._pending:
            self._pending = self._drain()
            self._seq += bool(self._pending)
        if self._pending:
            await self._store.flush(self._worker, self._seq, self._pending)
            self._pending = []

    async def close(self) -> None:
        """Write all that is left: the delta that was perhaps applied, then what came since. Raises StoreError."""
        if self._pending:
            await self.write()
        written = -1
        while written != self._seq:  # the last write found nothing
            written = self._seq
            await self.write()

    def _drain(self) -> list[Batch]:
        """Empty the ledgers that have waited longest, `AT_ONCE` at most: a flush does not grow with the models.

        Nor with what has gathered while the store was away: many claims are enough for once.
        """
        batches: list[Batch] = []
        claimed = 0
        for key in list(self._ledgers):
            ledger = self._ledgers.pop(key)
            if self._newest(key):
                self._ledgers[key] = ledger  # behind the others
            else:
                self._wires.pop(key, None)
                self._pages.clear()
            fields, claims = ledger.drain(), ledger.claims()
            if fields or claims:
                batches.append(Batch(*key, fields, claims))
                claimed += len(claims)
            if len(batches) >= AT_ONCE or claimed >= WAITING_MOST:
                break
        return batches

    def _page(self, split: Split) -> _Page:
        page = self._pages.get(id(split))
        if page is None:
            if len(self._pages) >= self._most():
                self._pages.clear()
            key = _key(split)
            wire = None if split.candidate is None else self._wires.setdefault(key, Tripwire())
            reference = self._ledger((split.model, "", 0)) if len(split.baseline.replicas) > 1 else None
            page = _Page(split, key, self._ledger(key), wire, reference)
            self._pages[id(split)] = page
        return page

    def _ledger(self, key: Attempt) -> Ledger:
        ledger = self._ledgers.get(key)
        if ledger is None:
            while len(self._ledgers) >= self._most():
                self._ledgers.pop(next(iter(self._ledgers)))
                self._pages.clear()
            ledger = self._ledgers[key] = Ledger()
        return ledger

    def _most(self) -> int:
        """Return how many ledgers are kept open: each model's attempt and reference, and some that are over."""
        return 2 * len(self._splits.routes) + _KEPT_MOST

    def _current(self, key: Attempt) -> bool:
        """Tell whether requests are sent to this attempt's candidate."""
        route = self._splits.route(key[0])
        return route is not None and not route.reduced and _key(route.split) == key

    def _newest(self, key: Attempt) -> bool:
        """Tell whether no later attempt is known, also if requests are kept from its candidate; a reference stays."""
        route = self._splits.route(key[0])
        return route is not None and (not key[1] or _key(route.split) == key)

    def _trip(self, split: Split, reason: str) -> None:
        _LOG.warning("model %s: %s", split.model, reason)
        wire = self._wires.pop(_key(split))  # a newer generation starts with a fresh one
        self._pages.clear()
        self._splits.trip(split, reason, time.monotonic())
        unix_ms = int(time.time() * 1000)
        trip = Trip(split.model, split.release, split.attempt, split.stage, self._worker, reason, unix_ms)
        self._trips.append(trip)
        self._metrics.trip(split.model)
        self._urgent.set()
        for waiter in wire.waiting:
            waiter.hung()


def _key(split: Split) -> Attempt:
    return split.model, split.release, split.attempt
