"""The rehearsal of a rollback: while nobody is exposed, the candidate is withdrawn and every worker has to follow.

It takes the way of a real rollback: a decision, a new generation without the candidate, the acknowledgement of every
live worker. Then the candidate is known again, at no share of traffic.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from canary.core.events import Heard
from canary.core.state import Release

AGAIN_S: Final = 60.0  # after a rehearsal that was too slow


def passed(release: Release) -> bool:
    """Tell whether a rollback was fast enough when it was rehearsed in this attempt."""
    return release.rehearsal_ms is not None and release.rehearsal_ms <= release.plan.max_rollback * 1000


def due(release: Release, now: float) -> float:
    """Return the seconds until it may be tried again, at most 0 if it may be now."""
    if release.rehearsal_ms is None:
        return 0.0
    return (release.withdrawn_ms + release.rehearsal_ms) / 1000 + AGAIN_S - now


def begun(release: Release, now: float) -> Release:
    """Withdraw the candidate, as a rollback does."""
    return replace(release, withdrawn_ms=int(now * 1000), rehearsal_ms=None)


def followed(release: Release, heard: Heard, now: float) -> Release:
    """End the rehearsal once every worker has followed, or given up: it then took as long as it was waited for.

    Workers tell the time of their acknowledgement by their own clocks, so it is taken to lie between the withdrawal
    and now.
    """
    waited = max(0, int(now * 1000) - release.withdrawn_ms)
    if heard.workers and heard.generation >= release.generation:
        return replace(release, rehearsal_ms=min(waited, max(0, heard.unix_ms - release.withdrawn_ms)))
    return release if waited <= release.plan.max_rollback * 1000 else replace(release, rehearsal_ms=waited)


def words(release: Release) -> str:
    """Say how the last one went."""
    if release.rehearsal_ms is None:
        return "no rollback rehearsed"
    if passed(release):
        return f"a rollback rehearsed in {release.rehearsal_ms} ms"
    return f"a rehearsed rollback took over {release.plan.max_rollback:g} s ({release.rehearsal_ms} ms)"
