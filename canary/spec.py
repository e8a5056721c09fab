"""The release spec: one YAML file, the decision card and the policy together, checked to the last key.

`load` and `parse` either return a `Spec` or raise one `SpecError` with a line "FILE:LINE: what; mend" for each fault.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, Field, PrivateAttr, ValidationError

from canary.card import (
    Arms,
    ArmSpec,
    BakeSpec,
    Decision,
    Gates,
    Part,
    ShadowSpec,
    StepSpec,
    Window,
)
from canary.core.finding import OnBreach
from canary.core.plan import FLAWS, BakePlan, Money, Plan, ShadowPlan, Step
from canary.core.policy import Guard, Policy
from canary.core.signals import SIGNALS
from canary.errors import SpecError
from canary.margins import Analysis, Guardrails
from canary.source import Source, read
from canary.units import Name

__all__ = ["Spec", "SpecError", "load", "parse"]

_MIN_SAMPLES = 200  # requests an arm before a guardrail may pass, where the spec does not say
Loc = tuple[str | int, ...]


class Spec(Part):
    """A release as its owner means it."""

    model: Name
    release: Name
    decision: Decision
    arms: Arms
    gates: Gates
    shadow: ShadowSpec | None = None
    steps: Annotated[tuple[StepSpec, ...], Field(strict=False, min_length=1)]
    bake: BakeSpec = BakeSpec()
    guardrails: Guardrails
    analysis: Analysis = Analysis()
    freeze: Annotated[tuple[Window, ...], Field(strict=False)] = ()
    notify: Annotated[tuple[Any, ...], Field(strict=False)] = ()
    _where: str = PrivateAttr(default="spec")
    _text: str = PrivateAttr(default="")

    @property
    def where(self) -> str:
        """Name the file it was read from."""
        return self._where

    @property
    def text(self) -> str:
        """Return the YAML it was read from."""
        return self._text

    def resolve(self, name: str) -> Path:
        """Return a path of the spec: relative to the spec's file, `~` is the home folder."""
        return (Path(self._where).expanduser().parent / Path(name).expanduser()).resolve()

    @property
    def slices(self) -> tuple[str, ...]:
        """Return every slice named: those of the evaluation, then those of guardrails."""
        named = (slice_ for guard in self.guardrails.named().values() for slice_ in guard.slices or ())
        return tuple(dict.fromkeys((*self.decision.evaluation, *named)))

    @property
    def needed_reports(self) -> tuple[str, ...]:
        """Return the kinds of report that preflight waits for."""
        return tuple(kind for kind in ("load", "eval") if getattr(self.gates, kind) is not None)

    def policy(self) -> Policy:
        """Return what the guardrails are held to."""
        guards = (
            Guard(name, guard.margin, guard.slices or ("",), guard.on_breach, guard.weight, guard.strict)
            for name, guard in self.guardrails.named().items()
        )
        largest = max((step.min_samples for step in self.steps), default=0)
        return Policy(
            guards=tuple(guards),
            alpha=self.analysis.alpha,
            beta=self.analysis.beta,
            min_samples=self.analysis.min_samples or largest or _MIN_SAMPLES,
            min_pairs=self.shadow.min_pairs if self.shadow else 1,
            stages=len(self.steps) + 1,
            noise=self.analysis.own_noise.model_dump(),
            max_load_ratio=self.analysis.max_load_ratio,
        )

    def plan(self) -> Plan:
        """Return what the release machine follows."""
        budget, arms = self.decision.budget, self.arms
        return Plan(
            steps=tuple(
                Step(step.percent, step.min_duration, step.min_samples, step.gate == "manual") for step in self.steps
            ),
            bake=BakePlan(self.bake.duration, self.bake.percent, self.bake.min_samples),
            money=Money(
                budget=budget.usd,
                stop_loss=budget.stop_loss_usd,
                spent_before=budget.spent_before_usd,
                baseline_per_hour=arms.baseline.usd_per_hour,
                candidate_per_hour=arms.candidate.usd_per_hour,
            ),
            shadow=self._shadow_plan(),
            gates=self.needed_reports,
            slices=self.slices,
            warm_up=self.analysis.warm_up,
            examined=tuple(flaw for flaw in FLAWS if flaw in self.guardrails.named()),
        )

    def _shadow_plan(self) -> ShadowPlan | None:
        shadow = self.shadow
        if shadow is None:
            return None
        return ShadowPlan(shadow.percent, shadow.min_pairs, shadow.max_concurrency, shadow.min_duration)

    def frozen_at(self, now: float) -> str:
        """Return why a freeze window holds at `now` (Unix seconds), "" if none does."""
        moment = datetime.fromtimestamp(now, UTC)
        found = (window for window in self.freeze if window.open_at(moment))
        return next((f"frozen until {window.end.isoformat()}: {window.reason}" for window in found), "")


def load(path: Path) -> Spec:
    """Read and check a spec file. Raises SpecError."""
    path = Path(path).expanduser()
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        what = getattr(error, "strerror", None) or "not UTF-8 text"
        raise SpecError([f"{path}:1: cannot be read ({what}); give the path of a release spec"]) from None
    return parse(text, str(path))


def parse(text: str, where: str = "spec") -> Spec:
    """Check a spec's text; `where` names its file. Raises SpecError with every fault found."""
    source = read(text)
    if not source.faults and not isinstance(source.value, dict):
        source.faults.append((1, "no mapping; a spec starts with `model: NAME`"))
    spec = None if source.faults else _validated(source)
    if spec is not None:
        source.faults.extend((source.line(loc), what) for loc, what in _contradictions(spec))
    if spec is None or source.faults:
        raise SpecError(f"{where}:{line}: {what}" for line, what in sorted(set(source.faults)))
    spec._where, spec._text = str(where), text  # noqa: SLF001 - our own class, built here
    return spec


def _validated(source: Source) -> Spec | None:
    try:
        return Spec.model_validate(source.value)
    except ValidationError as error:
        faults = error.errors(include_url=False)
        misspelt = {(*fault["loc"][:-1], _near(fault["loc"])) for fault in faults if fault["type"] == "extra_forbidden"}
        told = (fault for fault in faults if fault["type"] != "missing" or fault["loc"] not in misspelt)
        source.faults.extend((source.line(fault["loc"]), _say(fault)) for fault in told)
        return None


def _say(fault: Mapping[str, Any]) -> str:
    """Turn one of pydantic's faults into what and mend."""
    loc: Loc = fault["loc"]
    name = ".".join(str(part) for part in loc)
    if fault["type"] == "extra_forbidden":
        return _unknown_key(loc, name)
    if fault["type"] == "missing":
        return f"{name} is missing; add it"
    message = str(fault["msg"]).removeprefix("Value error, ")
    if "; " in message:
        return f"{name}: {message}"
    return f"{name}: {message}, not {_short(fault.get('input'))}; change it"


def _unknown_key(loc: Loc, name: str) -> str:
    near = _near(loc)
    mend = f"did you mean {near}?" if near else f"take it out, or use one of {', '.join(_keys_at(loc[:-1]))}"
    return f"{name} is unknown; {mend}"


def _near(loc: Loc) -> str:
    """Return the known key that an unknown one looks like, "" if none."""
    return next(iter(get_close_matches(str(loc[-1]), _keys_at(loc[:-1]), n=1, cutoff=0.6)), "")


def _keys_at(loc: Loc) -> list[str]:
    """Return the keys that the spec knows at a path."""
    kind: Any = Spec
    for part in loc:
        model = _model_of(kind)
        if model is not None and isinstance(part, str):
            kind = next((one.annotation for key, one in model.model_fields.items() if part in (key, one.alias)), None)
        else:
            kind = next(iter(arg for arg in get_args(kind) if _model_of(arg) is not None), kind)
    model = _model_of(kind)
    return [] if model is None else [field.alias or key for key, field in model.model_fields.items()]


def _model_of(kind: Any) -> type[BaseModel] | None:
    """Return the model behind an annotation: itself, or the one that may also be None."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return kind
    if get_origin(kind) is UnionType or isinstance(kind, UnionType):
        return next((found for arg in get_args(kind) if (found := _model_of(arg)) is not None), None)
    return None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."  # noqa: PLR2004 - a glance


# Contradictions: what each part alone cannot know.


def _contradictions(spec: Spec) -> Iterator[tuple[Loc, str]]:
    yield from _step_faults(spec.steps, spec.bake)
    yield from _guard_faults(spec)
    yield from _money_faults(spec)
    if spec.arms.baseline.engine == spec.arms.candidate.engine:
        loc = ("arms", "candidate", "engine")
        yield loc, f"both arms are engine {spec.arms.candidate.engine}; name the candidate's own engine"
    yield from _control_faults(spec.arms)
    for index, window in enumerate(spec.freeze):
        if window.end <= window.start:
            yield ("freeze", index, "to"), "the window ends before it begins; swap from and to"
    if spec.notify:
        yield ("notify",), "notifications are not served by this version; take notify out"


def _step_faults(steps: Sequence[StepSpec], bake: BakeSpec) -> Iterator[tuple[Loc, str]]:
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


def _control_faults(arms: Arms) -> Iterator[tuple[Loc, str]]:
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


def _guard_faults(spec: Spec) -> Iterator[tuple[Loc, str]]:
    named = spec.guardrails.named()
    if not any(guard.on_breach is OnBreach.ROLLBACK for guard in named.values()):
        yield ("guardrails",), "no guardrail rolls back; add one, such as error_rate: {max_increase: 0.5pp}"
    if "shadow_quality" in named and spec.shadow is None:
        yield ("guardrails", "shadow_quality"), "shadow_quality needs shadow pairs; add shadow, or take it out"
    for name, guard in named.items():
        if guard.on_breach is OnBreach.ROLLBACK and guard.weight is None and not SIGNALS[name].weight:
            loc = ("guardrails", name, "on_breach")
            yield loc, f"{name} is advice and cannot roll back without a weight; add weight: 0.05, or on_breach: warn"


def _money_faults(spec: Spec) -> Iterator[tuple[Loc, str]]:
    budget, at = spec.decision.budget, ("decision", "budget", "stop_loss_usd")
    if budget.stop_loss_usd < budget.usd:
        yield at, f"the stop loss {budget.stop_loss_usd:g} is below the budget {budget.usd:g}; raise it"
    if budget.stop_loss_usd <= budget.spent_before_usd:
        yield at, f"{budget.spent_before_usd:g} USD were spent before; the release would end at once; raise it"
