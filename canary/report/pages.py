"""The report's two pages: Markdown, and one HTML file that needs nothing but itself (no script, no other resource)."""

from __future__ import annotations

import re
from html import escape

from canary.console import figures
from canary.report import plot
from canary.report.comparison import Advice, Comparison
from canary.report.sections import Section, Table, sections
from canary.report.style import CHIPS, STYLE

TONES = {Advice.KEEP: "good", Advice.REJECT: "bad", Advice.WAIT: "open", Advice.NONE: "open"}


def markdown(facts: Comparison) -> str:
    """Return the report as Markdown; whatever came from outside cannot open a tag, a link or a cell."""
    head = f"# {_plain(facts.release)}: {facts.advice}\n\n{_plain(subtitle(facts))}\n"
    return head + "".join(_section_markdown(part) for part in sections(facts))


def subtitle(facts: Comparison) -> str:
    """Name the run in one line."""
    parts = (
        f"model {facts.model}",
        f"attempt {facts.attempt}" if facts.attempt is not None else "",
        f"phase {facts.phase}",
        f"generation {facts.generation}" if facts.generation is not None else "",
        f"written {figures.moment(facts.made_ms)}",
    )
    return " · ".join(part for part in parts if part)


def _section_markdown(part: Section) -> str:
    text = "".join(f"\n{_plain(line)}\n" for line in part.text)
    items = "".join(f"\n- {_plain(item)}" for item in part.items) + ("\n" if part.items else "")
    return f"\n## {part.title}\n{text}{items}{''.join(map(_table_markdown, part.tables))}"


def _table_markdown(table: Table) -> str:
    rule = "|".join(["---"] * len(table.head))
    rows = "".join(f"| {' | '.join(map(_plain, row))} |\n" for row in table.rows)
    return f"\n| {' | '.join(table.head)} |\n|{rule}|\n{rows}"


LOUD = re.compile(r"[\\`*\[\]|#]|(?<!\w)_|_(?!\w)")  # what Markdown would read as more than text


def _plain(text: str) -> str:
    return LOUD.sub(r"\\\g<0>", escape(" ".join(text.split()), quote=False))


def html(facts: Comparison) -> str:
    """Return the report as one self-contained HTML page."""
    title = escape(f"{facts.release}: {facts.advice}")
    body = "".join(_section_html(part, facts) for part in sections(facts))
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<style>{STYLE}</style></head><body><main>{_masthead(facts)}{body}</main></body></html>\n"
    )


def _masthead(facts: Comparison) -> str:
    tone = TONES[facts.advice]
    first = escape(facts.reasons[0]) if facts.reasons else ""
    return (
        f'<header class="{tone}"><p class="kicker">Linnet comparison report</p><h1>{escape(facts.release)}</h1>'
        f'<p class="advice">{escape(str(facts.advice).capitalize())}</p><p class="lead">{first}</p>'
        f'<p class="sub">{escape(subtitle(facts))}</p></header>{_tiles(facts)}'
    )


def _tiles(facts: Comparison) -> str:
    tiles = "".join(
        f'<div class="tile"><b>{escape(value)}</b><span>{escape(name)}</span></div>'
        for name, value in _headlines(facts)
    )
    return f'<div class="tiles">{tiles}</div>'


def _headlines(facts: Comparison) -> tuple[tuple[str, str], ...]:
    met = sum(one.met is True for one in facts.thresholds)
    domain = ((facts.evaluation or {}).get("slices") or {}).get("domain") or {}
    failed = sum(guard.get("verdict") == "fail" for guard in facts.guards)
    back = facts.rollback
    last = (
        ("domain accuracy", figures.points(domain.get("difference")))
        if back is None
        else ("breach to acknowledged", figures.milliseconds(back.acknowledged_ms))
    )
    return (
        ("thresholds met", f"{met} of {len(facts.thresholds)}"),
        ("guardrails failed", f"{failed} of {len(facts.guards)}"),
        ("cost, candidate / baseline", figures.ratio((facts.load or {}).get("cost_ratio"))),
        last,
        (f"spent of {figures.usd(facts.budget.budget)}", figures.usd(facts.budget.total)),
    )


def _section_html(part: Section, facts: Comparison) -> str:
    text = "".join(f"<p>{escape(line)}</p>" for line in part.text)
    items = "".join(f"<li>{escape(item)}</li>" for item in part.items)
    listed = f"<ol>{items}</ol>" if items else ""
    tables = "".join(map(_table_html, part.tables))
    return f"<section><h2>{escape(part.title)}</h2>{text}{listed}{_plot(part.plot, facts)}{tables}</section>"


def _plot(name: str, facts: Comparison) -> str:
    if name == "guards":
        drawing = plot.guard_intervals(facts.guards)
    elif name == "share":
        drawing = plot.share_over_time(
            [plot.Point(one.unix_ms, one.percent, one.what) for one in facts.timeline if one.percent is not None]
        )
    else:
        drawing = ""
    return f"<figure>{drawing}</figure>" if drawing else ""


def _table_html(table: Table) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in table.head)
    rows = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in table.rows)
    shown = f"<thead><tr>{head}</tr></thead>" if any(table.head) else ""
    return f'<div class="scroll"><table>{shown}<tbody>{rows}</tbody></table></div>'


def _cell(text: str) -> str:
    tone = CHIPS.get(text)
    return f'<td><span class="chip {tone}">{escape(text)}</span></td>' if tone else f"<td>{escape(text)}</td>"
