"""What an effect of the release machine means for the store: one handler each, folded into one change.

A change is written whole or not at all, so a controller that dies between two effects has done both or neither.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from canary.core import events
from canary.core.events import Effect, Event, Evidence
from canary.core.state import Release
from canary.storage.records import Change


def change_of(
    text: str,
    before: Release | None,
    after: Release,
    effects: Iterable[Effect],
    *,
    evidence: Mapping[str, Any] | None = None,
) -> Change:
    """Return the change from the state that reads `text` to `after`; `evidence` goes into the audit as it is."""
    change = Change(model=after.model, before=text, after=after.to_json(), audit=_places(before, after, evidence))
    for effect in effects:
        change = HANDLERS[type(effect)](change, effect)
    return change


def brief(event: Event, found: Evidence | None) -> Mapping[str, Any]:
    """Return what an event rests on: what was found, else what it tells itself."""
    match event:
        case events.Tripped():
            return {"tripped_ms": event.unix_ms}
        case events.Relocated():
            return {"replicas": dict(event.replicas)}
        case events.ClockJumped():
            return {"jumped_s": event.by}
    return {} if found is None else found.to_dict()


def _places(before: Release | None, after: Release, evidence: Mapping[str, Any] | None) -> dict[str, str]:
    return {
        "model": after.model,
        "release": after.release,
        "attempt": str(after.attempt),
        "generation": str(after.generation),
        "before": "" if before is None else before.place,
        "after": after.place,
        "changed": _dumps(_changed(before, after)),
        "evidence": _dumps(evidence or {}),
    }


def _changed(before: Release | None, after: Release) -> dict[str, Any]:
    """Return what became another, overlays and arms included: name -> before and after."""
    old, new = {} if before is None else _facts(before), _facts(after)
    return {name: [old.get(name), value] for name, value in new.items() if old.get(name) != value}


def _facts(release: Release) -> dict[str, Any]:
    return {
        "phase": release.phase.value,
        "percent": release.percent,
        "step": release.step,
        "attempt": release.attempt,
        "generation": release.generation,
        "paused": release.paused,
        "held": release.held,
        "frozen": release.frozen,
        "baseline": release.baseline.engine,
        "candidate": release.candidate.engine,
    }


def _dumps(value: Mapping[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"))


def _publish(change: Change, effect: events.Publish) -> Change:
    return replace(change, split=effect.split.to_json())


def _note(change: Change, effect: events.Note) -> Change:
    said = {"who": effect.actor, "what": effect.what, "why": effect.why, "unix_ms": str(effect.unix_ms)}
    return replace(change, audit={**change.audit, **said})


def _quarantine(change: Change, effect: events.Quarantine) -> Change:
    return replace(change, quarantine={**change.quarantine, effect.digest: effect.reason})


def _absolve(change: Change, effect: events.Absolve) -> Change:
    return replace(change, absolve=(*change.absolve, effect.digest))


def _count(change: Change, effect: events.Count) -> Change:
    return replace(change, attempt={**change.attempt, effect.release: effect.attempt})


def _conclude(change: Change, effect: events.Conclude) -> Change:
    return replace(change, result=effect.result)


HANDLERS: Mapping[type, Callable[[Change, Any], Change]] = {
    events.Publish: _publish,
    events.Note: _note,
    events.Quarantine: _quarantine,
    events.Absolve: _absolve,
    events.Count: _count,
    events.Conclude: _conclude,
}
