"""The parts of a release spec: the decision card, the arms, the gates, the steps, the guardrails. Strict throughout."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from canary.core.finding import OnBreach
from canary.units import Duration, Name, Percent, Points, Ratio, Text, Usd

Texts = Annotated[tuple[Text, ...], Field(strict=False, min_length=1)]
Slices = Annotated[tuple[Name, ...], Field(strict=False, min_length=1)]
Breach = Annotated[OnBreach, Field(strict=False)]


class Part(BaseModel):
    """Unknown keys are errors, and nothing is guessed from a value of another type."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True)


class Goal(Part):
    """What is to become better, and by which metric it is told."""

    metric: Text
    text: Text


class Data(Part):
    """What the candidate was made from."""

    sources: Texts
    licence: Text
    known_bias: Text


class Budget(Part):
    """US dollars; crossing the stop loss ends the release."""

    usd: Usd
    stop_loss_usd: Usd
    spent_before_usd: Usd = 0.0
    opportunity: Text
    risk: Text


class Threshold(Part):
    """What the goal's metric must gain."""

    min_gain: float


class Decision(Part):
    """The decision card: eight fields, all of them required."""

    goal: Goal
    baseline: Text
    data: Data
    budget: Budget
    risks: Texts
    evaluation: Annotated[dict[Name, Text], Field(min_length=1)]
    success: Annotated[dict[Name, Threshold], Field(min_length=1)]
    rollback: Text


class ArmSpec(Part):
    """An engine by name; replicas and digest come from the running stack unless given here."""

    engine: Name
    served_model: Text
    quantization: Text | None = None
    usd_per_hour: Usd = 0.0
    replicas: Annotated[tuple[Annotated[str, Field(pattern=r"^https?://[^\s/]+$")], ...], Field(strict=False)] = ()
    digest: Text | None = None


class Arms(Part):
    """Who is compared."""

    baseline: ArmSpec
    candidate: ArmSpec


class SaturationSpec(Part):
    """How the cost is measured: `in_flight` users, each asking again as soon as it is answered, for `duration`."""

    in_flight: Annotated[int, Field(gt=0)] = 8
    duration: Annotated[Duration, Field(gt=0)] = 8.0


class LoadGate(Part):
    """What the load test asks of the candidate, and how it is run (rate in requests a second).

    Latency and goodput are judged at `rate`; the cost of a token is measured at capacity, by `saturation`.
    """

    workload: Text
    rate: Ratio = 4.0
    duration: Duration = 20.0
    saturation: SaturationSpec = SaturationSpec()
    max_tokens: Annotated[int, Field(gt=0)] = 24
    slo: dict[Annotated[str, Field(pattern=r"^(ttft|tpot|e2e)_p(50|95|99)$")], Duration] = {}
    max_usd_per_million_tokens: Ratio | None = None
    max_cost_ratio: Ratio | None = None
    max_lag_p99: Duration = 0.02


class EvalGate(Part):
    """What the offline evaluation asks: passages a slice, and how much the general slice may lose."""

    passages: Annotated[int, Field(gt=0)] = 60
    max_general_loss: Annotated[float, Field(ge=0)] = 0.02


class Gates(Part):
    """Reports that preflight waits for."""

    load: LoadGate
    eval: EvalGate | None = None


class ShadowSpec(Part):
    """Mirror a share of the baseline's requests and compare the answers."""

    percent: Annotated[Percent, Field(gt=0)]
    min_pairs: Annotated[int, Field(gt=0)] = 200
    max_concurrency: Annotated[int, Field(gt=0)] = 4
    min_duration: Duration = 0.0


class StepSpec(Part):
    """One share of traffic, with how long and how much evidence at least."""

    percent: Annotated[Percent, Field(gt=0)]
    min_duration: Duration = 0.0
    min_samples: Annotated[int, Field(ge=0)] = 0
    gate: Literal["auto", "manual"] = "auto"


class BakeSpec(Part):
    """The last watch, with the rest of the traffic on the old baseline."""

    duration: Duration = 1800.0
    percent: Annotated[Percent, Field(gt=0)] = 95.0
    min_samples: Annotated[int, Field(ge=0)] = 0


class GuardSpec(Part):
    """One guardrail, on all traffic or on named slices."""

    slices: Slices | None = None
    on_breach: Breach = OnBreach.ROLLBACK

    @property
    def margin(self) -> float:
        """Return what is allowed, as the statistics take it."""
        raise TypeError(f"{type(self).__name__} has no margin")


class Increase(GuardSpec):
    """A share of requests may grow by so many percentage points."""

    max_increase: Points

    @property
    def margin(self) -> float:
        """A difference: 0.005 is 0.5 percentage points."""
        return self.max_increase


class Growth(GuardSpec):
    """A quantity may grow to this multiple of the baseline's."""

    max_ratio: Ratio

    @property
    def margin(self) -> float:
        """A ratio: 1.10 is ten percent more."""
        return self.max_ratio


class Loss(GuardSpec):
    """A score may fall by so much."""

    min_difference: Annotated[float, Field(gt=-1, lt=0)]

    @property
    def margin(self) -> float:
        """A difference: -0.02 is two hundredths less."""
        return self.min_difference


class Guardrails(Part):
    """What stops a release by itself."""

    error_rate: Increase | None = None
    empty: Increase | None = None
    truncated: Increase | None = None
    ttft_p95: Growth | None = None
    ttft_p99: Growth | None = None
    tpot_p95: Growth | None = None
    cost_per_token: Growth | None = None
    cost_per_request: Growth | None = None
    shadow_quality: Loss | None = None

    def named(self) -> dict[str, GuardSpec]:
        """Return the guardrails given, by name."""
        found = ((name, getattr(self, name)) for name in type(self).model_fields)
        return {name: guard for name, guard in found if guard is not None}


class Analysis(Part):
    """How sure the guardrails must be; see docs/guardrails.md."""

    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.01
    beta: Annotated[float, Field(gt=0, lt=1)] = 0.05
    min_samples: Annotated[int, Field(gt=0)] | None = None


class Window(Part):
    """While it is open, nothing advances."""

    start: Annotated[AwareDatetime, Field(alias="from")]
    end: Annotated[AwareDatetime, Field(alias="to")]
    reason: Text = "freeze window"

    def open_at(self, moment: datetime) -> bool:
        """Tell whether `moment` (with a time zone) lies within."""
        return self.start <= moment < self.end
