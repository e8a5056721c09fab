"""What was measured of a candidate, in JSON: the types of `linnet loadtest`, `eval` and `report` with `--json`."""

from __future__ import annotations

from typing import Any, Literal

from canary.evaluate import SliceResult
from canary.report.comparison import Advice, Budget, Count, Mirrored, Moment, Threshold
from canary.shapes.release import Guard, Number, Phase, Shape

Measured = Literal["pass", "fail", "invalid"]


class Quantiles(Shape):
    """Milliseconds; null where too many requests failed."""

    p50: Number
    p95: Number
    p99: Number


class Capacity(Shape):
    """What an arm served when it was kept busy."""

    in_flight: int
    seconds: float
    requests: int
    failed: int
    prompt_tokens: int
    completion_tokens: int
    tokens_per_s: float
    completion_tokens_per_s: float
    requests_per_s: float
    cpu_share: float


class Main(Shape):
    """An arm's main figures; rates in requests a second."""

    arm: str
    rate: float
    achieved: float
    lag_p99_ms: Number
    ttft: Quantiles
    tpot: Quantiles
    e2e: Quantiles
    goodput: Number
    capacity: Capacity
    usd_per_million_tokens: Number
    valid: bool


class LoadedArm(Main):
    """One arm under load; `price` in USD a request, prompt token and completion token."""

    engine: str
    digest: str
    records: str
    asked: float
    cpu_share: float
    cpu_ms_per_request: float
    in_flight: int
    sent: int
    unsent: int
    ok: int
    failed: int
    errors: dict[str, int]
    seconds: float
    throughput_tokens_per_s: float
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    usd_per_hour: float
    price: list[float] | None
    invalid_reasons: list[str]


class LoadLimits(Shape):
    """What was asked of the candidate and of the client."""

    max_usd_per_million_tokens: Number
    max_cost_ratio: Number
    max_lag_p99_ms: float
    min_achieved: float
    max_cpu: float


class LoadReport(Shape):
    """The load gate's report as it is kept; `formulas` says how each figure is made, `slo` is in ms."""

    kind: Literal["load"]
    model: str
    digest: str
    created_ms: int
    workload: str
    arms: dict[str, LoadedArm]
    slo: dict[str, float]
    limits: LoadLimits
    cost_ratio: Number
    verdict: Measured
    reasons: list[str]
    formulas: dict[str, str]


class LoadTest(LoadReport, Main):
    """The load gate's report with the judged arm's main figures on top."""


class Demanded(Shape):
    """What the card demands, as differences of accuracy; null demands nothing."""

    min_gain: dict[str, float]
    max_general_loss: Number


class Method(Shape):
    """How the intervals were made."""

    metric: str
    resamples: int
    seed: int


class Evaluation(Shape):
    """The evaluation gate's report."""

    kind: Literal["eval"]
    model: str
    digest: str
    baseline_digest: str
    created_ms: int
    passages: int
    slices: dict[str, SliceResult]
    thresholds: Demanded
    method: Method
    verdict: Measured
    reasons: list[str]


class WayBack(Shape):
    """How the release was taken back: ms from the breach to the decision and to the last worker's word."""

    reason: str
    who: str
    breach_ms: Number
    decision_ms: Number
    acknowledged_ms: Number
    workers: int


class Comparison(Shape):
    """The comparison report; null is what was not measured, `missing` names it. `card` is the spec's."""

    model: str
    release: str
    attempt: int | None
    generation: int | None
    phase: Phase | Literal["none"]
    made_ms: float
    recommendation: Advice
    reasons: list[str]
    thresholds: list[Threshold]
    guards: list[Guard]
    load: LoadReport | None
    evaluation: Evaluation | None
    timeline: list[Moment]
    rollback: WayBack | None
    budget: Budget
    counts: list[Count]
    shadow: list[Mirrored]
    digests: dict[str, str]
    card: dict[str, Any]
    sources: list[tuple[str, str]]
    missing: list[str]
    files: list[str]
