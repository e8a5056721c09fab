"""The release machine as a diagram, drawn from its table: `python -m canary.diagram` prints it for docs/release.md.

Nothing is listed here twice: each event is told to a release in each phase, and what becomes of it is an arrow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final, TypeAlias

from canary.core import events
from canary.core.arms import Endpoint
from canary.core.events import Cause, Event, Evidence
from canary.core.finding import Finding, Verdict
from canary.core.plan import BakePlan, Money, Plan, ShadowPlan, Step
from canary.core.release import TABLE, NotAllowed, Opening, advance, begin
from canary.core.state import ACTIVE, Phase, Release

Arrow: TypeAlias = tuple[str, str]

_WHO: Final = Cause("", "", 0.0)
_OVER: Final = Finding("error_rate", "", Verdict.FAIL, "")
_SAID: Final = replace(_WHO, reason="because")
_TOLD: Final[Mapping[str, Event]] = {
    "evidence": events.Look(_WHO, Evidence()),
    "guardrail": events.Look(_WHO, Evidence(findings=(_OVER,))),
    "stop loss": events.Look(_WHO, Evidence(spend_usd=1.0)),
    "tripwire": events.Tripped(_WHO, "release", 1, 0),
    "promote": events.Promote(_SAID, Evidence()),
    "promote --skip-analysis": events.Promote(_SAID, skip_analysis=True),
    "abort": events.Abort(_SAID),
    "rollback": events.Rollback(_SAID),
    "retry": events.Retry(_SAID),
    "start --supersede": events.Supersede(_SAID),
    "set-weight": events.SetWeight(_SAID, 7.0),
    "pause": events.Pause(_SAID),
    "resume": events.Resume(_SAID),
    "freeze": events.Freeze(_SAID),
    "unfreeze": events.Unfreeze(_SAID),
    "relocated": events.Relocated(_WHO, {}),
    "clock jumped": events.ClockJumped(_WHO, 3600.0, 0.0),
}


def arrows() -> dict[Arrow, list[str]]:
    """Return what leads from phase to phase, or to another share within one, as the table has it."""
    if missing := set(TABLE) - {type(event) for event in _TOLD.values()}:
        raise ValueError(f"the diagram does not tell {missing}")
    found: dict[Arrow, list[str]] = {}
    for release in _releases():
        for label, event in _TOLD.items():
            after = _after(release, event)
            if (after.phase, after.percent) != (release.phase, release.percent):
                told = found.setdefault((release.phase.value, after.phase.value), [])
                told += [] if label in told else [label]
    return found


def mermaid() -> str:
    """Return the diagram; what every active phase has in common is drawn once."""
    found = arrows()
    line = {phase.value for phase in ACTIVE}
    ends = [end for end in Phase if all(found.get((phase, end.value)) for phase in line)]
    shared = {
        end.value: [one for one in found[ACTIVE[0].value, end.value] if _common(found, end.value, one)] for end in ends
    }
    inner: list[str] = []
    outer: list[str] = []
    for (source, target), labels in found.items():
        left = [one for one in labels if source not in line or one not in shared.get(target, ())]
        if left:
            (inner if {source, target} <= line else outer).append(f"{source} --> {target}: {', '.join(left)}")
    outer = [f"active --> {end}: {', '.join(labels)}" for end, labels in shared.items()] + outer
    return "\n".join(
        (
            "stateDiagram-v2",
            f"    [*] --> {Phase.DRAFT}: start",
            "    state active {",
            *(f"        {one}" for one in inner),
            "    }",
            *(f"    {one}" for one in outer),
        )
    )


def _common(found: Mapping[Arrow, list[str]], end: str, label: str) -> bool:
    return all(label in found[phase.value, end] for phase in ACTIVE)


def _after(release: Release, event: Event) -> Release:
    try:
        return advance(release, event)[0]
    except NotAllowed:
        return release


def _releases() -> Iterator[Release]:
    """Yield a release in each phase, in the canary at its first step and at its last; and one without a shadow."""
    plan = Plan((Step(5), Step(50)), BakePlan(0.0), Money(0, 0), ShadowPlan(20, 0, 1))
    base, new = Endpoint("base", "base", ("http://a",)), Endpoint("new", "new", ("http://b",))
    draft, _ = begin(None, Opening("model", "release", 1, plan, "", base, new), _WHO)
    ready = replace(draft, withdrawn_ms=1, rehearsal_ms=1, previous=base)
    shares = {Phase.BAKE: 95.0, Phase.PROMOTED: 100.0}
    for phase in Phase:
        for percent in (5.0, 50.0) if phase is Phase.CANARY else (shares.get(phase, 0.0),):
            yield replace(ready, phase=phase, shares=(percent,), step=ready.plan.step_at(percent))
    yield replace(ready, phase=Phase.PREFLIGHT, plan=replace(plan, shadow=None))


if __name__ == "__main__":
    print(mermaid())  # noqa: T201 - its purpose
