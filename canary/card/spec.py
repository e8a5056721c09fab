"""The release spec: one YAML file, the decision card and the policy together, checked to the last key.

`load` and `parse` either return a `Spec` or raise one `SpecError` with a line "FILE:LINE: what; mend" for each fault.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, Field, PrivateAttr, ValidationError

from canary.card.contradictions import contradictions
from canary.card.margins import Analysis, Guardrails
from canary.card.parts import (
    Arms,
    BakeSpec,
    Decision,
    End,
    Gates,
    Limit,
    Part,
    PreflightSpec,
    ShadowSpec,
    StepSpec,
    Window,
)
from canary.card.source import Source, read
from canary.card.units import Name
from canary.core.plan import FLAWS, AtEnd, BakePlan, Limits, Money, Plan, ShadowPlan, Step, ramp_parts
from canary.core.policy import Guard, Policy
from canary.errors import SpecError
from canary.notify.target import NotifySpec

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
    preflight: PreflightSpec = PreflightSpec()
    shadow: ShadowSpec | None = None
    steps: Annotated[tuple[StepSpec, ...], Field(strict=False, min_length=1)]
    bake: BakeSpec = BakeSpec()
    max_duration: Limit = None
    on_timeout: End = AtEnd.HOLD
    on_inconclusive: End = AtEnd.HOLD
    guardrails: Guardrails
    analysis: Analysis = Analysis()
    freeze: Annotated[tuple[Window, ...], Field(strict=False)] = ()
    notify: Annotated[tuple[NotifySpec, ...], Field(strict=False, max_length=8)] = ()
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
            stages=sum(map(ramp_parts, (*(step.ramp for step in self.steps), self.bake.ramp))),
            noise=self.analysis.own_noise.model_dump(),
            max_load_ratio=self.analysis.max_load_ratio,
        )

    def plan(self) -> Plan:
        """Return what the release machine follows."""
        return Plan(
            steps=tuple(map(_step, self.steps)),
            bake=self._bake_plan(),
            money=self._money(),
            shadow=self._shadow_plan(),
            gates=self.needed_reports,
            slices=self.slices,
            warm_up=self.analysis.warm_up,
            examined=tuple(flaw for flaw in FLAWS if flaw in self.guardrails.named()),
            limits=Limits(self.max_duration or 0.0, self.on_timeout, self.on_inconclusive),
            max_rollback=self.preflight.max_rollback,
            known_capacity=self.preflight.known_capacity,
        )

    def _money(self) -> Money:
        budget, arms = self.decision.budget, self.arms
        return Money(
            budget=budget.usd,
            stop_loss=budget.stop_loss_usd,
            spent_before=budget.spent_before_usd,
            baseline_per_hour=arms.baseline.usd_per_hour,
            candidate_per_hour=arms.candidate.usd_per_hour,
            control_per_hour=arms.control.usd_per_hour if arms.control else 0.0,
            baseline_rates=arms.baseline.rates or (0.0, 0.0),
            candidate_rates=arms.candidate.rates or (0.0, 0.0),
        )

    def _bake_plan(self) -> BakePlan:
        bake = self.bake
        return BakePlan(bake.duration, bake.percent, bake.min_samples, bake.max_duration or 0.0, bake.ramp)

    def _shadow_plan(self) -> ShadowPlan | None:
        shadow = self.shadow
        if shadow is None:
            return None
        return ShadowPlan(
            shadow.percent, shadow.min_pairs, shadow.max_concurrency, shadow.min_duration, shadow.max_duration or 0.0
        )

    def frozen_at(self, now: float) -> str:
        """Return why a freeze window holds at `now` (Unix seconds), "" if none does."""
        moment = datetime.fromtimestamp(now, UTC)
        found = (window for window in self.freeze if window.open_at(moment))
        return next((f"frozen until {window.end.isoformat()}: {window.reason}" for window in found), "")


def _step(step: StepSpec) -> Step:
    return Step(
        percent=step.percent,
        min_duration=step.min_duration,
        min_samples=step.min_samples,
        manual=step.gate == "manual",
        max_duration=step.max_duration or 0.0,
        on_timeout=step.on_timeout,
        on_inconclusive=step.on_inconclusive,
        ramp=step.ramp,
    )


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
        source.faults.extend((source.line(loc), what) for loc, what in contradictions(spec))
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
