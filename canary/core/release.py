"""The release machine: one table, from (event, phase) to the rule that says what follows.

Laws (tests/canary/core/test_release.py holds each as a property):

1. Once rolled back, aborted or superseded, the candidate's share is 0 and never rises again in that attempt.
2. Abort always wins and is idempotent: in every active phase it ends the attempt, elsewhere it changes nothing.
3. Neither frozen nor paused blocks a rollback, an abort, or a share that shrinks.
4. Nothing advances by itself without evidence: its time, its samples, and findings (obstacles.py). A shadow needs its
   pairs; up to 25 % no critical guard may fail, from there on all must pass; what is unknown holds, with its reason.
5. A share set by hand pauses automation, and the overlay says so. Automation never undoes a person's hold.
6. The stage grows by one whenever the percent changes; the generation whenever what workers route by changes.
7. A rollback after promotion gives the old baseline its place back, in one step.
8. A rolled-back digest is quarantined; only `retry`, with a reason, lets it try again.
9. The candidate's share of traffic is above 0 only in `canary` and `bake`.

`advance` is pure: time comes with the event's cause. What is to be done follows from the difference between before and
after (consequences.py), so no rule can forget to publish, to note, or to quarantine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from canary.core import events, moves
from canary.core.arms import Endpoint
from canary.core.consequences import consequences, note
from canary.core.events import Cause, Effect, Event
from canary.core.finding import OnBreach
from canary.core.obstacles import obstacle
from canary.core.plan import Plan
from canary.core.state import ACTIVE, ENDED, Phase, Release

__all__ = ["TABLE", "NotAllowed", "Opening", "Phase", "Release", "advance", "begin"]


class NotAllowed(Exception):  # noqa: N818 - a refusal, not a fault
    """The release does not permit this now: one line with the mend."""


@dataclass(frozen=True, slots=True)
class Opening:
    """What a new release is made of; `attempt` counts from 1 over all starts of this name."""

    model: str
    release: str
    attempt: int
    plan: Plan
    spec: str
    baseline: Endpoint
    candidate: Endpoint
    control: Endpoint | None = None


def begin(prior: Release | None, opening: Opening, cause: Cause) -> tuple[Release, tuple[Effect, ...]]:
    """Open a release after `prior` (None for a model's first), in draft. Raises NotAllowed."""
    if prior is not None and prior.active:
        raise NotAllowed(
            f"{prior.model}: release {prior.release} is in {prior.place}; abort it first, or start with --supersede"
        )
    if prior is not None and prior.baseline.engine != opening.baseline.engine:
        raise NotAllowed(
            f"{prior.model}: its baseline is engine {prior.baseline.engine}, the spec's is {opening.baseline.engine}; "
            f"write `engine: {prior.baseline.engine}` under arms.baseline"
        )
    release = Release(
        model=opening.model,
        release=opening.release,
        attempt=opening.attempt,
        plan=opening.plan,
        baseline=opening.baseline,
        candidate=opening.candidate,
        control=opening.control,
        spec=opening.spec,
        generation=1 if prior is None else prior.generation + 1,
        started=cause.now,
        entered=cause.now,
        frozen="" if prior is None else prior.frozen,
        reason=cause.reason,
    )
    count = events.Count(release.release, release.attempt)
    return release, (events.Publish(release.split()), count, note("start", release, cause))


def advance(release: Release, event: Event) -> tuple[Release, tuple[Effect, ...]]:
    """Return the release after `event`, and what is to be done; unchanged and () where nothing follows.

    Raises NotAllowed, with the mend, where a person asks for what the phase does not permit.
    """
    moved = TABLE[type(event)][release.phase](release, event)
    if moved == release:
        return release, ()
    if replace(moved, generation=release.generation).split() != release.split():
        moved = replace(moved, generation=release.generation + 1)
    if moved.phase in ENDED and moved.phase is not release.phase:
        moved = replace(moved, concluded=moved.generation)
    return moved, tuple(consequences(release, moved, event))


# The controller's own events.


def _stay(release: Release, _event: Any) -> Release:
    return release


def _look(release: Release, event: events.Look) -> Release:
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
    release = moves.pause_on(release, moves.failing(evidence.findings, OnBreach.PAUSE))
    ahead = obstacle(release, evidence, cause.now)
    release = moves.hold(release, *((ahead.key, ahead.reason) if ahead and ahead.holds else ("", "")))
    if ahead or release.paused or release.frozen:
        return release
    return moves.go_on(release, evidence, cause.now, moves.summary(release, evidence))


def _tripped(release: Release, event: events.Tripped) -> Release:
    """A tripwire of another attempt says nothing about this one."""
    if (event.release, event.attempt) != (release.release, release.attempt):
        return release
    return moves.roll_back(release, event.cause, event.cause.reason, event.unix_ms)


def _relocated(release: Release, event: events.Relocated) -> Release:
    """Engines that serve elsewhere now are the same arms, with empty caches."""
    places: dict[str, Any] = {
        name: moves.relocated(endpoint, event.replicas)
        for name in ("baseline", "candidate", "previous", "control")
        if (endpoint := getattr(release, name)) is not None
    }
    moved = replace(release, **places)
    return moves.warming(moved, event.cause.now) if moved != release and release.split().warm_until else moved


# What a person says.


def _pause(release: Release, event: events.Pause) -> Release:
    return replace(release, paused=event.cause.reason or "paused", reason=event.cause.reason)


def _resume(release: Release, event: events.Resume) -> Release:
    return release if not release.paused else replace(release, paused="", reason=event.cause.reason)


def _weigh(release: Release, event: events.SetWeight) -> Release:
    if not 0 <= event.percent <= 100:  # noqa: PLR2004 - percent
        raise NotAllowed(f"{event.percent:g} is no percent; give 0..100")
    if release.frozen and event.percent > release.percent:
        raise NotAllowed(f"{release.model} is frozen ({release.frozen}); `linnet unfreeze` first, or lower the weight")
    moved = moves.share(release, event.percent, event.cause.now)
    by_hand = f"weight set by hand to {event.percent:g} %; `linnet resume` hands back to automation"
    return replace(
        moves.entered(moved, release.phase, release.plan.step_at(event.percent), event.cause.now),
        paused=by_hand,
        reason=event.cause.reason,
    )


def _promote(release: Release, event: events.Promote) -> Release:
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


def _abort(release: Release, event: events.Abort) -> Release:
    return moves.end(release, Phase.ABORTED, event.cause.reason, event.cause.now)


def _supersede(release: Release, event: events.Supersede) -> Release:
    return moves.end(release, Phase.SUPERSEDED, event.cause.reason, event.cause.now)


def _rollback(release: Release, event: events.Rollback) -> Release:
    return moves.roll_back(release, event.cause, event.cause.reason, int(event.cause.now * 1000))


def _restore(release: Release, event: events.Rollback) -> Release:
    """After promotion: the old baseline takes over again, the promoted one is the bad candidate."""
    if release.previous is None:
        raise NotAllowed(f"{release.model}: no earlier baseline is known; start a release of another candidate")
    swapped = replace(release, baseline=release.previous, candidate=release.baseline, previous=None)
    return _rollback(swapped, event)


def _retry(release: Release, event: events.Retry) -> Release:
    if not event.cause.reason:
        raise NotAllowed(f"{release.model}: a retry needs to say why; add --reason TEXT")
    return Release(
        model=release.model,
        release=release.release,
        attempt=release.attempt + 1,
        plan=release.plan.after(release.ended - release.started),
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


def _freeze(release: Release, event: events.Freeze) -> Release:
    return replace(release, frozen=event.cause.reason or "frozen")


def _unfreeze(release: Release, _event: events.Unfreeze) -> Release:
    return release if not release.frozen else replace(release, frozen="")


def _refuse(what: str, mend: str) -> Callable[[Release, Any], Release]:
    def refuse(release: Release, _event: Any) -> Release:
        raise NotAllowed(f"{release.model}: {what} is not possible in {release.phase}; {mend}")

    return refuse


Rule: TypeAlias = Callable[[Release, Any], Release]
_ALL = tuple(Phase)
_WAITING = (Phase.DRAFT, Phase.PREFLIGHT)
_START = "start a release"
_RETRY = "`linnet retry --reason TEXT` or start a release"


def _row(*cells: tuple[Iterable[Phase], Rule]) -> Mapping[Phase, Rule]:
    """One row of the table: later cells win over earlier ones, and every phase has a rule."""
    row = {phase: rule for phases, rule in cells for phase in phases}
    if len(row) != len(_ALL):
        raise ValueError(f"the table lacks {set(_ALL) - set(row)}")
    return row


TABLE: Mapping[type, Mapping[Phase, Rule]] = {
    events.Look: _row((_ALL, _stay), (ACTIVE, _look)),
    events.Tripped: _row((_ALL, _stay), (ACTIVE, _tripped)),
    events.Relocated: _row((_ALL, _relocated)),
    events.Pause: _row((_ALL, _refuse("pause", _START)), (ACTIVE, _pause)),
    events.Resume: _row((_ALL, _refuse("resume", _START)), (ACTIVE, _resume)),
    events.SetWeight: _row(
        (_ALL, _refuse("set-weight", _START)),
        (ACTIVE, _refuse("set-weight", "wait for canary: `linnet status --wait canary`")),
        ((Phase.CANARY, Phase.BAKE), _weigh),
    ),
    events.Promote: _row(
        (ENDED, _refuse("promote", _RETRY)),
        (ACTIVE, _promote),
        (_WAITING, _refuse("promote", "preflight's gates come first: `linnet explain`")),
        ((Phase.PROMOTED,), _stay),
    ),
    events.Abort: _row((_ALL, _stay), (ACTIVE, _abort)),
    events.Rollback: _row((_ALL, _stay), (ACTIVE, _rollback), ((Phase.PROMOTED,), _restore)),
    events.Retry: _row(
        (_ALL, _refuse("retry", "abort or roll back first")),
        ((Phase.ROLLED_BACK, Phase.ABORTED), _retry),
    ),
    events.Freeze: _row((_ALL, _freeze)),
    events.Unfreeze: _row((_ALL, _unfreeze)),
    events.Supersede: _row((_ALL, _stay), (ACTIVE, _supersede)),
}
