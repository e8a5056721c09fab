"""What each event does to a release, one rule each; release.py's table says which rule holds in which phase."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from canary.core import events, moves, rehearsal
from canary.core.events import Evidence
from canary.core.finding import OnBreach
from canary.core.obstacles import RAMP, REHEARSAL, Obstacle, obstacle
from canary.core.plan import AtEnd
from canary.core.state import Phase, Release


class NotAllowed(Exception):  # noqa: N818 - a refusal, not a fault
    """The release does not permit this now: one line with the mend."""


# The controller's own events.


def stay(release: Release, _event: Any) -> Release:
    """Change nothing."""
    return release


def look(release: Release, event: events.Look) -> Release:
    """Decide, worst first: a breach, the money, a guard that pauses, an obstacle, then the way on.

    A release that has moved since it was seen waits for the next look.
    """
    evidence, cause = event.evidence, event.cause
    if event.at not in {"", release.at}:
        return release
    broken = moves.failing(evidence.findings, OnBreach.ROLLBACK)
    if broken:
        return moves.roll_back(release, cause, moves.reasons(broken), int((event.seen or cause.now) * 1000))
    if evidence.spend_usd > release.plan.money.stop_loss:
        reason = f"spent {evidence.spend_usd:.2f} USD, over the stop loss of {release.plan.money.stop_loss:.2f} USD"
        return moves.end(release, Phase.ABORTED, reason, cause.now)
    if release.rehearsing:
        return rehearsal.followed(release, evidence.heard, cause.now)
    release = moves.pause_on(release, moves.failing(evidence.findings, OnBreach.PAUSE))
    release = _ramped_by_hand(release, cause.now)
    ahead = obstacle(release, evidence, cause.now)
    if ahead is not None and ahead.then is not AtEnd.HOLD:
        return _timed_out(release, ahead, event)
    release = moves.hold(release, *((ahead.key, ahead.reason) if ahead and ahead.holds else ("", "")))
    return release if release.paused or release.frozen else _proceed(release, evidence, ahead, cause.now)


def _proceed(release: Release, evidence: Evidence, ahead: Obstacle | None, now: float) -> Release:
    """Go on, or do what the controller itself can about the obstacle."""
    if ahead is None:
        return moves.go_on(release, evidence, now, moves.summary(release, evidence))
    work = _WORK.get(ahead.key)
    return release if work is None else work(release, now)


_WORK: Mapping[str, Callable[[Release, float], Release]] = {RAMP: moves.ramped, REHEARSAL: rehearsal.begun}


def _ramped_by_hand(release: Release, now: float) -> Release:
    """Go on with what a person asked for, though automation is paused; a share that grows is subject to a freeze."""
    ramp = release.ramp
    if ramp is None or not ramp.by_hand or (release.frozen and ramp.to > release.percent):
        return release
    return moves.ramped(release, now)


def _timed_out(release: Release, ahead: Obstacle, event: events.Look) -> Release:
    """End an attempt whose time is up, as its plan says."""
    if ahead.then is AtEnd.ABORT:
        return moves.end(release, Phase.ABORTED, ahead.reason, event.cause.now)
    return moves.roll_back(release, event.cause, ahead.reason, int(event.cause.now * 1000))


def tripped(release: Release, event: events.Tripped) -> Release:
    """A tripwire of another attempt says nothing about this one."""
    if (event.release, event.attempt) != (release.release, release.attempt):
        return release
    return moves.roll_back(release, event.cause, event.cause.reason, event.unix_ms)


def relocated(release: Release, event: events.Relocated) -> Release:
    """Engines that serve elsewhere now are the same arms, with empty caches."""
    places: dict[str, Any] = {
        name: moves.relocated(endpoint, event.replicas)
        for name in ("baseline", "candidate", "previous", "control")
        if (endpoint := getattr(release, name)) is not None
    }
    moved = replace(release, **places)
    return moves.warming(moved, event.cause.now) if moved != release and release.split().warm_until else moved


def clock_jumped(release: Release, event: events.ClockJumped) -> Release:
    """What lies behind and what is to go stay as they were: no jump serves a time."""
    return moves.shifted(release, event)


# What a person says.


def pause(release: Release, event: events.Pause) -> Release:
    """Nothing goes on by itself, not even what was set going by hand."""
    return replace(_standing(release), paused=event.cause.reason or "paused", reason=event.cause.reason)


def resume(release: Release, event: events.Resume) -> Release:
    """Hand back to automation, from the share that there is."""
    return release if not release.paused else replace(_standing(release), paused="", reason=event.cause.reason)


def _standing(release: Release) -> Release:
    """Stop a ramp that a person began."""
    return replace(release, ramp=None) if release.ramp is not None and release.ramp.by_hand else release


def weigh(release: Release, event: events.SetWeight) -> Release:
    """Set the share by hand, at once or by a ramp, and pause automation."""
    if not 0 <= event.percent <= 100:  # noqa: PLR2004 - percent
        raise NotAllowed(f"{event.percent:g} is no percent; give 0..100")
    if not 0 <= event.ramp < math.inf:
        raise NotAllowed(f"{event.ramp:g} s is no duration of a ramp; give 0 s or more")
    if release.frozen and event.percent > release.percent:
        raise NotAllowed(f"{release.model} is frozen ({release.frozen}); `linnet unfreeze` first, or lower the weight")
    now, over = event.cause.now, f" over {event.ramp:g} s" if event.ramp else ""
    moved = moves.entered(release, release.phase, release.plan.step_at(event.percent), now)
    return replace(
        moves.towards(moved, event.percent, event.ramp, now, by_hand=True),
        paused=f"weight set by hand to {event.percent:g} %{over}; `linnet resume` hands back to automation",
        reason=event.cause.reason,
    )


def promote(release: Release, event: events.Promote) -> Release:
    """One step on, time and manual gate taken on by the person; or all the way, analysis taken on as well."""
    if release.frozen:
        raise NotAllowed(f"{release.model} is frozen ({release.frozen}); `linnet unfreeze` first")
    if event.skip_analysis:
        return moves.to_promoted(release, event.cause.now, f"promoted without analysis: {event.cause.reason}")
    if event.evidence is None:
        raise NotAllowed(
            f"{release.model}: no fresh look of a controller to promote on; start it (linnet up), or --skip-analysis"
        )
    ahead = obstacle(release, event.evidence, event.cause.now, waived=("time", "gate"))
    if ahead is not None:
        raise NotAllowed(f"{release.model}: not yet: {ahead.reason}; wait, or --skip-analysis")
    return moves.go_on(release, event.evidence, event.cause.now, event.cause.reason)


def abort(release: Release, event: events.Abort) -> Release:
    """End the attempt, nothing judged."""
    return moves.end(release, Phase.ABORTED, event.cause.reason, event.cause.now)


def supersede(release: Release, event: events.Supersede) -> Release:
    """End the attempt for another release's sake."""
    return moves.end(release, Phase.SUPERSEDED, event.cause.reason, event.cause.now)


def rollback(release: Release, event: events.Rollback) -> Release:
    """All traffic to the baseline: a person says that the candidate is bad."""
    return moves.roll_back(release, event.cause, event.cause.reason, int(event.cause.now * 1000))


def restore(release: Release, event: events.Rollback) -> Release:
    """After promotion: the old baseline takes over again, the promoted one is the bad candidate."""
    if release.previous is None:
        raise NotAllowed(f"{release.model}: no earlier baseline is known; start a release of another candidate")
    swapped = replace(release, baseline=release.previous, candidate=release.baseline, previous=None)
    return rollback(swapped, event)


def retry(release: Release, event: events.Retry) -> Release:
    """Begin the next attempt, which knows nothing of this one but what it cost."""
    if not event.cause.reason:
        raise NotAllowed(f"{release.model}: a retry needs to say why; add --reason TEXT")
    return Release(
        model=release.model,
        release=release.release,
        attempt=release.attempt + 1,
        plan=release.plan.after(release.ended - release.started, event.tokens_usd),
        baseline=release.baseline,
        candidate=release.candidate,
        control=release.control,
        spec=release.spec,
        generation=release.generation,
        started=event.cause.now,
        entered=event.cause.now,
        frozen=release.frozen,
        reason=event.cause.reason,
    )


def freeze(release: Release, event: events.Freeze) -> Release:
    """Nothing advances."""
    return replace(release, frozen=event.cause.reason or "frozen")


def unfreeze(release: Release, _event: events.Unfreeze) -> Release:
    """Advancing is allowed again."""
    return release if not release.frozen else replace(release, frozen="")


def refuse(what: str, mend: str) -> Callable[[Release, Any], Release]:
    """Return the rule that refuses `what` and names the `mend`."""

    def refuse(release: Release, _event: Any) -> Release:
        raise NotAllowed(f"{release.model}: {what} is not possible in {release.phase}; {mend}")

    return refuse
