"""Releases and evidence for the tests of the machine."""

from __future__ import annotations

from dataclasses import replace

from canary.core.arms import Endpoint
from canary.core.events import Cause, Evidence, Heard
from canary.core.finding import Finding, OnBreach, Verdict
from canary.core.plan import BakePlan, Money, Plan, ShadowPlan, Step
from canary.core.release import Opening, Release, begin

BASE = Endpoint("base", "base", ("http://127.0.0.1:8101",), "d-base")
NEW = Endpoint("new", "new", ("http://127.0.0.1:8102",), "d-new")
PLAN = Plan(
    steps=(Step(1, 10, 5), Step(5, 10, 5), Step(50, 10, 5, manual=True)),
    bake=BakePlan(10, 95, 5),
    money=Money(budget=10, stop_loss=20),
    shadow=ShadowPlan(20, 5, 2, 10),
    gates=("load",),
)

HEARD = Heard(workers=2, generation=10_000, slowest="w1", unix_ms=0)  # both route by whatever stands


def cause(now: float = 0.0, reason: str = "because", actor: str = "ann") -> Cause:
    """Who, why, when."""
    return Cause(actor, reason, now)


def opened(plan: Plan = PLAN, prior: Release | None = None, attempt: int = 1, *, rehearsed: bool = True) -> Release:
    """A release in draft; it need not rehearse a rollback any more, unless told otherwise."""
    release = begin(prior, Opening("m", "r", attempt, plan, "", BASE, NEW), cause())[0]
    return replace(release, withdrawn_ms=1, rehearsal_ms=34) if rehearsed else release


def finding(verdict: Verdict, name: str = "error_rate", on_breach: OnBreach = OnBreach.ROLLBACK) -> Finding:
    """One guardrail's word."""
    return Finding(name, "", verdict, f"{name} says {verdict} with 3 of 7", on_breach=on_breach)


def enough(verdict: Verdict = Verdict.PASS, **more) -> Evidence:
    """Evidence that suffices for every step, unless `more` says otherwise."""
    usual = {"samples": 100, "pairs": 100, "findings": (finding(verdict),), "heard": HEARD}
    return Evidence(**(usual | more))
