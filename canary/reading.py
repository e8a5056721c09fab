"""What a look reads beside the sums: reports, load tests, and what the workers have acknowledged."""

from __future__ import annotations

from canary.assess import Engines, Seen, heard
from canary.core.events import NOBODY, Heard
from canary.core.state import Phase, Release
from canary.store import Store


async def read(store: Store, release: Release, engines: Engines, now: float) -> Seen:
    """Return what is to be seen of a release at `now` (Unix seconds), but for its sums. Raises StoreError."""
    model, digest = release.model, release.candidate.digest
    wanted = {"load", *release.plan.gates} | ({"eval"} if release.phase is Phase.BAKE else set())
    reports = {kind: await store.get_report(model, kind, digest) for kind in sorted(wanted)}
    tests = await store.load_tests(model, digest)
    return Seen(engines=engines, reports=reports, load_tests=tests, heard=await _heard(store, release, now))


async def _heard(store: Store, release: Release, now: float) -> Heard:
    """Read the workers' word where it decides: a rollback is rehearsed in preflight."""
    if release.phase is not Phase.PREFLIGHT:
        return NOBODY
    return heard(await store.workers(int(now * 1000)), await store.acks(release.model))
