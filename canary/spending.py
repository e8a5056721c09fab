"""The ledger of a release in US dollars: what it has cost so far, by part. Pure.

An arm is paid by the hour or by the token, never by both. Engines that are paid by the hour cost the candidate's hours
(and the control's, where the spec prices them) since the attempt began: what the shadow and the canary ask of them lies
within. Of an arm that is paid by the token, what the release asked is counted: the candidate's answers, and what the
shadow asked of either arm. Each load test adds the hours of the engines that it kept busy and that are not counted
already, or its tokens.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from canary.core.arms import Arm
from canary.core.plan import Money, Rates
from canary.core.state import Release
from canary.core.tally import Key, Tally

Report = Mapping[str, Any]
Tokens = Mapping[str, int]  # "prompt" and "completion"
_KINDS = ("prompt", "completion")


@dataclass(frozen=True, slots=True)
class Spend:
    """USD: spent `before` the attempt, its `engines`, its `tokens`, and every load test of its candidate's digest."""

    before: float
    engines: float
    tokens: float
    load_tests: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.before + self.engines + self.tokens + self.load_tests

    def to_dict(self) -> dict[str, float]:
        """Plain values for JSON."""
        return asdict(self)


def spend(release: Release, runs: Iterable[Report], tallies: Mapping[Key, Tally], now: float) -> Spend:
    """Return the ledger at `now` (Unix seconds); `runs` are load reports, or what `kept` keeps of them.

    A load test within the attempt costs the baseline's seconds only: the candidate's lie within its hours. Its tokens
    always cost: they are no evidence, and so not in the `tallies`.
    """
    money = release.plan.money
    hours = max(0.0, (release.ended or now) - release.started) / 3600
    tests = 0.0
    began = min(release.started, release.started - release.jumped)  # a report keeps the time it was written with
    for run in runs:
        within = float(run.get("created_ms", 0)) >= began * 1000
        arms = {"baseline": money.baseline_per_hour} | ({} if within else {"candidate": money.candidate_per_hour})
        tests += sum(seconds(run, arm) / 3600 * rate for arm, rate in arms.items())
        tests += sum(_usd(rates, tokens(run, arm)) for arm, rates in _rates(money).items())
    return Spend(money.spent_before, hours * money.per_hour, tokens_usd(release, tallies), tests)


def tokens_usd(release: Release, tallies: Mapping[Key, Tally]) -> float:
    """Return what an attempt's tokens have cost in USD, where they are paid for.

    The baseline's own answers are no spend of the release: it would have given them anyhow.
    """
    asked = shadow_tokens(tallies)
    served = {kind: _sum(tallies, Arm.CANDIDATE, f"{kind}_tokens") for kind in _KINDS}
    rates = _rates(release.plan.money)
    return _usd(rates[Arm.CANDIDATE], served) + sum(_usd(rates[arm], asked[arm]) for arm in Arm)


def shadow_tokens(tallies: Mapping[Key, Tally]) -> dict[str, dict[str, int]]:
    """Return what the shadow asked of each arm in the attempt, whoever pays: tokens by kind."""
    return {arm.value: {kind: _sum(tallies, arm, f"shadow_{kind}_tokens") for kind in _KINDS} for arm in Arm}


def _sum(tallies: Mapping[Key, Tally], arm: Arm, word: str) -> int:
    return sum(tally.count(word) for (_, name, _), tally in tallies.items() if name == arm.value)


def _rates(money: Money) -> dict[str, Rates]:
    return {Arm.BASELINE.value: money.baseline_rates, Arm.CANDIDATE.value: money.candidate_rates}


def _usd(rates: Rates, used: Tokens) -> float:
    return sum(rate * used[kind] for rate, kind in zip(rates, _KINDS, strict=True)) / 1e6


def seconds(run: Report, arm: str) -> float:
    """Return how long a load test kept an arm busy: its schedule, and the measurement at capacity."""
    found = run.get("arms", {}).get(arm) or {}
    return float(found.get("seconds") or 0.0) + float((found.get("capacity") or {}).get("seconds") or 0.0)


def tokens(run: Report, arm: str) -> dict[str, int]:
    """Return the tokens of an arm's good answers in a load test, by kind: on schedule, and at capacity."""
    found = run.get("arms", {}).get(arm) or {}
    parts = (found, found.get("capacity") or {})
    return {kind: sum(int(part.get(f"{kind}_tokens") or 0) for part in parts) for kind in _KINDS}


def kept(report: Report) -> tuple[str, str]:
    """Return a load test's name in the ledger, and what is kept of it when another takes its place (JSON)."""
    arms = {
        arm: {"seconds": seconds(report, arm)} | {f"{kind}_tokens": n for kind, n in tokens(report, arm).items()}
        for arm in report.get("arms", {})
    }
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
