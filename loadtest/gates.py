"""What a run proves: pass, fail, or nothing at all (pure).

A run is *invalid* when the client, not the engine, may have made its figures. A failed request misses every limit, so
that dropping traffic cannot look good.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

Figures = Mapping[str, Any]

_ROUNDS = 2  # good answers of each user that a saturation run needs, at least
_MAX_FAILED = 0.05  # share of requests, where the limits name no percentile that would show it


class Verdict(StrEnum):
    """What a load test says."""

    PASS = "pass"  # noqa: S105 - a verdict, not a password
    FAIL = "fail"
    INVALID = "invalid"


@dataclass(frozen=True, slots=True)
class Limits:
    """What is asked of the candidate, and of the client.

    `slo` maps "ttft_p95" and its kin to milliseconds. `max_lag_p99_ms`, `min_achieved` (share of the arrivals asked for
    that were sent in their time) and `max_cpu` (share of one core) tell whether the client kept up.
    """

    slo: Mapping[str, float] = field(default_factory=dict)
    max_usd_per_million_tokens: float | None = None
    max_cost_ratio: float | None = None
    max_lag_p99_ms: float = 20.0
    min_achieved: float = 0.98
    max_cpu: float = 0.9


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict and its reasons, numbers included."""

    verdict: Verdict
    reasons: tuple[str, ...]


def faults(figures: Figures, limits: Limits) -> tuple[str, ...]:
    """Return why a run proves nothing; empty if it is valid."""
    lag, cpu, unsent = figures["lag_p99_ms"], figures["cpu_share"], figures["unsent"]
    asked, achieved, busy = figures["asked"], figures["achieved"], figures["capacity"]
    good, enough = busy["requests"] - busy["failed"], max(_ROUNDS * busy["in_flight"], 1)
    checks = (
        (figures["sent"] == 0, "no request was sent; raise the rate or the duration"),
        (unsent > 0, f"{unsent} requests were not sent: in-flight limit ({figures['in_flight']}) reached"),
        (lag is not None and lag > limits.max_lag_p99_ms, f"lag p99 {lag} ms > {limits.max_lag_p99_ms:g} ms"),
        (
            achieved < limits.min_achieved * asked,
            f"achieved {achieved:.3g}/s < {limits.min_achieved:.0%} of the {asked:.3g}/s asked",
        ),
        (cpu > limits.max_cpu, f"the client used {cpu:.0%} of its core > {limits.max_cpu:.0%}"),
        # An arm that answered nothing well in the schedule has failed, and needs no price to say so.
        (
            good < enough and figures["ok"] > 0,
            f"saturation: {good} good answers in {busy['seconds']:g} s < {enough}; raise its duration (gates.load)",
        ),
        (
            busy["cpu_share"] > limits.max_cpu,
            f"saturation: the client used {busy['cpu_share']:.0%} of its core > {limits.max_cpu:.0%}",
        ),
    )
    return tuple(reason for failed, reason in checks if failed)


def judge(arms: Mapping[str, Figures], limits: Limits) -> Judgement:
    """Judge the candidate, or the only arm that ran, against the limits; invalid if any run proves nothing."""
    invalid = tuple(f"{arm}: {reason}" for arm, figures in arms.items() for reason in figures["invalid_reasons"])
    ratio = cost_ratio(arms)
    if limits.max_cost_ratio is not None and ratio is None and not _broken(arms):
        invalid += ("max_cost_ratio needs the cost of both arms; run --arm both, and give usd_per_hour for each",)
    if invalid:
        return Judgement(Verdict.INVALID, invalid)
    arm = judged(arms)
    figures = arms[arm]
    found = [*_latency(figures, limits), *_failed(figures), *_cost(figures, limits), *_ratio(ratio, limits)]
    missed = tuple(f"{arm}: {reason}" for passed, reason in found if not passed)
    kept = tuple(f"{arm}: {reason}" for passed, reason in found if passed)
    return Judgement(Verdict.FAIL, missed) if missed else Judgement(Verdict.PASS, kept)


def judged(arms: Mapping[str, Figures]) -> str:
    """Name the arm that is judged: the candidate wherever it ran."""
    return "candidate" if "candidate" in arms else next(iter(arms))


def cost_ratio(arms: Mapping[str, Figures]) -> float | None:
    """Return the candidate's bill cost per token over the baseline's; None unless both are known and not zero."""
    costs = [arms.get(arm, {}).get("usd_per_million_tokens") for arm in ("candidate", "baseline")]
    return costs[0] / costs[1] if costs[0] is not None and costs[1] else None


def _broken(arms: Mapping[str, Figures]) -> bool:
    """Tell whether the judged arm has no cost because nothing it answered was good: that is a failure, and known."""
    return bool(arms[judged(arms)]["ok"] == 0)


def _latency(figures: Figures, limits: Limits) -> list[tuple[bool, str]]:
    return [_one_latency(figures, name, limit) for name, limit in limits.slo.items()]


def _one_latency(figures: Figures, name: str, limit: float) -> tuple[bool, str]:
    what, _, quantile = name.partition("_")
    value = figures[what][quantile]
    if value is None:
        return False, f"{name}: none, {figures['failed']} of {figures['sent']} requests failed (limit {limit:g} ms)"
    passed = value <= limit
    return passed, f"{name} {value:g} ms {'<=' if passed else '>'} {limit:g} ms"


def _failed(figures: Figures) -> list[tuple[bool, str]]:
    failed, sent = figures["failed"], figures["sent"]
    passed = failed <= _MAX_FAILED * sent
    return [(passed, f"failed {failed} of {sent} requests {'<=' if passed else '>'} {_MAX_FAILED:.0%}")]


def _cost(figures: Figures, limits: Limits) -> list[tuple[bool, str]]:
    limit, value = limits.max_usd_per_million_tokens, figures["usd_per_million_tokens"]
    if limit is None:
        return []
    if value is None:
        return [(False, f"no good answer, so no cost per token (limit {limit:g} USD per million)")]
    passed = value <= limit
    return [(passed, f"{value:.4g} USD per million tokens {'<=' if passed else '>'} {limit:g}")]


def _ratio(ratio: float | None, limits: Limits) -> list[tuple[bool, str]]:
    limit = limits.max_cost_ratio
    if limit is None or ratio is None:
        return []
    passed = ratio <= limit
    return [(passed, f"cost ratio {ratio:.4g} {'<=' if passed else '>'} {limit:g}")]
