"""What keeps a release from advancing: the checks of each phase, as a table; the first that objects speaks.

A *wait* passes by itself (time, samples); a *hold* needs more evidence or a person, and shows as the overlay `held`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

from canary.core import rehearsal
from canary.core.events import Evidence
from canary.core.finding import Finding, OnBreach, Verdict
from canary.core.plan import PROVED_FROM, AtEnd
from canary.core.state import Phase, Release

RAMP, REHEARSAL = "ramp", "rehearsal"  # obstacles that the controller itself removes


@dataclass(frozen=True, slots=True)
class Obstacle:
    """`key` says which one (equal keys are the same obstacle with other numbers), `reason` what would remove it.

    `lacking` is evidence that does not suffice; `then` what happens now because it stood for too long.
    """

    key: str
    reason: str
    holds: bool = True
    lacking: bool = False
    then: AtEnd = AtEnd.HOLD


Check: TypeAlias = Callable[[Release, Evidence, float], Obstacle | None]


def obstacle(release: Release, evidence: Evidence, now: float, *, waived: Iterable[str] = ()) -> Obstacle | None:
    """Return what stands in the way of the next phase or step, None if nothing does.

    `waived` names keys that a person takes on themselves ("time", "gate").
    """
    skipped = frozenset(waived)
    found = (check(release, evidence, now) for check in CHECKS.get(release.phase, ()))
    first = next((one for one in found if one is not None and one.key not in skipped), None)
    return None if first is None else _late(release, first, now)


def _late(release: Release, one: Obstacle, now: float) -> Obstacle:
    """What still stands when the time of its place or of the release is up holds, or ends the attempt.

    The clock never stops: neither a pause nor a freeze makes the time longer.
    """
    limits, step = release.plan.limits, release.plan.steps[release.step] if release.phase is Phase.CANARY else None
    if 0 < release.max_duration < now - release.entered:
        over = f"over the {release.max_duration:g} s at {release.place}"
        own = step and (step.on_inconclusive if one.lacking else step.on_timeout)
        then = own or (limits.on_inconclusive if one.lacking else limits.on_timeout)
    elif 0 < limits.max_duration < now - release.started:
        over, then = f"over the {limits.max_duration:g} s of the release", limits.on_timeout
    else:
        return one
    if then is AtEnd.HOLD and one.key in (RAMP, REHEARSAL):
        return one
    return replace(one, key=f"late {one.key}", reason=f"{over}: {one.reason}", holds=True, then=then)


def critical(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return the findings of guardrails whose breach rolls back."""
    return tuple(finding for finding in findings if finding.on_breach is OnBreach.ROLLBACK)


def _missing(_release: Release, evidence: Evidence, _now: float) -> Obstacle | None:
    """Gates: each report, for this candidate's digest."""
    if not evidence.missing:
        return None
    return Obstacle("gates " + "|".join(evidence.missing), "; ".join(evidence.missing))


def _window(_release: Release, evidence: Evidence, _now: float) -> Obstacle | None:
    """A freeze window of the spec is open."""
    return Obstacle(f"window {evidence.frozen}", evidence.frozen) if evidence.frozen else None


def _unready(_release: Release, evidence: Evidence, _now: float) -> Obstacle | None:
    """Neither arm may be down: the baseline must be able to take everything back."""
    if not evidence.unready:
        return None
    return Obstacle("engines " + "|".join(evidence.unready), "; ".join(evidence.unready))


def _overloaded(release: Release, evidence: Evidence, _now: float) -> Obstacle | None:
    """The baseline must be able to serve all the traffic that there is, or a rollback would be an outage."""
    if evidence.baseline_rps is None or evidence.rps is None:
        unknown = "the load test's throughput" if evidence.baseline_rps is None else "the traffic (10 s of it)"
        reason = f"not known whether the baseline can take all the traffic: {unknown} is not known"
        return Obstacle("capacity", reason) if release.plan.known_capacity else None
    if evidence.rps <= evidence.baseline_rps:
        return None
    reason = (
        f"{evidence.rps:.3g} requests/s arrive, and under load the baseline served {evidence.baseline_rps:.3g}/s: "
        "a rollback might not fit; add replicas, or `linnet loadtest SPEC` with a higher gates.load.rate"
    )
    return Obstacle("capacity", reason)


def _unrehearsed(release: Release, evidence: Evidence, now: float) -> Obstacle | None:
    """A rollback must have been seen to reach every worker in time."""
    heard, bound = evidence.heard, release.plan.max_rollback
    if rehearsal.passed(release):
        return None
    if not heard.workers:
        return Obstacle("nobody", "no live worker to rehearse a rollback with: start the gateway (linnet up)")
    if heard.generation < release.generation:
        reason = f"worker {heard.slowest} has not acknowledged generation {release.generation}: restart it"
        return Obstacle("unheard", reason, holds=now > release.entered + bound)
    if (left := rehearsal.due(release, now)) > 0:
        reason = f"{rehearsal.words(release)}: see to the workers (linnet status); tried again in {left:.0f} s"
        return Obstacle("slow rollback", reason)
    return Obstacle(REHEARSAL, "a rollback is rehearsed", holds=False)


def _ramping(release: Release, evidence: Evidence, now: float) -> Obstacle | None:
    ramp = release.ramp
    if ramp is None:
        return None
    reason = f"on the way to {ramp.to:g} %, {max(0.0, ramp.due - now):.0f} s to the next of {ramp.left} parts"
    return _unknown(release, evidence, now) or Obstacle(RAMP, reason, holds=False)


def _unproved_success(_release: Release, evidence: Evidence, _now: float) -> Obstacle | None:
    """The card's success thresholds: only what keeps its promise takes the baseline's place."""
    return Obstacle("success " + "|".join(evidence.unmet), "; ".join(evidence.unmet)) if evidence.unmet else None


def _too_soon(release: Release, _evidence: Evidence, now: float) -> Obstacle | None:
    left = release.entered + release.min_duration - now
    return Obstacle("time", f"{left:.0f} s to go at {release.place}", holds=False) if left > 0 else None


def _few_samples(release: Release, evidence: Evidence, _now: float) -> Obstacle | None:
    if evidence.samples >= release.min_samples:
        return None
    reason = f"{evidence.samples} of {release.min_samples} samples at {release.place}"
    return Obstacle("samples", reason, holds=False, lacking=True)


def _few_pairs(release: Release, evidence: Evidence, _now: float) -> Obstacle | None:
    wanted = release.plan.shadow.min_pairs if release.plan.shadow else 0
    if evidence.pairs >= wanted:
        return None
    return Obstacle("pairs", f"{evidence.pairs} of {wanted} shadow pairs", holds=False, lacking=True)


def _failing(_release: Release, evidence: Evidence, _now: float) -> Obstacle | None:
    return _named(critical(evidence.findings), (Verdict.FAIL,))


def _unknown(release: Release, evidence: Evidence, _now: float) -> Obstacle | None:
    """Evidence that cannot be trusted holds; in the shadow only the shadow's own guards have any."""
    only_shadow = release.phase is Phase.SHADOW
    chosen = (one for one in critical(evidence.findings) if one.guardrail.startswith("shadow") or not only_shadow)
    return _named(chosen, (Verdict.UNKNOWN,))


def _unproved(release: Release, evidence: Evidence, _now: float) -> Obstacle | None:
    """What follows a bake is all the traffic, so it asks for proof at any share."""
    if release.percent < PROVED_FROM and release.phase is not Phase.BAKE:
        return None
    return _named(critical(evidence.findings), (Verdict.FAIL, Verdict.UNKNOWN, Verdict.INCONCLUSIVE))


def _gate(release: Release, _evidence: Evidence, _now: float) -> Obstacle | None:
    if not release.plan.steps[release.step].manual:
        return None
    return Obstacle("gate", f"manual gate at {release.place}: say `linnet promote`")


def _named(findings: Iterable[Finding], verdicts: tuple[Verdict, ...]) -> Obstacle | None:
    """Return the worst of `findings` among `verdicts`, in their order."""
    wanted = [finding for finding in findings if finding.verdict in verdicts]
    if not wanted:
        return None
    worst = min(wanted, key=lambda finding: verdicts.index(finding.verdict))
    name = f"{worst.guardrail}{f' ({worst.slice})' if worst.slice else ''}"
    return Obstacle(f"{worst.verdict} {name}", f"{worst.verdict}: {worst.reason}", lacking=True)


_PROVED: tuple[Check, ...] = (_window, _unready, _ramping, _too_soon, _few_samples, _failing, _unknown, _unproved)
CHECKS: Mapping[Phase, tuple[Check, ...]] = {
    Phase.DRAFT: (_window,),
    Phase.PREFLIGHT: (_missing, _window, _unready, _overloaded, _unrehearsed),
    Phase.SHADOW: (_window, _unready, _too_soon, _few_pairs, _failing, _unknown),
    Phase.CANARY: (*_PROVED, _gate),
    Phase.BAKE: (*_PROVED, _unproved_success),
}
