"""The terminal's faces of a release: status at a glance, one line of it, the audit.

Pure: JSON in, Rich renderables out. Rich drops the colours when standard output is not a terminal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from canary.console import figures, words
from canary.console.fitting import Fitting, plain
from canary.console.place import Place, place

JSON = Mapping[str, Any]
VERDICT_STYLE = {"pass": "green", "fail": "bold red", "inconclusive": "yellow", "unknown": "magenta"}
WORST = ("fail", "unknown", "inconclusive", "pass")
PHASE_STYLE = {"promoted": "bold green", "rolled_back": "bold red", "aborted": "bold yellow"}
ENDS = ("promoted", "rolled_back", "aborted", "superseded")
EVENTS = 6
WHY_WIDTH = 36  # columns that a reason needs at least
PLAIN_WIDTH = 120  # columns when standard output is not a terminal
COUNTED = frozenset({"time", "samples", "pairs"})  # obstacles whose numbers stand under "to go"


def console() -> Console:
    """Return a console on standard output: the terminal's own width, or a fixed one in a pipe."""
    screen = Console(highlight=False)
    return screen if screen.is_terminal else Console(highlight=False, width=PLAIN_WIDTH)


def bar(part: float | None, width: int = 20) -> str:
    """Draw 0..1 as a bar of `width` cells; None as an empty one."""
    full = round(width * min(1.0, max(0.0, part or 0.0)))
    return "█" * full + "░" * (width - full)


def status(state: JSON) -> RenderableType:
    """Draw the glance: phase, shares, what is to go, guardrails, spend, overlays, last events."""
    parts: list[RenderableType] = [headline(state), _facts(state)]
    if state.get("guardrails"):
        parts.append(_guards(state["guardrails"]))
    if state.get("timeline"):
        parts.append(_events(state["timeline"]))
    return Group(*parts)


def headline(state: JSON) -> Text:
    """Name the release, its phase and where in it it stands."""
    phase = str(state.get("phase") or "no release")
    text = Text.assemble((str(state.get("model", "?")), "bold"), "  ", str(state.get("release") or ""), "  ")
    text.append(phase, PHASE_STYLE.get(phase, "bold cyan"))
    text.append("".join(f"  {word}" for word in _where(state)), "dim")
    return text


def _where(state: JSON) -> Iterable[str]:
    if state.get("phase") == "canary" and state.get("steps"):
        steps = state["steps"]
        yield f"step {int(state.get('step') or 0) + 1} of {len(steps) if isinstance(steps, list) else steps}"
    if state.get("attempt") is not None:
        yield f"attempt {state['attempt']}"
    yield f"generation {state.get('generation', '?')}"


def _facts(state: JSON) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    for name, value in _fact_rows(state):
        table.add_row(name, value)
    return table


def _fact_rows(state: JSON) -> Iterable[tuple[str, str]]:
    desired, actual = (_candidate(state.get(kind)) for kind in ("desired", "actual"))
    told = (
        ("share", f"{bar(desired)} candidate {figures.share(desired)} desired, {figures.share(actual)} actual"),
        ("workers", _workers(state.get("workers"))),
        ("ramp", _ramp(state.get("ramp"))),
        ("to go", escape(to_go(state))),
        ("spend", _spend(state)),
        ("shadow", _shadow(state.get("shadow_tokens"))),
        *(("[yellow]warning[/]", escape(str(warning))) for warning in state.get("warnings") or ()),
        ("rehearsal", _rehearsal(state.get("rehearsal_ms"))),
        ("reference", words.references(state.get("reference"))),
        ("load", words.load(state.get("load"))),
        *((f"[yellow]{name}[/]", escape(why) or "yes") for name, why in overlays(state.get("overlays"))),
        ("waiting", _uncounted(state)),
        ("reason", escape(str(state.get("reason") or ""))),
    )
    return ((name, said) for name, said in told if said)


def _ramp(ramp: JSON | None) -> str:
    return f"on the way to {figures.percent(ramp['to'])}, in {ramp['parts_left']} more parts" if ramp else ""


def _rehearsal(took_ms: float | None) -> str:
    told = "the way back was tried before anybody was exposed"
    return "" if took_ms is None else f"{told}: {figures.milliseconds(took_ms)}"


def _uncounted(state: JSON) -> str:
    """Say what is waited for, unless its numbers stand under "to go"."""
    return "" if to_go(state) and state.get("obstacle") in COUNTED else escape(waiting(state))


def _candidate(shares: Any) -> float | None:
    value = shares.get("candidate") if isinstance(shares, Mapping) else shares
    return float(value) if isinstance(value, int | float) else None


def _workers(workers: Any) -> str:
    if not isinstance(workers, Mapping):
        return ""
    live, known = _count(workers.get("live")), _count(workers.get("acknowledged"))
    if not live:
        return "0 of 0 acknowledged [red](no gateway is running)[/]"
    behind = ", ".join(map(str, workers.get("behind") or ()))
    return f"{known} of {live} acknowledged" + ("" if known == live else f" [yellow](waiting for {escape(behind)})[/]")


def _count(value: Any) -> int:
    return len(value) if isinstance(value, list | tuple | dict) else int(value or 0)


def waiting(state: JSON) -> str:
    """Say what the next step waits for, unless an overlay says the same."""
    ahead = str(state.get("waiting") or "")
    return "" if any(why == ahead for _, why in overlays(state.get("overlays"))) else ahead


def to_go(state: JSON) -> str:
    """Say how much time and evidence the step still needs; '' if the status does not tell."""
    need = state.get("to_go") or {}
    parts = []
    if need.get("seconds"):
        parts.append(f"{figures.seconds(need['seconds'])} at least")
    if need.get("samples"):
        parts.append(f"{figures.number(need['samples'])} more samples")
    if need.get("pairs"):
        parts.append(f"{figures.number(need['pairs'])} more shadow pairs")
    return ", ".join(parts)


def _spend(state: JSON) -> str:
    spent, budget, stop = (state.get(key) for key in ("spend_usd", "budget_usd", "stop_loss_usd"))
    part = spent / budget if isinstance(spent, int | float) and budget else None
    said = f"{bar(part)} {figures.usd(spent)} of {figures.usd(budget)}"
    said += "" if stop is None else f", ends at {figures.usd(stop)}"
    paid = [f"{name.replace('_', ' ')} {figures.usd(one)}" for name, one in (state.get("spend") or {}).items() if one]
    said += f" ({', '.join(paid)})" if len(paid) > 1 else ""
    return said if (part or 0) <= 1 else f"[yellow]{said}[/]"


def _shadow(asked: Any) -> str:
    """Say what the shadow asked of the candidate, "" before it did."""
    used = asked.get("candidate", {}) if isinstance(asked, Mapping) else {}
    told = [f"{figures.number(count)} {kind}" for kind, count in used.items() if count]
    return f"{' and '.join(told)} tokens of the candidate" if told else ""


def overlays(value: Any) -> list[tuple[str, str]]:
    """Return the overlays that are on, each with its reason ('' if it gives none)."""
    if not isinstance(value, Mapping):
        return []
    return [(name, "" if why is True else str(why)) for name, why in value.items() if why]


def _styled(finding: JSON, text: str) -> str:
    return f"[{VERDICT_STYLE.get(str(finding.get('verdict')), 'magenta')}]{text}[/]"


def _evidence(finding: JSON) -> str:
    """Draw the one bar that can grow: towards a pass while the estimate is allowed, else towards a fail."""
    passing, failing = figures.passing(finding), figures.progress(finding)
    to, part = ("fail", failing) if failing or passing is None else ("pass", passing)
    if finding.get("verdict") == "unknown":
        to, part = "    ", None
    share = figures.MISSING if part is None else f"{100 * part:.0f} %"
    return f"{to} {_styled(finding, bar(part, 10))} {share:>5}"


GUARD_COLUMNS: Mapping[str, Callable[[JSON], str]] = {
    "guardrail": lambda one: escape(figures.guard_name(one)),
    "verdict": lambda one: _styled(one, str(one.get("verdict") or "unknown")),
    "evidence": _evidence,
    "estimate": lambda one: figures.guard_figure(one, "estimate"),
    "margin": lambda one: figures.guard_figure(one, "margin"),
    "95 % interval": figures.guard_interval,
    "n": lambda one: figures.number(one.get("n")),
}
SPARED = ((), ("95 % interval",), ("95 % interval", "n"), ("95 % interval", "n", "margin", "estimate"))


def _guards(findings: Sequence[JSON]) -> RenderableType:
    """Draw a bar for each guardrail; a narrow terminal spares the figures that `explain` tells too."""
    return Fitting(*(_guard_table(findings, spared) for spared in SPARED))


def _guard_table(findings: Sequence[JSON], spared: Sequence[str]) -> Table:
    shown = {name: write for name, write in GUARD_COLUMNS.items() if name not in spared}
    table = plain(*shown)
    table.columns[-1].justify = "right" if "n" in shown else "left"
    for finding in findings:
        table.add_row(*(write(finding) for write in shown.values()))
    return table


def _events(timeline: Sequence[JSON]) -> RenderableType:
    return entries(timeline[-EVENTS:], title="last events")


def entries(rows: Iterable[JSON], title: str = "when (UTC)") -> RenderableType:
    """Draw audit entries: when, who, what, the phase and share after it, why."""
    told = [_entry(row) for row in rows]
    wide, narrow = (
        plain(title, "who", "what", "gen", "why", last=WHY_WIDTH),
        plain(title, "what", "why", last=WHY_WIDTH),
    )
    for when, who, what, generation, why in told:
        wide.add_row(*map(escape, (when, who, what, generation, why)))
        narrow.add_row(*map(escape, (when, what, why if who == "controller" else f"{who}: {why}")))
    return Fitting(wide, narrow)


def _entry(row: JSON) -> tuple[str, str, str, str, str]:
    at, what = row.get("unix_ms"), row.get("what") or row.get("verb") or ""
    when = figures.moment(None if at is None else float(at), "%m-%d %H:%M:%S")
    who = str(row.get("who") or row.get("actor") or "")
    return (when, who, _at(str(what), row), str(row.get("generation") or ""), str(row.get("why") or ""))


def _at(what: str, row: JSON) -> str:
    """Name the event with where it led."""
    after = place(row.get("after")) if "after" in row else Place(str(row.get("phase") or ""), row.get("percent"))
    led = f"{after.phase} {figures.percent(after.percent)}"
    return what if not after.phase else led if what == after.phase else f"{what} → {led}"


def milestone(state: JSON) -> object:
    """Return what makes a status worth a new line: where the release stands, what holds it, what was proved."""
    verdicts = tuple((figures.guard_name(one), one.get("verdict")) for one in state.get("guardrails") or ())
    held = tuple(name for name, _ in overlays(state.get("overlays")))
    return (state.get("release"), state.get("attempt"), state.get("phase"), state.get("generation"), held, verdicts)


def line(state: JSON) -> str:
    """Say the status in one plain line, for pipes and logs."""
    desired, actual = (_candidate(state.get(kind)) for kind in ("desired", "actual"))
    held = ", ".join(f"{name}: {why}" if why else name for name, why in overlays(state.get("overlays")))
    words = (
        f"{state.get('model')} {state.get('release') or '-'} {state.get('phase') or '-'}",
        f"generation {state.get('generation')}",
        f"candidate {figures.share(desired)} desired {figures.share(actual)} actual",
        _verdicts(state.get("guardrails") or ()),
        held,
        str(state.get("reason") or ""),
    )
    return " | ".join(" ".join(word.split()) for word in words if word)


def _verdicts(findings: Sequence[JSON]) -> str:
    """Name the guardrails by verdict, the worst first."""
    named = {
        verdict: [figures.guard_name(one) for one in findings if one.get("verdict") == verdict] for verdict in WORST
    }
    return ", ".join(f"{verdict}: {' '.join(names)}" for verdict, names in named.items() if names)


def evaluation(report: JSON) -> RenderableType:
    """Draw the offline evaluation: both arms by slice, the verdict and its reasons."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for name in figures.EVALUATION_HEAD:
        table.add_column(name)
    for name, result in (report.get("slices") or {}).items():
        table.add_row(*figures.evaluation_row(name, result))
    verdict = str(report.get("verdict"))
    style = {"pass": "green", "fail": "bold red"}.get(verdict, "magenta")
    reasons = [Text(f"  {reason}") for reason in report.get("reasons") or ()]
    return Group(table, Text.assemble("verdict: ", (verdict, style)), *reasons)
