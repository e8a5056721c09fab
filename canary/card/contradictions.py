"""Contradictions of a release spec: what each part alone cannot know."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

from canary.card.parts import METRIC, Arms, ArmSpec, BakeSpec, Decision, StepSpec
from canary.core.finding import OnBreach
from canary.core.plan import AtEnd
from canary.core.signals import SIGNALS

if TYPE_CHECKING:
    from canary.card.spec import Spec

Loc: TypeAlias = tuple[str | int, ...]
Fault: TypeAlias = tuple[Loc, str]


def contradictions(spec: Spec) -> Iterator[Fault]:
    """Yield every contradiction: its place in the spec, what and mend."""
    yield from _step_faults(spec.steps, spec.bake)
    yield from _time_faults(spec)
    yield from _success_faults(spec.decision)
    yield from _guard_faults(spec)
    yield from _money_faults(spec)
    if spec.arms.baseline.engine == spec.arms.candidate.engine:
        loc = ("arms", "candidate", "engine")
        yield loc, f"both arms are engine {spec.arms.candidate.engine}; name the candidate's own engine"
    yield from _control_faults(spec.arms)
    for index, window in enumerate(spec.freeze):
        if window.end <= window.start:
            yield ("freeze", index, "to"), "the window ends before it begins; swap from and to"


def _step_faults(steps: Sequence[StepSpec], bake: BakeSpec) -> Iterator[Fault]:
    for index in range(1, len(steps)):
        if steps[index].percent <= steps[index - 1].percent:
            yield (
                ("steps", index, "percent"),
                f"{steps[index].percent:g} % does not grow after {steps[index - 1].percent:g} %; order the steps",
            )
    if steps[-1].percent > bake.percent:
        yield (
            ("steps", len(steps) - 1, "percent"),
            f"{steps[-1].percent:g} % is more than the bake's {bake.percent:g} %; lower it or raise bake.percent",
        )


def _time_faults(spec: Spec) -> Iterator[Fault]:
    stays: list[tuple[Loc, float, float, float | None]] = [
        (("steps", index), step.min_duration, step.ramp, step.max_duration) for index, step in enumerate(spec.steps)
    ]
    stays.append((("bake",), spec.bake.duration, spec.bake.ramp, spec.bake.max_duration))
    if spec.shadow is not None:
        stays.append((("shadow",), spec.shadow.min_duration, 0.0, spec.shadow.max_duration))
    for loc, least, ramp, most in stays:
        if most is not None and most <= max(least, ramp):
            what = f"{most:g} s at most, and {max(least, ramp):g} s at least; raise max_duration"
            yield (*loc, "max_duration"), what
    limited = [most for *_, most in stays if most is not None]
    if spec.on_inconclusive is not AtEnd.HOLD and not limited:
        yield ("on_inconclusive",), "no place has a time; add max_duration to a step, the shadow or the bake"
    if spec.on_timeout is not AtEnd.HOLD and not limited and spec.max_duration is None:
        yield ("on_timeout",), "nothing has a time; add max_duration, to the release or to a step"
    for index, step in enumerate(spec.steps):
        for name in ("on_timeout", "on_inconclusive"):
            if getattr(step, name) is not None and step.max_duration is None:
                yield ("steps", index, name), "the step has no time; add max_duration to it"


def _success_faults(decision: Decision) -> Iterator[Fault]:
    """A threshold that nothing measures could never be met."""
    known = [f"{name}{METRIC}" for name in decision.evaluation]
    for metric in decision.success:
        if metric not in known:
            yield ("decision", "success", metric), f"nothing measures {metric}; write one of {', '.join(known)}"


def _control_faults(arms: Arms) -> Iterator[Fault]:
    control, loc = arms.control, ("arms", "control")
    if control is None:
        return
    if control.engine is None and not control.replicas:
        yield loc, "the control is nowhere; give it an engine, or replicas"
    for name in ("baseline", "candidate"):
        arm: ArmSpec = getattr(arms, name)
        if arm.engine == control.engine:
            yield (*loc, "engine"), f"the control is the {name}'s engine {arm.engine}; give it one of its own"
        if shared := set(arm.replicas) & set(control.replicas):
            yield (*loc, "replicas"), f"{min(shared)} serves the {name} too; give the control replicas of its own"


def _guard_faults(spec: Spec) -> Iterator[Fault]:
    named = spec.guardrails.named()
    if not any(guard.on_breach is OnBreach.ROLLBACK for guard in named.values()):
        yield ("guardrails",), "no guardrail rolls back; add one, such as error_rate: {max_increase: 0.5pp}"
    if "shadow_quality" in named and spec.shadow is None:
        yield ("guardrails", "shadow_quality"), "shadow_quality needs shadow pairs; add shadow, or take it out"
    for name, guard in named.items():
        if guard.on_breach is OnBreach.ROLLBACK and guard.weight is None and not SIGNALS[name].weight:
            loc = ("guardrails", name, "on_breach")
            yield loc, f"{name} is advice and cannot roll back without a weight; add weight: 0.05, or on_breach: warn"


def _money_faults(spec: Spec) -> Iterator[Fault]:
    for name in ("baseline", "candidate"):
        arm: ArmSpec = getattr(spec.arms, name)
        if arm.usd_per_hour and arm.rates is not None:
            loc = ("arms", name, "usd_per_million_tokens")
            yield loc, f"the {name} would be paid twice, by the hour and by the token; take one of the two out"
    budget, at = spec.decision.budget, ("decision", "budget", "stop_loss_usd")
    if budget.stop_loss_usd < budget.usd:
        yield at, f"the stop loss {budget.stop_loss_usd:g} is below the budget {budget.usd:g}; raise it"
    if budget.stop_loss_usd <= budget.spent_before_usd:
        yield at, f"{budget.spent_before_usd:g} USD were spent before; the release would end at once; raise it"
