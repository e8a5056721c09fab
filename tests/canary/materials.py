"""Raw material of reports as the control plane gives it: one promoted release, one that was rolled back."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

from canary.core.arms import Endpoint
from canary.core.finding import Finding, OnBreach, Verdict
from canary.core.plan import BakePlan, Money, Plan, ShadowPlan, Step
from canary.core.state import Phase, Release

T0 = 1_763_800_000_000

SPEC = """
model: mathdocs
decision:
  goal: {metric: domain_accuracy, text: "Continue mathematics documentation better"}
  baseline: "The general model"
  data: {sources: ["docstrings"], licence: "BSD-3-Clause", known_bias: "English"}
  budget: {usd: 5, stop_loss_usd: 8, spent_before_usd: 0.05, opportunity: "an afternoon", risk: "none"}
  risks: ["forgetting", "quantization damage"]
  evaluation: {domain: evals/domain.jsonl, general: evals/general.jsonl}
  success: {domain_accuracy: {min_gain: 0.03}}
  rollback: "All traffic to the general model"
"""

PLAN = Plan(
    steps=(Step(10, 8, 5), Step(50, 15, 60)),
    bake=BakePlan(12),
    money=Money(budget=5, stop_loss=8, spent_before=0.05, baseline_per_hour=0.1, candidate_per_hour=0.1),
    shadow=ShadowPlan(60, 30, 2),
    gates=("load", "eval"),
    slices=("domain", "general"),
)

RELEASE = Release(
    model="mathdocs",
    release="mathdocs-adapted",
    attempt=1,
    plan=PLAN,
    baseline=Endpoint("base", "base", ("http://127.0.0.1:8101",), "sha256:aaaa"),
    candidate=Endpoint("math-w8a8", "math-w8a8", ("http://127.0.0.1:8102",), "sha256:bbbb"),
    spec=SPEC,
    phase=Phase.PROMOTED,
    step=1,
    shares=(0.0, 10.0, 50.0, 95.0, 100.0),
    generation=8,
    reason="evidence is in",
)

QUANTILES = {"p50": 41.2, "p95": 88.0, "p99": 131.5}
ARM = {
    "engine": "base",
    "rate": 4,
    "achieved": 3.97,
    "lag_p99_ms": 12.0,
    "sent": 60,
    "ok": 60,
    "failed": 0,
    "ttft": QUANTILES,
    "tpot": {"p50": 8.1, "p95": 12.9, "p99": 15.0},
    "e2e": {"p50": 230.0, "p95": 380.0, "p99": 12_400.0},
    "throughput_tokens_per_s": 610.5,
    "goodput": 0.98,
    "usd_per_hour": 0.10,
    "usd_per_million_tokens": 0.0455,
    "valid": True,
}
LOAD = {
    "kind": "load",
    "model": "mathdocs",
    "digest": "sha256:bbbb",
    "created_ms": T0,
    "arms": {"baseline": ARM, "candidate": {**ARM, "engine": "math-w8a8", "usd_per_million_tokens": 0.041}},
    "cost_ratio": 0.901,
    "verdict": "pass",
    "reasons": ["ttft p95 88 ms within 1500 ms", "cost ratio 0.901 within 1.25"],
}
EVALUATION = {
    "kind": "eval",
    "model": "mathdocs",
    "digest": "sha256:bbbb",
    "created_ms": T0,
    "passages": 120,
    "slices": {
        "domain": {
            "baseline": {"accuracy": 0.312, "perplexity": 38.2},
            "candidate": {"accuracy": 0.401, "perplexity": 19.9},
            "difference": 0.089,
            "low": 0.071,
            "high": 0.105,
            "passages": 60,
        },
        "general": {
            "baseline": {"accuracy": 0.377, "perplexity": 24.0},
            "candidate": {"accuracy": 0.371, "perplexity": 24.9},
            "difference": -0.006,
            "low": -0.013,
            "high": 0.002,
            "passages": 60,
        },
    },
    "thresholds": {"min_gain": {"domain": 0.03}, "max_general_loss": 0.02},
    "verdict": "pass",
    "reasons": [],
}

FINDINGS = (
    Finding(
        "error_rate", "", Verdict.PASS, "0 of 212 failed against 0 of 230", 0.0, -0.004, 0.012, 0.05, -1.2, 6.1, 212
    ),
    Finding("ttft_p95", "", Verdict.INCONCLUSIVE, "ratio 1.18 not proved", 1.18, 0.95, 1.46, 2.0, 1.9, 6.8, 212),
    Finding("tpot_p95", "", Verdict.PASS, "ratio 1.02", 1.02, 0.96, 1.09, 1.6, -0.5, 7.0, 212),
    Finding("cost_per_token", "", Verdict.PASS, "ratio 0.93", 0.93, 0.88, 0.99, 1.3, -2.0, 6.9, 212),
    Finding(
        "shadow_quality", "domain", Verdict.PASS, "+0.081", 0.081, 0.04, 0.12, -0.02, -3.0, 6.5, 34, OnBreach.PAUSE
    ),
)
BREACH = Finding("ttft_p95", "", Verdict.FAIL, "p95 3.1 times the baseline's, proved", 3.1, 2.2, 4.4, 2.0, 8.4, 6.8, 96)

TALLIES = {
    "1|baseline|domain|assigned": "90",
    "1|baseline|domain|done": "88",
    "1|candidate|domain|assigned": "10",
    "1|candidate|domain|done": "10",
    "1|candidate|general|done": "4",
    "1|candidate|general|timeout": "1",
    "1|candidate|general|completion_tokens": "96",
}


def entry(
    seconds: float, what: str, after: str, generation: int, why: str, *, who: str = "controller"
) -> dict[str, str]:
    """One audit entry as a stream keeps it: text only."""
    return {
        "id": f"{T0 + round(1000 * seconds)}-0",
        "who": who,
        "what": what,
        "why": why,
        "before": "",
        "after": after,
        "generation": str(generation),
        "unix_ms": str(T0 + round(1000 * seconds)),
        "model": "mathdocs",
        "release": "mathdocs-adapted",
        "attempt": "1",
    }


AUDIT = (
    entry(0, "start", "draft 0 %", 1, "the demo's first release", who="ann@host"),
    entry(1, "advance", "preflight 0 %", 2, "engines are warm"),
    entry(42, "advance", "shadow 0 %", 3, "gates passed"),
    entry(66, "advance", "canary 10 %", 4, "34 of 30 pairs"),
    entry(75, "advance", "canary 50 %", 5, "8 s and 5 samples"),
    entry(96, "advance", "bake 95 %", 6, "evidence is in"),
    entry(109, "advance", "promoted 100 %", 8, "evidence is in"),
)


def promoted() -> dict[str, Any]:
    """A release that went well, every figure measured."""
    return {
        "model": "mathdocs",
        "release": json.loads(RELEASE.to_json()),
        "audit": list(AUDIT),
        "findings": [json.loads(json.dumps(asdict(finding))) for finding in FINDINGS],
        "reports": {"load": LOAD, "eval": EVALUATION},
        "tallies": TALLIES,
        "spend_usd": 0.0688,
    }


def rolled_back() -> dict[str, Any]:
    """A release that a guardrail took back in mid-canary, without an evaluation."""
    state = replace(
        RELEASE,
        phase=Phase.ROLLED_BACK,
        shares=(0.0, 10.0, 50.0, 0.0),
        generation=6,
        reason="ttft_p95 is fail: p95 3.1 times the baseline's, proved",
        breach_ms=T0 + 88_000,
        decided_ms=T0 + 88_012,
    )
    ending = (
        entry(88.012, "rollback", "rolled_back 0 %", 6, "ttft_p95 is fail: p95 3.1 times the baseline's, proved"),
        {
            **entry(88.061, "acknowledged", "rolled_back 0 %", 6, "2 live workers; breach to decision 12 ms"),
            "evidence": json.dumps({"acknowledged_ms": T0 + 88_061, "workers": 2}),
        },
    )
    return {
        **promoted(),
        "release": json.loads(state.to_json()),
        "audit": [*AUDIT[:5], *ending],
        "findings": [json.loads(json.dumps(asdict(finding))) for finding in (*FINDINGS[2:], BREACH)],
        "reports": {"load": LOAD},
    }
