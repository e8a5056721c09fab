"""The comparison report: the deliverable of an adaptation, built from what the store recorded and nothing else.

Pure. `build` reads the raw material (`GET /admin/v1/models/{model}/report`) and the decision card, and returns the
facts; `canary.report.pages` sets them. A figure that was not measured is None, is shown as missing, and is listed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from canary.console import figures

JSON = Mapping[str, Any]
ARMS = ("baseline", "candidate")


class Advice(StrEnum):
    """What the report recommends."""

    KEEP = "keep the candidate"
    REJECT = "reject the candidate"
    WAIT = "decide later: the evidence is not complete"
    NONE = "no judgement: a person ended the attempt"


@dataclass(frozen=True, slots=True)
class Threshold:
    """One demand of the decision card or a gate; `met` is None when nothing was measured."""

    name: str
    wanted: str
    found: str
    met: bool | None
    source: str


@dataclass(frozen=True, slots=True)
class Moment:
    """One change of the release; `percent` is the candidate's share of traffic after it, None if not known."""

    unix_ms: float
    who: str
    what: str
    why: str
    phase: str
    percent: float | None
    generation: int | None


@dataclass(frozen=True, slots=True)
class Rollback:
    """How the release was taken back: milliseconds from the breach to the decision and to the last worker's word."""

    reason: str
    who: str
    breach_ms: float | None
    decision_ms: float | None
    acknowledged_ms: float | None
    workers: int


@dataclass(frozen=True, slots=True)
class Budget:
    """The card's ledger in USD; `parts` is what was spent in the attempt, by name."""

    before: float | None
    spent: float | None
    budget: float | None
    stop_loss: float | None
    parts: Mapping[str, float] = field(default_factory=dict)

    @property
    def total(self) -> float | None:
        """Spent before the release and in it."""
        return None if self.spent is None else (self.before or 0.0) + self.spent


@dataclass(frozen=True, slots=True)
class Count:
    """Requests of one arm at one stage, as the gateways summed them."""

    stage: int
    arm: str
    assigned: float
    done: float
    failed: float
    tokens: float


@dataclass(frozen=True, slots=True)
class Mirrored:
    """What the shadow saw of one slice: pairs, and how far answers agreed, 0..1 (mean; None without any).

    `floor` is the baseline asked twice: what agreement looks like when nothing changed.
    """

    slice: str
    pairs: int
    agreement: float | None
    compared: int
    floor: float | None
    repeated: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything the report says."""

    model: str
    release: str
    attempt: int | None
    generation: int | None
    phase: str
    made_ms: float
    advice: Advice
    reasons: tuple[str, ...]
    thresholds: tuple[Threshold, ...]
    guards: tuple[JSON, ...]
    load: JSON | None
    evaluation: JSON | None
    timeline: tuple[Moment, ...]
    rollback: Rollback | None
    budget: Budget
    counts: tuple[Count, ...]
    shadow: tuple[Mirrored, ...]
    digests: Mapping[str, str]
    card: JSON
    sources: tuple[tuple[str, str], ...]
    missing: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The fields of `linnet report --json`: recommendation, reasons, thresholds, guards, and all the rest."""
        value = asdict(self)
        return {"recommendation": str(value.pop("advice")), **value}


def thresholds(card: JSON, load: JSON | None, evaluation: JSON | None) -> tuple[Threshold, ...]:
    """Set what the card and the gates demand beside what was measured."""
    return (*_success(card, evaluation), *_general(evaluation), _load(load))


def _success(card: JSON, evaluation: JSON | None) -> Iterable[Threshold]:
    for metric, rule in (card.get("success") or {}).items():
        wanted = (rule or {}).get("min_gain")
        result = _slice(evaluation, metric.removesuffix("_accuracy"))
        met = None if result is None or wanted is None else result["difference"] >= wanted and result["low"] > 0
        yield Threshold(
            metric, f"gain of at least {figures.points(wanted)}, proved above 0", _gain(result), met, "evaluation"
        )


def _general(evaluation: JSON | None) -> Iterable[Threshold]:
    allowed = ((evaluation or {}).get("thresholds") or {}).get("max_general_loss")
    if allowed is None:
        return
    result = _slice(evaluation, "general")
    met = None if result is None else result["low"] >= -allowed
    yield Threshold(
        "general_accuracy", f"loss of at most {figures.points(allowed)}, proved", _gain(result), met, "evaluation"
    )


def _load(load: JSON | None) -> Threshold:
    verdict = (load or {}).get("verdict")
    met = {"pass": True, "fail": False}.get(str(verdict))
    found = MISSING_LOAD if load is None else "; ".join(load.get("reasons") or []) or f"verdict {verdict}"
    return Threshold("load_gate", "latency and cost within the gate's limits", found, met, "load test")


MISSING_LOAD = "not measured"


def _slice(evaluation: JSON | None, name: str) -> JSON | None:
    found: JSON | None = ((evaluation or {}).get("slices") or {}).get(name)
    return found


def _gain(result: JSON | None) -> str:
    if result is None:
        return "not measured"
    low, high = figures.points(result["low"]), figures.points(result["high"])
    return f"{figures.points(result['difference'])} (95 % {low} to {high})"


ENDED: Mapping[str, tuple[Advice, str]] = {
    "rolled_back": (Advice.REJECT, "the release was rolled back"),
    "aborted": (Advice.NONE, "the attempt was aborted, which judges nothing"),
    "superseded": (Advice.NONE, "another release took this one's place"),
}


def recommend(
    phase: str, ending: str, demands: Sequence[Threshold], guards: Sequence[JSON]
) -> tuple[Advice, tuple[str, ...]]:
    """Return the advice and its reasons, the weightiest first.

    An end speaks first; then any guardrail that failed or demand that was missed; then, after a promotion, whatever is
    not proved; silence never counts as success.
    """
    bad = [
        f"{figures.guard_name(guard)} failed: {guard.get('reason', '')}"
        for guard in guards
        if guard.get("verdict") == "fail"
    ]
    bad += [f"{one.name} missed: {one.found}; wanted {one.wanted}" for one in demands if one.met is False]
    unproved = [f"{one.name}: {one.found}" for one in demands if one.met is None]
    good = [f"{one.name} met: {one.found}" for one in demands if one.met]
    if phase in ENDED:
        advice, words = ENDED[phase]
        return advice, (f"{words}{f': {ending}' if ending else ''}", *bad)
    if bad:
        return Advice.REJECT, tuple(bad)
    if phase != "promoted":
        return Advice.WAIT, (f"the release is in {phase or 'no phase'}", *good, *unproved)
    return (Advice.WAIT if unproved else Advice.KEEP), (
        *unproved,
        "promoted: no guardrail failed up to full traffic",
        *good,
    )
