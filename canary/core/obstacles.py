"""What keeps a release from advancing: the checks of each phase, as a table; the first that objects speaks.

A *wait* passes by itself (time, samples); a *hold* needs more evidence or a person, and shows as the overlay `held`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from canary.core.events import Evidence
from canary.core.finding import Finding, OnBreach, Verdict
from canary.core.plan import PROVED_FROM
from canary.core.state import Phase, Release


@dataclass(frozen=True, slots=True)
class Obstacle:
    """`key` says which one (equal keys are the same obstacle with other numbers), `reason` what would remove it."""

    key: str
    reason: str
    holds: bool = True


Check: TypeAlias = Callable[[Release, Evidence, float], Obstacle | None]


def obstacle(release: Release, evidence: Evidence, now: float, *, waived: Iterable[str] = ()) -> Obstacle | None:
    """Return what stands in the way of the next phase or step, None if nothing does.

    `waived` names keys that a person takes on themselves ("time", "gate").
    """
    skipped = frozenset(waived)
    found = (check(release, evidence, now) for check in CHECKS.get(release.phase, ()))
    return next((one for one in found if one is not None and one.key not in skipped), None)


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


def _too_soon(release: Release, _evidence: Evidence, now: float) -> Obstacle | None:
    left = release.entered + release.min_duration - now
    return Obstacle("time", f"{left:.0f} s to go at {release.place}", holds=False) if left > 0 else None


def _few_samples(release: Release, evidence: Evidence, _now: float) -> Obstacle | None:
    if evidence.samples >= release.min_samples:
        return None
    reason = f"{evidence.samples} of {release.min_samples} samples at {release.place}"
    return Obstacle("samples", reason, holds=False)


def _few_pairs(release: Release, evidence: Evidence, _now: float) -> Obstacle | None:
    wanted = release.plan.shadow.min_pairs if release.plan.shadow else 0
    if evidence.pairs >= wanted:
        return None
    return Obstacle("pairs", f"{evidence.pairs} of {wanted} shadow pairs", holds=False)


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
    return Obstacle(f"{worst.verdict} {name}", f"{worst.verdict}: {worst.reason}")


CHECKS: Mapping[Phase, tuple[Check, ...]] = {
    Phase.DRAFT: (_window,),
    Phase.PREFLIGHT: (_missing, _window, _unready),
    Phase.SHADOW: (_window, _unready, _too_soon, _few_pairs, _failing, _unknown),
    Phase.CANARY: (_window, _unready, _too_soon, _few_samples, _failing, _unknown, _unproved, _gate),
    Phase.BAKE: (_window, _unready, _too_soon, _few_samples, _failing, _unknown, _unproved),
}
