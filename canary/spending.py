"""The ledger of a release in US dollars: what it has cost so far, by part. Pure.

Engines are paid by the hour, so what the shadow and the canary cost is the candidate's hours (and the control's, where
the spec prices them) since the attempt began; the tokens that are mirrored lie within them. Each load test adds the
hours of the engines that it kept busy and that are not counted already.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from canary.core.state import Release

Report = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Spend:
    """USD: spent `before` the attempt, its `engines`, and every load test of its candidate's digest."""

    before: float
    engines: float
    load_tests: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.before + self.engines + self.load_tests

    def to_dict(self) -> dict[str, float]:
        """Plain values for JSON."""
        return asdict(self)


def spend(release: Release, runs: Iterable[Report], now: float) -> Spend:
    """Return the ledger at `now` (Unix seconds); `runs` are load reports, or what `kept` keeps of them.

    A load test within the attempt costs the baseline's seconds only: the candidate's lie within its hours.
    """
    money = release.plan.money
    hours = max(0.0, (release.ended or now) - release.started) / 3600
    tests = 0.0
    for run in runs:
        within = float(run.get("created_ms", 0)) >= release.started * 1000
        arms = {"baseline": money.baseline_per_hour} | ({} if within else {"candidate": money.candidate_per_hour})
        tests += sum(seconds(run, arm) / 3600 * rate for arm, rate in arms.items())
    return Spend(money.spent_before, hours * money.per_hour, tests)


def seconds(run: Report, arm: str) -> float:
    """Return how long a load test kept an arm busy: its schedule, and the measurement at capacity."""
    found = run.get("arms", {}).get(arm) or {}
    return float(found.get("seconds") or 0.0) + float((found.get("capacity") or {}).get("seconds") or 0.0)


def kept(report: Report) -> tuple[str, str]:
    """Return a load test's name in the ledger, and what is kept of it when another takes its place (JSON)."""
    arms = {arm: {"seconds": seconds(report, arm)} for arm in report.get("arms", {})}
    created = report.get("created_ms", 0)
    return str(created), json.dumps({"created_ms": created, "arms": arms})


def runs_of(report: Report | None, ledger: Mapping[str, str]) -> tuple[Report, ...]:
    """Return each load test once: those in the ledger, and the last report, which an older version did not enter."""
    runs = {name: json.loads(text) for name, text in ledger.items()}
    last = {} if report is None else {str(report.get("created_ms", 0)): report}
    return tuple({**last, **runs}.values())


def warning(release: Release, total: float) -> str:
    """Say that the budget is spent, "" while it is not; beyond the stop loss the release ends."""
    money = release.plan.money
    if total <= money.budget:
        return ""
    return f"spent {total:.2f} USD of a budget of {money.budget:.2f}; at {money.stop_loss:.2f} USD the release ends"
