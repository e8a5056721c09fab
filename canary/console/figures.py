"""How numbers are written for people: one place, so that the terminal and the report agree.

Every function takes None for a figure that is missing and says so with a dash: nothing is made up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

MISSING = "–"  # noqa: RUF001 - an en dash, as tables use it


def share(value: float | None) -> str:
    """0..1 as a percentage."""
    return MISSING if value is None else f"{100 * value:.3g} %"


def percent(value: float | None) -> str:
    """0..100 as a percentage."""
    return MISSING if value is None else f"{value:.3g} %"


def points(value: float | None) -> str:
    """A difference of rates as percentage points: 0.005 is +0.5 pp."""
    return MISSING if value is None else f"{100 * value:+.2f} pp"


def ratio(value: float | None) -> str:
    """A ratio, such as x1.10."""
    return MISSING if value is None else f"×{value:.3f}"  # noqa: RUF001 - the multiplication sign


def difference(value: float | None) -> str:
    """A signed difference of scores."""
    return MISSING if value is None else f"{value:+.4f}"


def number(value: float | None) -> str:
    """Three significant digits, thousands apart."""
    if value is None:
        return MISSING
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.3g}"  # noqa: PLR2004


def evidence(value: float | None) -> str:
    """A natural log of an e-value, to a tenth; what rounds to nothing is nothing."""
    return MISSING if value is None else f"{round(value, 1) + 0.0:.1f}"


def milliseconds(value: float | None) -> str:
    """Milliseconds, in seconds from ten thousand on."""
    if value is None:
        return MISSING
    return f"{value / 1000:.1f} s" if value >= 10_000 else f"{value:,.0f} ms" if value >= 10 else f"{value:.1f} ms"  # noqa: PLR2004


def clock(value: float | None) -> str:
    """Seconds as milliseconds."""
    return milliseconds(None if value is None else 1000 * value)


def usd(value: float | None) -> str:
    """Dollars; below ten cents with four decimals."""
    if value is None:
        return MISSING
    return f"${value:,.4f}" if 0 < abs(value) < 0.1 else f"${value:,.2f}"  # noqa: PLR2004


def seconds(value: float | None) -> str:
    """A length of time in its two largest units."""
    if value is None:
        return MISSING
    whole = round(max(0.0, value))
    hours, minutes = divmod(whole // 60, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"


def moment(unix_ms: float | None, pattern: str = "%Y-%m-%d %H:%M:%S UTC") -> str:
    """A point in time, in UTC."""
    return MISSING if unix_ms is None else datetime.fromtimestamp(unix_ms / 1000, UTC).strftime(pattern)


GUARD_UNITS: dict[str, Callable[[float | None], str]] = {
    "error_rate": points,
    "empty": points,
    "truncated": points,
    "refusal": points,
    "malformed": points,
    "repetition": points,
    "ttft_p95": ratio,
    "ttft_p99": ratio,
    "tpot_p95": ratio,
    "stall_p99": ratio,
    "e2e_p95": ratio,
    "output_length": ratio,
    "cost_per_token": ratio,
    "cost_per_request": ratio,
    "shadow_quality": difference,
    "error_rate_limit": share,
    "ttft_p95_limit": clock,
    "ttft_p99_limit": clock,
    "tpot_p95_limit": clock,
    "sample_ratio": ratio,
}
BANDS = frozenset({"output_length", "sample_ratio"})  # too little is as bad as too much


def guard_name(finding: Mapping[str, Any]) -> str:
    """Name a finding's guardrail, with its slice if it has one."""
    name, part = finding.get("name") or finding.get("guardrail") or "?", finding.get("slice")
    return f"{name} [{part}]" if part else str(name)


def guard_figure(finding: Mapping[str, Any], key: str) -> str:
    """Write `estimate`, `low`, `high` or `margin` of a finding in its guardrail's unit."""
    unit = GUARD_UNITS.get(str(finding.get("name") or finding.get("guardrail")), number)
    return unit(finding.get(key))


def guard_interval(finding: Mapping[str, Any]) -> str:
    """Write a finding's interval, a dash if it has none."""
    if finding.get("low") is None and finding.get("high") is None:
        return MISSING
    return f"{guard_figure(finding, 'low')} to {guard_figure(finding, 'high')}"


def progress(finding: Mapping[str, Any]) -> float | None:
    """How far a finding has come towards a breach, 0..1: evidence over its threshold; None without both.

    A breach takes an estimate beyond the margin too, so a difference that is proved but allowed is no way towards one.
    """
    return None if (part := _part(finding, "evidence", "threshold")) is None else 0.0 if allowed(finding) else part


def passing(finding: Mapping[str, Any]) -> float | None:
    """How far a finding has come towards a pass, 0..1; nothing as long as the estimate is beyond the margin."""
    return None if (part := _part(finding, "passing", "pass_threshold")) is None else part if allowed(finding) else 0.0


def _part(finding: Mapping[str, Any], has: str, needs: str) -> float | None:
    evidence, threshold = finding.get(has), finding.get(needs)
    return None if evidence is None or not threshold else float(min(1.0, max(0.0, evidence / threshold)))


def allowed(finding: Mapping[str, Any]) -> bool:
    """Tell whether the estimate lies within the margin; of a score, less is worse, and its margin is below zero."""
    estimate, margin = finding.get("estimate"), finding.get("margin")
    if estimate is None or margin is None:
        return False
    if (finding.get("name") or finding.get("guardrail")) in BANDS:
        return bool(1 / margin <= estimate <= margin)
    return bool(estimate >= margin if margin < 0 else estimate <= margin)


EVALUATION_HEAD = (
    "slice",
    "accuracy: baseline",
    "candidate",
    "difference",
    "95 % interval",
    "perplexity: baseline",
    "candidate",
)


def evaluation_row(name: str, result: Mapping[str, Any]) -> tuple[str, ...]:
    """Write one slice of an evaluation report under EVALUATION_HEAD."""
    first, second = result.get("baseline") or {}, result.get("candidate") or {}
    return (
        name,
        share(first.get("accuracy")),
        share(second.get("accuracy")),
        points(result.get("difference")),
        f"{points(result.get('low'))} to {points(result.get('high'))}",
        number(first.get("perplexity")),
        number(second.get("perplexity")),
    )
