"""The release machine: one table, from (event, phase) to the rule that says what follows.

Laws (tests/canary/core/test_release.py holds each as a property):

1. Once rolled back, aborted or superseded, the candidate's share is 0 and never rises again in that attempt.
2. Abort always wins and is idempotent: in every active phase it ends the attempt, elsewhere it changes nothing.
3. Neither frozen nor paused blocks a rollback, an abort, or a share that shrinks.
4. Nothing advances by itself without evidence: its time, its samples, and findings (obstacles.py). A shadow needs its
   pairs; up to 25 % no critical guard may fail, from there on all must pass; what is unknown holds, with its reason.
   Within a ramp the share grows while nothing fails and nothing is unknown; promotion needs the card's success.
5. A share set by hand pauses automation, and the overlay says so. Automation never undoes a person's hold.
6. The stage grows by one whenever the percent changes; the generation whenever what workers route by changes.
7. A rollback after promotion gives the old baseline its place back, in one step.
8. A rolled-back digest is quarantined; only `retry`, with a reason, lets it try again.
9. The candidate's share of traffic is above 0 only in `canary` and `bake`, and only after a rollback was rehearsed, in
   this attempt and in time.
10. A jump of the controller's clock serves no time and takes none: a look after it decides as one before it did.

`advance` is pure: time comes with the event's cause. What is to be done follows from the difference between before and
after (consequences.py), so no rule can forget to publish, to note, or to quarantine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from canary.core import events, rules
from canary.core.arms import Endpoint
from canary.core.consequences import consequences, note
from canary.core.events import Cause, Effect, Event
from canary.core.plan import Plan
from canary.core.rules import NotAllowed
from canary.core.state import ACTIVE, ENDED, Phase, Release

__all__ = ["TABLE", "NotAllowed", "Opening", "Phase", "Release", "advance", "begin"]


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
    events.Look: _row((_ALL, rules.stay), (ACTIVE, rules.look)),
    events.Tripped: _row((_ALL, rules.stay), (ACTIVE, rules.tripped)),
    events.Relocated: _row((_ALL, rules.relocated)),
    events.ClockJumped: _row((_ALL, rules.stay), (ACTIVE, rules.clock_jumped)),
    events.Pause: _row((_ALL, rules.refuse("pause", _START)), (ACTIVE, rules.pause)),
    events.Resume: _row((_ALL, rules.refuse("resume", _START)), (ACTIVE, rules.resume)),
    events.SetWeight: _row(
        (_ALL, rules.refuse("set-weight", _START)),
        (ACTIVE, rules.refuse("set-weight", "wait for canary: `linnet status --wait canary`")),
        ((Phase.CANARY, Phase.BAKE), rules.weigh),
    ),
    events.Promote: _row(
        (ENDED, rules.refuse("promote", _RETRY)),
        (ACTIVE, rules.promote),
        (_WAITING, rules.refuse("promote", "preflight's gates come first: `linnet explain`")),
        ((Phase.PROMOTED,), rules.stay),
    ),
    events.Abort: _row((_ALL, rules.stay), (ACTIVE, rules.abort)),
    events.Rollback: _row((_ALL, rules.stay), (ACTIVE, rules.rollback), ((Phase.PROMOTED,), rules.restore)),
    events.Retry: _row(
        (_ALL, rules.refuse("retry", "abort or roll back first")),
        ((Phase.ROLLED_BACK, Phase.ABORTED), rules.retry),
    ),
    events.Freeze: _row((_ALL, rules.freeze)),
    events.Unfreeze: _row((_ALL, rules.unfreeze)),
    events.Supersede: _row((_ALL, rules.stay), (ACTIVE, rules.supersede)),
}
