"""The controller: read, assess, advance, act; once a second for every model, and at once when a tripwire fires.

It keeps nothing but its lease. What it knows lies in the store, so one that is killed resumes where it was, and one
that slept through its lease can write nothing any more. With the store gone it holds: workers keep their last split.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

from canary import health, reading, references, success
from canary.assess import Engines, Seen, evidence, moved, stages
from canary.card.spec import Spec
from canary.card.spec import parse as parse_spec
from canary.clock import Clock, Reading
from canary.confirm import confirm
from canary.core import events, finding
from canary.core.events import Cause, Event, Evidence
from canary.core.finding import Finding
from canary.core.guardrails import Analysis
from canary.core.guardrails import look as judge
from canary.core.release import Release, advance
from canary.core.tally import Reader, TallyError, blocks_before
from canary.effects import brief, change_of
from canary.metrics import Metrics
from canary.storage import keys
from canary.storage.link import ending
from canary.storage.store import Lease, Store, StoreError, Trip

log = logging.getLogger("linnet.controller")

ACTOR = "controller"
_TRIES = 20
_BACKOFF_S = (0.2, 2.0)  # first and longest wait for a lost store
_SWEEP_S, _GONE_S = 600.0, 3600.0  # how often workers are forgotten, and after how long a silence
_BLOCKS_KEPT_S = 120.0  # sums of blocks that are closed, and remembered, for longer than this are dropped
_HELD = "held where it is; abort or roll back by hand"
_REHEARSAL_S = 0.05  # how often a release is looked at whose candidate is withdrawn for a rehearsal
_STANDBY_S = 0.2  # how often a controller without the lease asks whether trips are its own


class Controller:
    """One of any number; the one with the lease decides."""

    def __init__(
        self,
        store: Store,
        holder: str,
        metrics: Metrics,
        *,
        clock: Reading = time.time,
        steady: Reading = time.monotonic,
        look_seconds: float = 1.0,
        lease_ms: int = 3000,
        ask: health.Ask | None = None,
    ) -> None:
        self._store = store
        self._holder = holder
        self._metrics = metrics
        self._clock = Clock(clock, steady)
        self._look_seconds = look_seconds
        self._lease_ms = lease_ms
        self._health = health.Health(ask or health.HttpAsk())
        self._lease: Lease | None = None
        self._told: dict[tuple[str, str], str] = {}
        self._readers: dict[str, Reader] = {}
        self._rehearsing: set[str] = set()
        self._swept = 0.0
        self._collected = 0.0

    @property
    def leading(self) -> bool:
        """True while this controller holds the lease, as far as it knows."""
        return self._lease is not None

    @property
    def lease(self) -> Lease | None:
        """The lease, as far as this controller knows; None on standby."""
        return self._lease

    async def run(self) -> None:
        """Look and listen until cancelled; then give the lease back."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._for_ever(self._look_and_wait, log))
                tasks.create_task(self._listen())
        finally:
            await self._resign()

    async def step(self) -> None:
        """Take or renew the lease and look at every model once. Raises StoreError."""
        token = self._lease.token if self._lease else None
        self._lease = await self._store.lead(self._holder, token, self._lease_ms)
        if self._lease is None:
            self._rehearsing.clear()
            self._clock.lose_sight()
            return
        for model in await self._store.models():
            await self._guarded(model, self.look(model))
        await self._collect()
        await self._forget_workers()

    async def look(self, model: str) -> Release | None:
        """Look at one model and act; return its release. Raises StoreError."""
        self._rehearsing.discard(model)
        release = _read(await self._store.release_text(model))
        if release is not None and (jump := self._clock.jumped(release, ACTOR)):
            release = await self._tell(model, jump)
        if release is None:
            return None
        engines = await self._store.engines()
        elsewhere = moved(release, engines)
        if elsewhere:
            why = f"engines serve elsewhere now: {', '.join(elsewhere)}"
            event = events.Relocated(Cause(ACTOR, why, self._clock()), elsewhere)
            release = await self._tell(model, event) or release
        elif release.active:
            release = await self._assess(release, engines) or release
        if release.rehearsing:
            self._rehearsing.add(model)
        if self._lease is not None:
            await confirm(self._store, self._lease, release, self._metrics, self._clock())
        return release

    async def tripped(self, trip: Trip) -> Release | None:
        """Act on a worker's tripwire. Raises StoreError."""
        cause = Cause(f"worker {trip.worker}", trip.reason, self._clock())
        return await self._tell(trip.model, events.Tripped(cause, trip.release, trip.attempt, trip.unix_ms))

    # Read, assess, advance, act.

    async def _assess(self, release: Release, engines: Engines) -> Release | None:
        now, spec = self._clock(), _spec(release.spec)
        seen = await reading.read(self._store, self._health, release, engines, now)
        seen, findings, analysis = await self._judged(release, spec, seen, now)
        unmet = success.unmet(release, seen.reports.get("eval"), spec.decision.success)
        found = evidence(release, seen, findings, now, frozen=spec.frozen_at(now), unmet=unmet)
        if not await self._remember(release, found, analysis, now):
            return None
        await self._store.forget(release.model, release.release, release.attempt, seen.old)
        decided = Cause(ACTOR, "", self._clock())
        return await self._tell(release.model, events.Look(decided, found, release.at, now), found)

    async def _judged(
        self, release: Release, spec: Spec, seen: Seen, now: float
    ) -> tuple[Seen, tuple[Finding, ...], Analysis]:
        """Read the sums and judge them; sums that cannot be read hold the release where it is."""
        name = (release.model, release.release, release.attempt)
        text = await self._store.analysis(*name)
        analysis = Analysis.from_json(text) if text else Analysis.initial()
        known = references.read(await self._store.reference(release.model))
        try:
            fields = await self._store.tallies(*name)
            tallies = self._readers.setdefault(release.model, Reader()).read(fields)
        except TallyError as error:
            return replace(seen, trouble=str(error)), (), analysis
        machines = references.machines(release, spec.policy(), known, now)
        analysis, findings = judge(analysis, spec.policy(), stages(release, tallies), now, machines)
        old = tuple(blocks_before(fields, now - _BLOCKS_KEPT_S))
        return replace(seen, tallies=tallies, old=old), findings, analysis

    async def _remember(self, release: Release, found: Evidence, analysis: Analysis, now: float) -> bool:
        """Keep what was seen before acting on it; False once another leads."""
        seen = {"unix_ms": int(now * 1000), "at": release.at, "evidence": found.to_dict()}
        values = {
            keys.analysis(release.model, release.release, release.attempt): analysis.to_json(),
            keys.findings(release.model): finding.dumps(found.findings),
            keys.look(release.model): json.dumps(seen),
        }
        if self._lease is not None and await self._store.write(self._lease, values):
            return True
        self._lease = None
        return False

    async def _tell(self, model: str, event: Event, found: Evidence | None = None) -> Release | None:
        """Advance the release as it stands and write the change; again while a person was faster."""
        for _ in range(_TRIES):
            text = await self._store.release_text(model)
            before = _read(text)
            if before is None or self._lease is None:
                return before
            after, effects = advance(before, event)
            if not effects:
                return after
            change = change_of(text, before, after, effects, evidence=brief(event, found))
            committed = await self._store.commit(replace(change, fence=self._lease.fence))
            if committed.code == "ok":
                _tell_log(before, after)
                return after
            if committed.code == "fenced":
                self._lease = None
        return None

    # Loops that outlive the store.

    async def _look_and_wait(self) -> None:
        due = time.monotonic() + self._look_seconds
        await self.step()
        while self._rehearsing and time.monotonic() < due:
            await asyncio.sleep(_REHEARSAL_S)
            for model in tuple(self._rehearsing):
                await self._guarded(model, self.look(model))
        await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def _listen(self) -> None:
        """Act on trips as they come; a new leader reads them all again, which changes nothing twice."""
        last = "0"

        async def once() -> None:
            nonlocal last
            if self._lease is None:
                last = "0"
                await asyncio.sleep(_STANDBY_S)
                return
            read, trips = await self._store.trips(last)
            for trip in trips:
                await self._guarded(trip.model, self.tripped(trip))
            last = read  # only now: what the store's failure cut short is read again

        await self._for_ever(once, None)

    async def _for_ever(self, once: Callable[[], Awaitable[None]], say: logging.Logger | None) -> None:
        """Repeat; while the store is lost say so once, wait longer each time, and decide nothing."""
        wait = 0.0
        while not ending():
            try:
                await once()
                if wait and say:
                    say.warning("the store answers again")
                wait = 0.0
            except StoreError as error:
                if say and not wait:
                    say.warning("%s; holding every release as it is", error)
                wait = min(max(_BACKOFF_S[0], 2 * wait), _BACKOFF_S[1])
                await asyncio.sleep(wait)

    async def _guarded(self, model: str, act: Awaitable[Any], so: str = _HELD) -> None:
        """Look or act; whatever goes wrong with one model is told once and holds that model alone."""
        try:
            await act
            self._told.pop((model, so), None)
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001 - a controller that dies of one model watches over none
            words = str(error).splitlines() or [""]
            line = f"{model}: cannot be judged ({type(error).__name__}: {words[0]})"
            if self._told.get((model, so)) != line:
                self._told[model, so] = line
                log.error("%s; %s", line, so)  # noqa: TRY400 - one line

    async def _collect(self) -> None:
        """Learn, now and then, how much the machines of each baseline differ among themselves."""
        now = self._clock()
        if 0 <= now - self._collected < references.COLLECT_S:
            return
        self._collected, compared = now, await self._store.references()
        for model in await self._store.models():
            await self._guarded(model, self._collect_of(model, compared, now), "no reference is collected")

    async def _collect_of(self, model: str, compared: frozenset[str], now: float) -> None:
        if self._lease and not await references.collect(self._store, self._lease, model, compared, now):
            self._lease = None

    async def _forget_workers(self) -> None:
        """Drop what is kept of workers that are long gone, now and then; one that only looks so for a jump stays."""
        now = self._clock.earliest()
        if now - self._swept >= _SWEEP_S:
            self._swept = now
            await self._store.forget_workers(int((now - _GONE_S) * 1000))

    async def _resign(self) -> None:
        if self._lease is None:
            return
        try:
            await self._store.resign(self._lease)
        except StoreError:
            log.info("the lease runs out by itself")
        self._lease = None


def _read(text: str) -> Release | None:
    return Release.from_json(text) if text else None


@lru_cache(maxsize=64)
def _spec(text: str) -> Spec:
    """Return the parsed spec; the same text is the same spec."""
    return parse_spec(text, "the release's spec")


def _tell_log(before: Release, after: Release) -> None:
    level = logging.WARNING if not after.active else logging.INFO
    log.log(level, "%s %s: %s -> %s: %s", after.model, after.release, before.place, after.place, after.reason)
