"""What a change of a release asks for: publish, note, quarantine, count, conclude."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from canary.core import events
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
    why = {"held": release.held, "released": "what held it is gone"}.get(what, release.reason or cause.reason)
    if what in _BESIDE:
        why = cause.reason
    return events.Note(what, cause.actor, why, int(cause.now * 1000))


def _what(before: Release, after: Release, event: Event) -> str:
    """Name the change: what became of the release for the controller's events, the verb for a person's."""
    if not isinstance(event, events.Look | events.Tripped):
        return _VERBS[type(event)]
    if after.phase is not before.phase:
        return after.phase.value
    if after.percent != before.percent:
        return "step"
    if after.paused != before.paused:
        return "paused"
    return "held" if after.held else "released"


_VERBS: Mapping[type, str] = {
    events.Relocated: "relocated",
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

_BESIDE = frozenset(_VERBS[kind] for kind in (events.Relocated, events.Freeze, events.Unfreeze))
