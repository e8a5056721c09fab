"""Has every worker heard? Measures breach -> decision -> all live workers, from the workers' own clocks."""

from __future__ import annotations

import json

from canary.core.state import Phase, Release
from canary.metrics import Metrics
from canary.storage.store import Lease, Store

_WAIT_MS = 5_000  # with no worker alive for so long, nobody is left to acknowledge
ENDS = (Phase.ROLLED_BACK, Phase.ABORTED)


async def confirm(store: Store, lease: Lease, release: Release, metrics: Metrics, now: float) -> bool:
    """Append the audit entry `acknowledged` once all live workers route by the end of an attempt; True if it did.

    A worker's acknowledgement carries its own time, so looking late measures no more than looking at once.
    """
    if release.phase not in ENDS or await store.acknowledged(release.model) >= release.concluded:
        return False
    now_ms = int(now * 1000)
    live, acks = await store.workers(now_ms), await store.acks(release.model)
    heard = [acks.get(worker, (-1, 0)) for worker in live]
    if any(generation < release.concluded for generation, _ in heard):
        return False
    if not heard and now_ms - release.decided_ms < _WAIT_MS:
        return False
    last = max((unix_ms for _, unix_ms in heard), default=release.decided_ms)
    if not await store.record_acknowledged(lease, release.model, release.concluded, _entry(release, last, len(heard))):
        return False
    metrics.observe_rollback("decision", (release.decided_ms - release.breach_ms) / 1000)
    if heard:
        metrics.observe_rollback("acknowledged", (last - release.breach_ms) / 1000)
    return True


def _entry(release: Release, last_ms: int, workers: int) -> dict[str, str]:
    decision, acknowledged = release.decided_ms - release.breach_ms, last_ms - release.breach_ms
    numbers = {
        "breach_ms": release.breach_ms,
        "decided_ms": release.decided_ms,
        "acknowledged_ms": last_ms,
        "breach_to_decision_ms": decision,
        "breach_to_acknowledged_ms": acknowledged,
        "workers": workers,
    }
    return {
        "model": release.model,
        "release": release.release,
        "attempt": str(release.attempt),
        "generation": str(release.concluded),
        "before": release.place,
        "after": release.place,
        "who": "controller",
        "what": "acknowledged",
        "why": f"{workers} live workers; breach to decision {decision} ms, to the last worker {acknowledged} ms",
        "unix_ms": str(last_ms),
        "evidence": json.dumps(numbers),
    }
