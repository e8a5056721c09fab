"""From the store's raw material to the report's facts. Pure, and suspicious: what is not there is None, and is said."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from canary.console.place import place, real
from canary.core.tally import Tally, parse
from canary.report.comparison import (
    JSON,
    Budget,
    Comparison,
    Count,
    Mirrored,
    Moment,
    Rollback,
    Threshold,
    recommend,
    thresholds,
)


def build(material: JSON, made_ms: float, card: JSON | None = None) -> Comparison:
    """Build the facts from the material and the decision card (default: the card of the spec in the material)."""
    state = _mapping(material.get("release"))
    decision = card if card is not None else _card(state)
    digest = str(_mapping(state.get("candidate")).get("digest") or "")
    load, evaluation = (_report(material, kind, digest) for kind in ("load", "eval"))
    guards = tuple(material.get("findings") or ())
    moments = _moments(material.get("audit") or (), state)
    demands = thresholds(decision, load, evaluation)
    advice, reasons = recommend(str(state.get("phase") or ""), str(state.get("reason") or ""), demands, guards)
    budget = _budget(material, state, decision)
    counts = _counts(material.get("tallies"))
    return Comparison(
        model=str(material.get("model") or state.get("model") or ""),
        release=str(state.get("release") or "no release"),
        attempt=state.get("attempt"),
        generation=state.get("generation"),
        phase=str(state.get("phase") or "none"),
        made_ms=made_ms,
        advice=advice,
        reasons=reasons,
        thresholds=demands,
        guards=guards,
        load=load,
        evaluation=evaluation,
        timeline=moments,
        rollback=_rollback(state, material.get("audit") or ()),
        budget=budget,
        counts=counts,
        shadow=_shadow(material.get("tallies")),
        digests=_digests(state),
        card=decision,
        sources=_sources(state, digest, load, evaluation),
        missing=_missing(
            demands=demands, load=load, evaluation=evaluation, guards=guards, budget=budget, counts=counts
        ),
    )


def _mapping(value: Any) -> JSON:
    return value if isinstance(value, Mapping) else {}


def _card(state: JSON) -> JSON:
    try:
        return _mapping(_mapping(yaml.safe_load(str(state.get("spec") or ""))).get("decision"))
    except yaml.YAMLError:
        return {}


def _report(material: JSON, kind: str, digest: str) -> JSON | None:
    """Return the gate's report for this candidate's digest; one of another digest proves nothing here."""
    report = _mapping(_mapping(material.get("reports")).get(kind))
    return report if report.get("digest") == digest and report.get("kind") == kind else None


def _moments(audit: Sequence[JSON], state: JSON) -> tuple[Moment, ...]:
    """Return the audit's entries of this attempt, oldest first."""
    return tuple(_moment(entry) for entry in audit if _mine(entry, state) and real(entry.get("unix_ms")) is not None)


def _mine(entry: JSON, state: JSON) -> bool:
    """Tell whether an entry is of this attempt; one that does not say belongs to it, one of none ("") does not."""
    same = (str(entry.get(key, state.get(key))) == str(state.get(key)) for key in ("release", "attempt"))
    return all(same)


def _moment(entry: JSON) -> Moment:
    after, generation = place(entry.get("after")), real(entry.get("generation"))
    return Moment(
        unix_ms=real(entry.get("unix_ms")) or 0.0,
        who=str(entry.get("who") or "unknown"),
        what=str(entry.get("what") or ""),
        why=str(entry.get("why") or ""),
        phase=after.phase,
        percent=after.percent,
        generation=None if generation is None else int(generation),
    )


def _rollback(state: JSON, audit: Sequence[JSON]) -> Rollback | None:
    """Time the end from the record: the controller notes when the last worker acknowledged this very generation."""
    if state.get("phase") != "rolled_back":
        return None
    breach, decided = real(state.get("breach_ms")) or None, real(state.get("decided_ms")) or None
    mine = [entry for entry in audit if _mine(entry, state)]
    decision = next((entry for entry in reversed(mine) if _ends(entry)), {})
    heard = next((entry for entry in mine if _acknowledges(entry, state)), {})
    known = real(_evidence(heard).get("acknowledged_ms"))
    return Rollback(
        reason=str(state.get("reason") or ""),
        who=str(decision.get("who") or "not recorded"),
        breach_ms=breach,
        decision_ms=None if breach is None or decided is None else decided - breach,
        acknowledged_ms=None if breach is None or known is None else known - breach,
        workers=int(real(_evidence(heard).get("workers")) or 0),
    )


def _ends(entry: JSON) -> bool:
    return entry.get("what") != "acknowledged" and place(entry.get("after")).phase == "rolled_back"


def _acknowledges(entry: JSON, state: JSON) -> bool:
    """Without a live worker nobody acknowledged anything, whatever the entry's time says."""
    same = real(entry.get("generation")) == real(state.get("concluded") or state.get("generation"))
    return entry.get("what") == "acknowledged" and same and bool(real(_evidence(entry).get("workers")))


def _evidence(entry: JSON) -> JSON:
    try:
        return _mapping(json.loads(str(entry.get("evidence") or "{}")))
    except ValueError:
        return {}


def _budget(material: JSON, state: JSON, card: JSON) -> Budget:
    """Read the ledger; the controller's figure of spend includes what was spent before."""
    money, named = _mapping(_mapping(state.get("plan")).get("money")), _mapping(card.get("budget"))
    before = real(money.get("spent_before", named.get("spent_before_usd")))
    total = real(material.get("spend_usd"))
    parts = _mapping(_mapping(material.get("status")).get("spend"))
    return Budget(
        before=before,
        spent=None if total is None else max(0.0, total - (before or 0.0)),
        budget=real(money.get("budget", named.get("usd"))),
        stop_loss=real(money.get("stop_loss", named.get("stop_loss_usd"))),
        parts={name: usd for name, usd in parts.items() if name != "before"},
    )


def _counts(fields: Any) -> tuple[Count, ...]:
    """Sum the slices of each stage and arm."""
    sums: dict[tuple[int, str], Count] = {}
    for (stage, arm, _slice), tally in sorted(parse(_mapping(fields)).items()):
        old = sums.get((stage, arm), Count(stage, arm, 0, 0, 0, 0))
        sums[stage, arm] = Count(
            stage,
            arm,
            old.assigned + tally.count("assigned"),
            old.done + tally.count("done"),
            old.failed + tally.count("error", "timeout"),
            old.tokens + tally.count("prompt_tokens", "completion_tokens"),
        )
    return tuple(sums.values())


def _shadow(fields: Any) -> tuple[Mirrored, ...]:
    """Sum each slice's shadow over the stages; slices without a pair are left out."""
    found: dict[str, Tally] = {}
    for (_stage, _arm, slice_), tally in parse(_mapping(fields)).items():
        found[slice_] = found.get(slice_, Tally()) + tally
    mirrored = (_mirrored(slice_, tally) for slice_, tally in sorted(found.items()))
    return tuple(one for one in mirrored if one.pairs or one.compared)


def _mirrored(slice_: str, tally: Tally) -> Mirrored:
    pairs = sum(tally.histogram("pair").values())
    return Mirrored(slice_, pairs, *_mean(tally.histogram("agree")), *_mean(tally.histogram("floor")))


def _mean(percents: Mapping[int, int]) -> tuple[float | None, int]:
    """Return the mean of a histogram of percents as a share, and its count."""
    n = sum(percents.values())
    return (sum(percent * times for percent, times in percents.items()) / n / 100 if n else None), n


def _digests(state: JSON) -> Mapping[str, str]:
    """Name what was compared: after a promotion the old baseline is `previous`."""
    old = _mapping(state.get("previous")) or _mapping(state.get("baseline"))
    return {
        "baseline": str(old.get("digest") or ""),
        "candidate": str(_mapping(state.get("candidate")).get("digest") or ""),
    }


def _sources(state: JSON, digest: str, load: JSON | None, evaluation: JSON | None) -> tuple[tuple[str, str], ...]:
    """Say for each figure under which key of the store it stands."""
    model, attempt = state.get("model"), f"{state.get('release')}:{state.get('attempt')}"
    gates = (("load gate", "load", load), ("offline evaluation", "eval", evaluation))
    return (
        ("release, phase, spend plan", f"linnet:{model}:release at generation {state.get('generation')}"),
        ("candidate's digest", digest or "not recorded"),
        ("baseline's digest", _digests(state)["baseline"] or "not recorded"),
        ("guard metrics", f"linnet:{model}:findings, over the sums in linnet:{model}:tally:{attempt}"),
        ("requests counted", f"linnet:{model}:tally:{attempt}"),
        ("timeline, rollback", "linnet:audit (times are the deciding process's clock)"),
        *((name, f"linnet:{model}:report:{kind}:{digest}") for name, kind, found in gates if found is not None),
    )


def _missing(
    *,
    demands: Iterable[Threshold],
    load: JSON | None,
    evaluation: JSON | None,
    guards: Sequence[JSON],
    budget: Budget,
    counts: Sequence[Count],
) -> tuple[str, ...]:
    gaps = (
        ("the load gate of this candidate (linnet loadtest SPEC)", load is None),
        ("the offline evaluation of this candidate (linnet eval SPEC)", evaluation is None),
        ("guard metrics under traffic", not guards),
        ("the spend of this release", budget.spent is None),
        ("requests counted by the gateways", not counts),
        *((f"threshold {one.name}", one.met is None) for one in demands),
    )
    return tuple(name for name, missing in gaps if missing)
