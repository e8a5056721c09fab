"""The report as sections: headings, sentences and tables that Markdown and HTML both set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from canary.console import figures
from canary.report.comparison import ARMS, Comparison, Mirrored, Moment, Threshold

MET = {True: "met", False: "missed", None: "not measured"}


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text under a head."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Section:
    """One part of the report: sentences, a list, a drawing (HTML only, by name), tables."""

    title: str
    text: tuple[str, ...] = ()
    items: tuple[str, ...] = ()
    plot: str = ""
    tables: tuple[Table, ...] = ()


def sections(facts: Comparison) -> tuple[Section, ...]:
    """Set the facts in reading order; parts with nothing to say are left out, missing figures are said."""
    parts = (
        _reasons(facts),
        _thresholds(facts.thresholds),
        _rollback(facts),
        _guards(facts),
        _shadow(facts.shadow),
        _load(facts),
        _evaluation(facts),
        _timeline(facts.timeline),
        _budget(facts),
        _card(facts.card),
        _counts(facts),
        _sources(facts),
        _missing(facts),
    )
    return tuple(part for part in parts if part is not None)


def _reasons(facts: Comparison) -> Section:
    return Section("Why", items=facts.reasons)


def _thresholds(demands: Iterable[Threshold]) -> Section:
    rows = tuple((one.name, one.wanted, one.found, MET[one.met], one.source) for one in demands)
    return Section("Success thresholds", tables=(Table(("threshold", "wanted", "found", "verdict", "source"), rows),))


def _rollback(facts: Comparison) -> Section | None:
    back = facts.rollback
    if back is None:
        return None
    rows = (
        ("breach seen → decision", figures.milliseconds(back.decision_ms)),
        (f"breach seen → every worker acknowledged ({back.workers})", figures.milliseconds(back.acknowledged_ms)),
        ("breach seen at", figures.moment(back.breach_ms)),
        ("decided by", back.who),
        ("reason", back.reason or "not recorded"),
    )
    return Section("Rollback", tables=(Table(("", ""), rows),))


def _guards(facts: Comparison) -> Section:
    head = ("guardrail", "estimate", "95 % interval", "margin", "evidence", "n", "verdict", "why")
    if not facts.guards:
        return Section("Guard metrics", ("No guardrail has looked at any traffic yet.",))
    table = Table(head, tuple(map(_guard, facts.guards)))
    return Section("Guard metrics", (GUARD_NOTE,), plot="guards", tables=(table,))


GUARD_NOTE = (
    "Each compares the candidate with the baseline on the same live traffic. Evidence is the way to the point where a "
    "breach is proved (100 %); pass means that the margin itself is ruled out."
)


def _guard(guard: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        figures.guard_name(guard),
        figures.guard_figure(guard, "estimate"),
        figures.guard_interval(guard),
        figures.guard_figure(guard, "margin"),
        figures.share(figures.progress(guard)),
        figures.number(guard.get("n")),
        str(guard.get("verdict") or "unknown"),
        str(guard.get("reason") or ""),
    )


def _shadow(slices: Iterable[Mirrored]) -> Section | None:
    rows = tuple(
        (
            one.slice or "all",
            figures.number(one.pairs),
            f"{figures.share(one.agreement)} of {one.compared}",
            f"{figures.share(one.floor)} of {one.repeated}",
        )
        for one in slices
    )
    head = ("slice", "pairs scored", "answers agree, mean", "floor: the baseline asked twice")
    return Section("Shadow", (SHADOW_NOTE,), tables=(Table(head, rows),)) if rows else None


SHADOW_NOTE = (
    "Mirrored answers, character n-grams compared. Agreement says whether behaviour changed, not whether it is better: "
    "that is shadow_quality's question, above."
)

QUANTILES = ("p50", "p95", "p99")
LATENCIES = (("time to first token", "ttft"), ("time per output token", "tpot"), ("end to end", "e2e"))
LOAD_ROWS = (
    ("served at this rate, tokens/s", "throughput_tokens_per_s", figures.number),
    ("arrivals asked, per s", "rate", figures.number),
    ("arrivals achieved, per s", "achieved", figures.number),
    ("goodput (share within the limits)", "goodput", figures.share),
    ("requests sent", "sent", figures.number),
    ("requests failed", "failed", figures.number),
    ("lag of the load generator, p99", "lag_p99_ms", figures.milliseconds),
    ("USD per hour", "usd_per_hour", figures.usd),
    ("USD per million tokens, at capacity", "usd_per_million_tokens", figures.usd),
)


def _load(facts: Comparison) -> Section:
    load = facts.load
    if load is None:
        return Section("Load gate", ("Not measured for this candidate.",))
    arms = load.get("arms") or {}
    rows = tuple((name, *(form(_at(arms.get(arm), key)) for arm in ARMS)) for name, key, form in LOAD_ROWS)
    cost = f"Cost ratio (candidate / baseline, USD per token at capacity): {figures.ratio(load.get('cost_ratio'))}."
    tables = (_latencies(arms), Table(("", *ARMS), rows))
    return Section("Load gate", (_verdict(load), cost), tables=tables)


def _verdict(report: Mapping[str, Any]) -> str:
    return f"Verdict: {report.get('verdict', 'unknown')}. {'; '.join(report.get('reasons') or [])}".strip()


def _latencies(arms: Mapping[str, Any]) -> Table:
    head = ("", *(f"{arm} {quantile}" for arm in ARMS for quantile in QUANTILES))
    rows = tuple(
        (name, *(figures.milliseconds(_at(arms.get(arm), key, q)) for arm in ARMS for q in QUANTILES))
        for name, key in LATENCIES
    )
    return Table(head, rows)


def _at(value: Any, *path: str) -> float | None:
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if isinstance(value, int | float) else None


def _evaluation(facts: Comparison) -> Section:
    report = facts.evaluation
    if report is None:
        return Section("Offline evaluation", ("Not measured for this candidate.",))
    rows = tuple(figures.evaluation_row(name, result) for name, result in (report.get("slices") or {}).items())
    return Section(
        "Offline evaluation", (EVALUATION_NOTE, _verdict(report)), tables=(Table(figures.EVALUATION_HEAD, rows),)
    )


EVALUATION_NOTE = (
    "Next-token accuracy on held-out passages, both engines teacher-forced; paired bootstrap over passages."
)


def _timeline(moments: Iterable[Moment]) -> Section:
    head = ("when", "who", "what", "phase", "share", "why")
    return Section("Timeline", plot="share", tables=(Table(head, tuple(map(_moment, moments))),))


def _moment(one: Moment) -> tuple[str, ...]:
    when = figures.moment(one.unix_ms, "%H:%M:%S.%f")[:12]
    return (when, one.who, one.what, one.phase, figures.percent(one.percent), one.why)


def _budget(facts: Comparison) -> Section:
    budget = facts.budget
    rows = (
        ("spent before this attempt", figures.usd(budget.before)),
        ("spent in this attempt", figures.usd(budget.spent)),
        *((f"of it {name.replace('_', ' ')}", figures.usd(usd)) for name, usd in budget.parts.items() if usd),
        ("total", figures.usd(budget.total)),
        ("budget", figures.usd(budget.budget)),
        ("stop loss", figures.usd(budget.stop_loss)),
    )
    return Section("Spend against budget", tables=(Table(("", "USD"), rows),))


def _card(card: Mapping[str, Any]) -> Section | None:
    if not card:
        return None
    rows = tuple((str(field), _words(value)) for field, value in card.items())
    return Section("Decision card", tables=(Table(("field", "as decided"), rows),))


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {_words(inner)}" for key, inner in value.items() if inner is not None)
    return ", ".join(map(_words, value)) if isinstance(value, list | tuple) else str(value)


def _counts(facts: Comparison) -> Section:
    head = ("stage", "arm", "assigned", "answered", "failed", "tokens")
    rows = tuple(
        (str(c.stage), c.arm, *map(figures.number, (c.assigned, c.done, c.failed, c.tokens))) for c in facts.counts
    )
    note = "Sums of the gateways' workers; forced testers are left out."
    return Section("Requests counted", (note,), tables=(Table(head, rows),))


def _sources(facts: Comparison) -> Section:
    return Section("Where each figure comes from", tables=(Table(("figure", "source"), facts.sources),))


def _missing(facts: Comparison) -> Section | None:
    if not facts.missing:
        return None
    return Section("Missing", ("Not measured, and therefore not claimed:",), facts.missing)
