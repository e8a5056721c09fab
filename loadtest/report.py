"""The load report: every figure from the run, every formula said (pure)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loadtest.capacity import capacity
from loadtest.gates import Limits, cost_ratio, faults, judge
from loadtest.records import Job, Record, Trace

FORMULAS = {
    "times": "from when a request was due (absolute schedule), not from when it was sent; connecting is included",
    "ttft": "first content chunk - due, ms",
    "tpot": "(e2e - ttft) / (completion_tokens - 1), ms; requests with fewer than 2 tokens have none",
    "e2e": "end of the answer - due, ms",
    "p50, p95, p99": "nearest rank: the smallest value with that share of requests at or below it; "
    "a failed request counts as infinite, so null means that too many failed",
    "failed": "answers without finish_reason, usage or [DONE], with an error, or of another arm than the one forced",
    "lag_p99_ms": "how late the client sent, nearest rank",
    "asked": "arrivals of the schedule / duration, 1/s (the rate, rounded to whole arrivals)",
    "achieved": "requests sent / time it took to send them, 1/s",
    "seconds": "from the beginning of the measurement to the last answer's end, at least the duration",
    "throughput_tokens_per_s": "completion tokens of good answers / seconds: what was served at this rate, not what "
    "the arm could serve",
    "goodput": "good answers within every limit of the SLO / arrivals, as a share",
    "capacity": "after the schedule, a closed loop: in_flight users, each sending its next request as soon as its last "
    "one has ended. Each user's first request is the ramp, and is left out; the seconds are from the end of the last "
    "of the ramp to the end of the run, and only requests that ended in them count",
    "capacity.requests, failed": "requests that ended in those seconds, and the failed ones among them",
    "capacity.tokens_per_s": "prompt and completion tokens of good answers / capacity.seconds",
    "capacity.completion_tokens_per_s, requests_per_s": "completion tokens, good answers / capacity.seconds",
    "usd_per_million_tokens": "bill cost at capacity: usd_per_hour x capacity.seconds / 3600 / "
    "capacity.completion_tokens x 10^6 (completion tokens only; prompts are paid for by them); "
    "usd_per_hour is of the whole arm. Of an arm paid by the token: capacity's tokens at the spec's "
    "usd_per_million_tokens / capacity.completion_tokens x 10^6",
    "price": "USD per request, prompt token, completion token: non-negative least squares of e2e on "
    "(1, prompt tokens, completion tokens) over the good answers of capacity, scaled to sum to the bill of its "
    "seconds; of an arm paid by the token, the spec's",
    "cost_ratio": "candidate's usd_per_million_tokens / baseline's: both at their own capacity",
    "cpu_share": "CPU seconds of the load test's process / seconds, of the schedule and of the saturation run each",
    "warm-up": "arrivals before the measurement began are sent and left out",
}

_QUANTILES = {"p50": 0.50, "p95": 0.95, "p99": 0.99}
_TOP_ERRORS = 5


@dataclass(frozen=True, slots=True)
class Run:
    """What one arm's run left behind. `usd_per_hour` is what the whole arm costs, all replicas.

    `rates` are USD a million prompt and completion tokens of an arm that is paid by them.
    """

    job: Job
    scheduled: Trace
    saturated: Trace
    engine: str
    digest: str
    usd_per_hour: float
    rates: tuple[float, float] | None = None


def figures(run: Run, limits: Limits) -> dict[str, Any]:
    """Work out one arm's figures from its records (see FORMULAS)."""
    job, client = run.job, run.scheduled.client
    records = [record for record in run.scheduled.records if record.at >= 0]
    sent = [record for record in records if record.sent]
    good = [record for record in sent if record.ok]
    duration = job.duration or 0.0
    seconds = max([duration, *(record.at + (record.e2e_ms or 0.0) / 1000 for record in sent)])
    sending = max([duration, *(record.at + record.lag_ms / 1000 for record in sent)])
    tokens = sum(record.tokens for record in good)
    busy = capacity(job.saturation, run.saturated)
    found: dict[str, Any] = {
        "arm": job.arm,
        "engine": run.engine,
        "digest": run.digest,
        "records": job.out,
        "rate": job.rate,
        "asked": _per(len(records), duration),
        "achieved": _per(len(sent), sending),
        "lag_p99_ms": quantile([record.lag_ms for record in sent], 0.99),
        "cpu_share": round(client.cpu_share, 4),
        "cpu_ms_per_request": round(client.cpu_ms_per_request, 3),
        "in_flight": job.in_flight,
        "sent": len(sent),
        "unsent": len(records) - len(sent),
        "ok": len(good),
        "failed": len(sent) - len(good),
        "errors": dict(Counter(record.error for record in sent if not record.ok).most_common(_TOP_ERRORS)),
        **{name: _quantiles(sent, f"{name}_ms") for name in ("ttft", "tpot", "e2e")},
        "seconds": round(seconds, 3),
        "throughput_tokens_per_s": _per(tokens, seconds),
        "prompt_tokens": sum(record.prompt_tokens for record in good),
        "completion_tokens": tokens,
        "cached_tokens": sum(record.cached_tokens for record in good),
        "goodput": _per(sum(_within(record, limits) for record in good), len(records)),
        "usd_per_hour": run.usd_per_hour,
        "capacity": busy.figures(),
        **busy.cost(run.usd_per_hour, run.rates),
    }
    reasons = faults(found, limits)
    return found | {"valid": not reasons, "invalid_reasons": list(reasons)}


def report(
    model: str, workload: str, runs: Mapping[str, Run], limits: Limits, *, digest: str, created_ms: int
) -> dict[str, Any]:
    """Put the arms' figures, their verdict and its reasons together; plain values for JSON."""
    arms = {arm: figures(run, limits) for arm, run in runs.items()}
    judgement = judge(arms, limits)
    return {
        "kind": "load",
        "model": model,
        "digest": digest,
        "created_ms": created_ms,
        "workload": workload,
        "arms": arms,
        "slo": dict(limits.slo),
        "limits": {
            "max_usd_per_million_tokens": limits.max_usd_per_million_tokens,
            "max_cost_ratio": limits.max_cost_ratio,
            "max_lag_p99_ms": limits.max_lag_p99_ms,
            "min_achieved": limits.min_achieved,
            "max_cpu": limits.max_cpu,
        },
        "cost_ratio": cost_ratio(arms),
        "verdict": judgement.verdict.value,
        "reasons": list(judgement.reasons),
        "formulas": FORMULAS,
    }


def quantile(values: Sequence[float], share: float) -> float | None:
    """Return the smallest value with `share` of all at or below it; None for none, or where it is infinite."""
    if not values:
        return None
    # The rounding keeps 0.95 x 20 from becoming the 20th value instead of the 19th.
    value = sorted(values)[max(math.ceil(round(share * len(values), 9)) - 1, 0)]
    return value if math.isfinite(value) else None


def _quantiles(sent: Sequence[Record], name: str) -> dict[str, float | None]:
    values = [getattr(record, name) if record.ok else math.inf for record in sent]
    known = [value for value in values if value is not None]
    return {quantile_name: quantile(known, share) for quantile_name, share in _QUANTILES.items()}


def _within(record: Record, limits: Limits) -> bool:
    """Tell whether one answer keeps every limit that is set on its kind of time."""
    times = ((getattr(record, f"{name.partition('_')[0]}_ms"), limit) for name, limit in limits.slo.items())
    return all(value is None or value <= limit for value, limit in times)


def _per(amount: float, of: float) -> float:
    return round(amount / of, 4) if of else 0.0
