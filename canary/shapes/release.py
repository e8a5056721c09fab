"""What a release looks like in JSON: the types of `linnet status --json` and of the verbs that print the same."""

from __future__ import annotations

from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict

Number: TypeAlias = float | None
Phase = Literal["draft", "preflight", "shadow", "canary", "bake", "promoted", "rolled_back", "aborted", "superseded"]
Verdict = Literal["pass", "fail", "inconclusive", "unknown"]


class Shape(BaseModel):
    """An object of which every field is told."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Shares(Shape):
    """Each arm's share of the requests, 0..1; null before the first."""

    baseline: Number
    candidate: Number


class Guard(Shape):
    """One guardrail's verdict with its numbers; `estimate` to `margin` are in the guardrail's unit.

    It fails once `evidence` (log of an e-value) reaches `threshold` with the estimate beyond the margin, and passes
    once `passing` reaches `pass_threshold` with the estimate within. `n` counts the candidate's requests or pairs.
    """

    guardrail: str
    slice: str
    verdict: Verdict
    estimate: Number
    low: Number
    high: Number
    margin: Number
    evidence: Number
    threshold: Number
    passing: Number
    pass_threshold: Number
    n: int
    reason: str
    on_breach: Literal["rollback", "pause", "warn"]


class Finding(Guard):
    """A guardrail's verdict as the status names it."""

    name: str


class Overlays(Shape):
    """Each with its reason; empty where it is off."""

    paused: str
    held: str
    frozen: str


class Workers(Shape):
    """Gateway workers: how many live, how many route by this generation, and who does not yet."""

    live: int
    acknowledged: int
    behind: list[str]


class Happening(Shape):
    """An entry of the attempt's story; `phase` and `percent` are after it."""

    unix_ms: int
    what: str
    phase: str
    percent: Number
    why: str
    actor: str
    generation: int


class ToGo(Shape):
    """What the place still needs, at least."""

    seconds: float = 0.0
    samples: int = 0
    pairs: int = 0


class Law(Shape):
    """Slow noise: standard deviation of the log, and seconds that it lasts."""

    sd: float
    tau_s: float


class Reference(Shape):
    """What is known of one latency's machines: `tells` once it is long enough, `outside` if noisier than assumed."""

    source: str
    replicas: list[int]
    seconds: float
    age_s: float
    tells: bool
    likeliest: Law
    largest: Law
    outside: bool


class Load(Shape):
    """How an arm is loaded: requests in flight a replica, finished a second, part of prompt tokens cached (0..1)."""

    in_flight: Number
    per_second: Number
    cached: Number
    replicas: int


class Rollback(Shape):
    """How long the way back took, ms; null times are not known yet."""

    breach_ms: int
    decided_ms: int
    acknowledged_ms: int
    breach_to_decision_ms: int
    breach_to_acknowledged_ms: int
    workers: int


class Spend(Shape):
    """US dollars, by part."""

    before: float
    engines: float
    tokens: float
    load_tests: float


class Tokens(Shape):
    """How many, by kind."""

    prompt: int
    completion: int


class ShadowTokens(Shape):
    """What the shadow has asked of each arm in this attempt, whether its tokens are paid for or its hours."""

    baseline: Tokens
    candidate: Tokens


class Ramp(Shape):
    """On the way to a share: `to` in percent, in so many parts more."""

    to: float
    parts_left: int


class Prices(Shape):
    """US dollars a million completion tokens, by arm: measured at capacity; of this attempt's live answers."""

    bill: dict[str, float]
    calibrated: dict[str, float]


class Status(Shape):
    """A release; `watch` prints one on each line, and every verb that changes a release prints the new one."""

    model: str
    release: str
    attempt: int
    phase: Phase
    step: int
    steps: list[float]
    stage: int
    percent: float
    shadow_percent: float
    generation: int
    desired: Shares
    actual: Shares
    baseline: str
    candidate: str
    digest: str
    overlays: Overlays
    workers: Workers
    guardrails: list[Finding]
    reference: dict[str, Reference | None]
    load: dict[str, Load]
    spend_usd: float
    spend: Spend
    shadow_tokens: ShadowTokens
    budget_usd: float
    stop_loss_usd: float
    usd_per_million_tokens: Prices
    to_go: ToGo
    waiting: str
    obstacle: str
    looked_ms: int | None
    result: str
    reason: str
    warnings: list[str]
    rehearsal_ms: Number
    ramp: Ramp | None
    breach_ms: int
    decided_ms: int
    rollback: Rollback | None
    timeline: list[Happening]


class Explained(Finding):
    """A finding, and what would change its verdict."""

    mends: list[str]


class Explanation(Shape):
    """Why, and what comes next."""

    model: str
    release: str
    phase: Phase
    overlays: Overlays
    reason: str
    reference: dict[str, Reference | None]
    load: dict[str, Load]
    guardrails: list[Explained]
    next: str
