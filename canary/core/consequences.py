"""What a change of a release asks for: publish, note, quarantine, count, conclude."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from canary.core import events, rehearsal
from canary.core.events import Cause, Effect, Event
from canary.core.state import ENDED, Phase, Release


def consequences(before: Release, after: Release, event: Event) -> Iterator[Effect]:
    """Yield what the difference between before and after asks for, so that no rule can forget it."""
    if after.generation != before.generation:
        yield events.Publish(after.split())
    if after.attempt != before.attempt:
        yield events.Count(after.release, after.attempt)
        yield events.Absolve(after.candidate.digest)
    if after.phase is not before.phase and after.phase is Phase.ROLLED_BACK:
        yield events.Quarantine(after.candidate.digest, after.reason)
    if after.phase is not before.phase and after.phase in (Phase.PROMOTED, *ENDED):
        yield events.Conclude(after.phase.value)
    yield note(_what(before, after, event), after, event.cause)


def note(what: str, release: Release, cause: Cause) -> events.Note:
    """Return the audit's line; what lies beside a release's own way (its place, a freeze) has a reason of its own."""
    own = _OWN.get(what)
    why = own(release, cause) if own else release.reason or cause.reason
    return events.Note(what, cause.actor, why, int(cause.now * 1000))


def _what(before: Release, after: Release, event: Event) -> str:
    """Name the change: what became of the release for the controller's events, the verb for a person's."""
    if not isinstance(event, events.Look | events.Tripped):
        return _VERBS[type(event)]
    if after.phase is not before.phase:
        return after.phase.value
    if after.rehearsing != before.rehearsing:
        return "rehearsing" if after.rehearsing else "rehearsed"
    if after.percent != before.percent:
        return "ramp" if before.ramp else "step"
    if after.paused != before.paused:
        return "paused"
    return "held" if after.held else "released"


_VERBS: Mapping[type, str] = {
    events.Relocated: "relocated",
    events.ClockJumped: "clock-jumped",
    events.Pause: "pause",
    events.Resume: "resume",
    events.SetWeight: "set-weight",
    events.Promote: "promote",
    events.Abort: "abort",
    events.Rollback: "rollback",
    events.Retry: "retry",
    events.Freeze: "freeze",
    events.Unfreeze: "unfreeze",
    events.Supersede: "supersede",
}

_ASIDE = (events.Relocated, events.ClockJumped, events.Freeze, events.Unfreeze)

_OWN: Mapping[str, Callable[[Release, Cause], str]] = {
    "held": lambda release, _: release.held,
    "released": lambda *_: "what held it is gone",
    "rehearsing": lambda *_: "the candidate is withdrawn, to see how soon every worker follows",
    "rehearsed": lambda release, _: rehearsal.words(release),
    "ramp": lambda release, _: f"on the way to {release.ramp.to:g} %" if release.ramp else "arrived",
    **{_VERBS[kind]: lambda _, cause: cause.reason for kind in _ASIDE},
}
