"""The report's plots: small SVG drawings that take their colours from the page, so light and dark both work.

Pure; no script and no external resource. Every text that came from outside is escaped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from canary.console import figures

WIDTH, LEFT, RIGHT, TOP = 860, 56, 20, 18
REACH = 2.0  # a guardrail is drawn from -2 to 2 margins; what lies beyond is an arrow at the edge


@dataclass(frozen=True, slots=True)
class Point:
    """The candidate's share from this moment on; `label` names the event."""

    unix_ms: float
    percent: float
    label: str


def share_over_time(points: Sequence[Point], height: int = 250) -> str:
    """Draw the candidate's share of traffic as steps over time, each change marked; '' with fewer than two points."""
    if len(points) < 2 or points[-1].unix_ms <= points[0].unix_ms:  # noqa: PLR2004
        return ""
    floor, start, span = height - 34, points[0].unix_ms, points[-1].unix_ms - points[0].unix_ms

    def x(unix_ms: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (unix_ms - start) / span

    def y(percent: float) -> float:
        return floor - (floor - TOP) * percent / 100

    grid = "".join(rule(y(value), f"{value} %") for value in (0, 25, 50, 75, 100))
    ticks = "".join(tick(x(start + span * part / 4), floor, figures.seconds(span * part / 4000)) for part in range(5))
    path = steps([(x(point.unix_ms), y(point.percent)) for point in points])
    area = f'<path class="area" d="{path} V{floor:.1f} H{LEFT} Z"/><path class="line" d="{path}"/>'
    marks = "".join(
        _mark(x(point.unix_ms), y(point.percent), f"{point.label} · {point.percent:g} %") for point in points
    )
    return frame(height, "The candidate's share of traffic over time", grid + ticks + area + marks)


def steps(corners: Sequence[tuple[float, float]]) -> str:
    """Return a path from corner to corner, first across, then up or down."""
    first, *rest = corners
    return f"M{first[0]:.1f} {first[1]:.1f}" + "".join(f" H{x:.1f} V{y:.1f}" for x, y in rest)


def rule(y: float, text: str) -> str:
    """Draw one line of the grid, with its value."""
    line = f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
    return f'{line}<text class="tick" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{text}</text>'


def tick(x: float, floor: float, text: str) -> str:
    """Draw one value under the plot."""
    anchor = "start" if x <= LEFT else "end" if x >= WIDTH - RIGHT else "middle"
    return f'<text class="tick" x="{x:.1f}" y="{floor + 20:.1f}" text-anchor="{anchor}">{text}</text>'


def _mark(x: float, y: float, text: str) -> str:
    return f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="4.5"><title>{escape(text)}</title></circle>'


def guard_intervals(guards: Sequence[Mapping[str, Any]]) -> str:
    """Draw each guardrail's estimate and interval against its margin (at 1) and no effect (at 0).

    Guardrails have different units, so each is drawn on its own scale: (value - null) / (margin - null), where the
    null is 1 for a ratio and 0 for a difference. Right of the margin is worse than allowed.
    """
    rows = [row for row in (_scaled(guard) for guard in guards) if row is not None]
    if not rows:
        return ""
    left, height, top = 200, 34 * len(rows) + 52, 26
    bottom = top + 34 * len(rows)

    def x(value: float) -> float:
        return left + 8 + (WIDTH - left - 8 - RIGHT) * (min(REACH, max(-REACH, value)) + REACH) / (2 * REACH)

    head = _column(x(0), top, bottom, "grid", "no effect") + _column(x(1), top, bottom, "margin", "margin")
    body = "".join(_whisker(x, row, left, top + 17 + 34 * index) for index, row in enumerate(rows))
    foot = f'<text class="tick" x="{WIDTH - RIGHT}" y="{bottom + 18}" text-anchor="end">worse than allowed →</text>'
    return frame(height, "Guardrails: estimate and interval against the margin", head + body + foot)


@dataclass(frozen=True, slots=True)
class _Row:
    name: str
    verdict: str
    estimate: float
    low: float
    high: float
    text: str


def _scaled(guard: Mapping[str, Any]) -> _Row | None:
    name = str(guard.get("name") or guard.get("guardrail"))
    null = 1.0 if figures.GUARD_UNITS.get(name) is figures.ratio else 0.0
    estimate, margin = guard.get("estimate"), guard.get("margin")
    if estimate is None or margin is None or margin == null:
        return None

    def scale(value: float | None) -> float:
        return (float(estimate if value is None else value) - null) / (float(margin) - null)

    low, high = sorted((scale(guard.get("low")), scale(guard.get("high"))))
    text = f"{figures.guard_figure(guard, 'estimate')}, {figures.guard_interval(guard)}"
    return _Row(figures.guard_name(guard), str(guard.get("verdict", "")), scale(estimate), low, high, text)


def _column(x: float, top: float, bottom: float, kind: str, text: str) -> str:
    line = f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/>'
    return f'{line}<text class="tick" x="{x:.1f}" y="{top - 8}" text-anchor="middle">{text}</text>'


def _whisker(x: Callable[[float], float], row: _Row, left: float, y: float) -> str:
    kind = {"pass": "good", "fail": "bad"}.get(row.verdict, "open")
    name = f'<text class="name" x="{left - 12}" y="{y + 4}" text-anchor="end">{escape(row.name)}</text>'
    line = f'<line class="whisker {kind}" x1="{x(row.low):.1f}" x2="{x(row.high):.1f}" y1="{y}" y2="{y}"/>'
    return name + line + _spot(x(row.estimate), y, row, kind)


def _spot(x: float, y: float, row: _Row, kind: str) -> str:
    title = f"<title>{escape(row.text)}</title>"
    if abs(row.estimate) <= REACH:
        return f'<circle class="{kind}" cx="{x:.1f}" cy="{y}" r="5">{title}</circle>'
    tip = 8 if row.estimate > 0 else -8
    return f'<path class="spot {kind}" d="M{x:.1f} {y - 6} L{x + tip:.1f} {y} L{x:.1f} {y + 6} Z">{title}</path>'


def frame(height: float, title: str, body: str) -> str:
    """Draw the plot around what is in it."""
    name = escape(title)
    return f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{name}"><title>{name}</title>{body}</svg>'
