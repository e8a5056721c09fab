"""Where a release can go: each move returns it elsewhere, and none asks whether it may (release.py does)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from canary.core import rehearsal
from canary.core.arms import Endpoint
from canary.core.events import Cause, ClockJumped, Evidence
from canary.core.finding import Finding, OnBreach, Verdict
from canary.core.plan import ramp_parts
from canary.core.state import Phase, Ramp, Release


def go_on(release: Release, evidence: Evidence, now: float, why: str) -> Release:
    """Enter the phase or step that follows."""
    match release.phase:
        case Phase.DRAFT:
            moved = entered(release, Phase.PREFLIGHT, 0, now)
        case Phase.PREFLIGHT if release.plan.shadow is not None:
            moved = entered(priced(release, evidence), Phase.SHADOW, 0, now)
            moved = moved if release.control is None else warming(moved, now)
        case Phase.PREFLIGHT:
            moved = to_step(priced(release, evidence), now)
        case Phase.SHADOW | Phase.CANARY:
            moved = to_step(release, now)
        case _:
            return to_promoted(release, now, why)
    return replace(moved, reason=f"{why}: {release.place} -> {moved.place}")


def to_step(release: Release, now: float) -> Release:
    """Enter the first step above the present share; above the last one, the bake."""
    step = release.plan.next_step(release.percent)
    if step is not None:
        there = release.plan.steps[step]
        return towards(entered(release, Phase.CANARY, step, now), there.percent, there.ramp, now)
    bake = release.plan.bake
    return towards(entered(release, Phase.BAKE, release.step, now), bake.percent, bake.ramp, now)


def to_promoted(release: Release, now: float, why: str) -> Release:
    """The candidate becomes the baseline; the old one's place is kept."""
    switched = replace(
        share(release, 100.0, now),
        baseline=release.candidate,
        previous=release.baseline,
        paused="",
        ended=now,
        reason=why,
    )
    return entered(switched, Phase.PROMOTED, release.step, now)


def roll_back(release: Release, cause: Cause, reason: str, breach_ms: int) -> Release:
    """All traffic to the baseline because the candidate is bad; `breach_ms` is when that showed."""
    return replace(end(release, Phase.ROLLED_BACK, reason, cause.now), breach_ms=breach_ms)


def end(release: Release, phase: Phase, reason: str, now: float) -> Release:
    """All traffic to the baseline, whatever the overlays say."""
    ended = replace(share(release, 0.0, now), paused="", reason=reason, ended=now)
    moment = int(now * 1000)
    return replace(entered(ended, phase, release.step, now), breach_ms=moment, decided_ms=moment)


def entered(release: Release, phase: Phase, step: int, now: float) -> Release:
    """Stand in a phase and step since `now`, nothing holding it yet."""
    return replace(release, phase=phase, step=step, entered=now, held="", held_key="", ramp=None)


def share(release: Release, percent: float, now: float) -> Release:
    """Begin a stage at another percent; the same percent is the same stage, the attempt's first share warms up."""
    if percent == release.percent:
        return release
    moved = replace(release, shares=(*release.shares, float(percent)), staged=now)
    return moved if any(release.shares) else warming(moved, now)


def towards(release: Release, percent: float, seconds: float, now: float, *, by_hand: bool = False) -> Release:
    """Move the share to a percent in equal parts over `seconds`, the first at once; 0 moves it in one."""
    parts = ramp_parts(seconds) if percent != release.percent else 1
    every = seconds / max(1, parts - 1)
    return _part(replace(release, ramp=Ramp(float(percent), parts, every, now, by_hand)), now)


def ramped(release: Release, now: float) -> Release:
    """Move the share by the ramp's next part, if it is due; the last one's arrival is when the step begins."""
    return release if release.ramp is None or now < release.ramp.due else _part(release, now)


def _part(release: Release, now: float) -> Release:
    ramp = release.ramp
    if ramp is None or ramp.left <= 1:
        to = release.percent if ramp is None else ramp.to
        return replace(share(release, to, now), ramp=None, entered=now)
    percent = release.percent + (ramp.to - release.percent) / ramp.left
    return replace(share(release, percent, now), ramp=replace(ramp, left=ramp.left - 1, due=now + ramp.every))


def warming(release: Release, now: float) -> Release:
    """Let caches fill: latency and cost of what is drawn until then are no evidence."""
    return replace(release, warm_until=now + release.plan.warm_up)


def shifted(release: Release, jump: ClockJumped) -> Release:
    """Move the attempt's times with a clock that jumped, but those that a person wrote by the new one already.

    Workers compare `warm_until` with their own clocks: caches that are full stay so, whosever clock it was.
    """

    def moved(time: float, ahead: float = 0.0) -> float:
        """Move a time that lay so many seconds ahead when it was written."""
        return time if jump.since <= time - ahead <= jump.cause.now else time + jump.by

    warm_until, ramp = moved(release.warm_until, release.plan.warm_up), release.ramp
    warm = release.warm_until <= jump.cause.now - jump.by
    return replace(
        release,
        started=moved(release.started),
        entered=moved(release.entered),
        staged=release.staged and moved(release.staged),
        warm_until=release.warm_until and (min(release.warm_until, warm_until) if warm else warm_until),
        ramp=None if ramp is None else replace(ramp, due=moved(ramp.due, ramp.every)),
        withdrawn_ms=release.withdrawn_ms and round(1000 * moved(release.withdrawn_ms / 1000)),
        jumped=release.jumped + jump.by,
    )


def hold(release: Release, key: str, reason: str) -> Release:
    """Keep the first reason of an obstacle: its numbers change with each look, the obstacle does not."""
    return release if key == release.held_key else replace(release, held=reason, held_key=key)


def pause_on(release: Release, failing: tuple[Finding, ...]) -> Release:
    """Pause on guards that have not paused before: a person who resumed has seen those."""
    new = tuple(one for one in failing if _name(one) not in release.breaches)
    if not new:
        return release
    breaches = (*release.breaches, *map(_name, new))
    return replace(release, breaches=breaches, paused=reasons(new), reason=reasons(new))


def _name(failing: Finding) -> str:
    return f"{failing.guardrail}/{failing.slice}"


def priced(release: Release, evidence: Evidence) -> Release:
    """Let workers price both arms by the load test; the control's model is the baseline's."""
    prices, control = evidence.prices, release.control
    price = prices.get("baseline", release.baseline.price)
    return replace(
        release,
        baseline=replace(release.baseline, price=price),
        candidate=replace(release.candidate, price=prices.get("candidate", release.candidate.price)),
        control=None if control is None else replace(control, price=price),
    )


def relocated(endpoint: Endpoint, replicas: Mapping[str, tuple[str, ...]]) -> Endpoint:
    """Point an arm at where its engine serves now."""
    return replace(endpoint, replicas=replicas.get(endpoint.engine, endpoint.replicas))


def failing(findings: Iterable[Finding], on_breach: OnBreach) -> tuple[Finding, ...]:
    """Return the failures that ask for `on_breach`."""
    return tuple(one for one in findings if one.verdict is Verdict.FAIL and one.on_breach is on_breach)


def reasons(findings: Iterable[Finding]) -> str:
    """Return the reasons in one line."""
    return "; ".join(one.reason for one in findings)


def summary(release: Release, evidence: Evidence) -> str:
    """Say in one line, with its numbers, what an advance rests on."""
    if release.phase is Phase.DRAFT:
        return "engines are up"
    if release.phase is Phase.PREFLIGHT:
        return f"gates passed ({', '.join(release.plan.gates) or 'none asked for'}); {rehearsal.words(release)}"
    shadow = release.phase is Phase.SHADOW
    said = [one for one in evidence.findings if one.guardrail.startswith("shadow") or not shadow]
    verdicts = (f"{verdict}: {named}" for verdict in Verdict if (named := _names(said, verdict)))
    return "; ".join((f"{evidence.pairs} pairs" if shadow else f"{evidence.samples} samples", *verdicts))


def _names(findings: Iterable[Finding], verdict: Verdict) -> str:
    named = (one for one in findings if one.verdict is verdict)
    return ", ".join(f"{one.guardrail}{f' ({one.slice})' if one.slice else ''}" for one in named)
