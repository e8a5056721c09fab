"""What a look reads beside the sums: engines' own answers, reports, load tests, and what workers have acknowledged."""

from __future__ import annotations

from collections.abc import Mapping

from canary.assess import Engines, Seen, heard, served_by
from canary.core.events import NOBODY, Heard
from canary.core.state import Phase, Release
from canary.health import Health
from canary.storage.store import Store


async def read(store: Store, health: Health, release: Release, engines: Engines, now: float) -> Seen:
    """Return what is to be seen of a release at `now` (Unix seconds), but for its sums. Raises StoreError."""
    model, digest = release.model, release.candidate.digest
    wanted = {"load", *release.plan.gates} | ({"eval"} if release.phase is Phase.BAKE else set())
    reports = {kind: await store.get_report(model, kind, digest) for kind in sorted(wanted)}
    tests = await store.load_tests(model, digest)
    return Seen(
        engines=engines,
        silent=await _silent(health, release),
        reports=reports,
        load_tests=tests,
        heard=await _heard(store, release, now),
    )


async def _silent(health: Health, release: Release) -> Mapping[str, str]:
    """Ask the engines themselves before anybody is sent to them; from then on the workers' breakers tell."""
    if release.phase is not Phase.PREFLIGHT:
        return {}
    return await health.silent(url for _, endpoint in served_by(release) for url in endpoint.replicas)


async def _heard(store: Store, release: Release, now: float) -> Heard:
    """Read the workers' word where it decides: a rollback is rehearsed in preflight."""
    if release.phase is not Phase.PREFLIGHT:
        return NOBODY
    return heard(await store.workers(int(now * 1000)), await store.acks(release.model))
