"""The parts of a release spec: the decision card, the arms, the gates, the steps. Strict throughout."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from canary.card.units import Duration, Name, Percent, Ratio, Text, Usd
from canary.core.plan import MAX_ROLLBACK_S, AtEnd

METRIC = "_accuracy"  # SLICE_accuracy is what the evaluation of that slice measures
Limit = Annotated[Duration, Field(gt=0)] | None
End = Annotated[AtEnd, Field(strict=False)]
Texts = Annotated[tuple[Text, ...], Field(strict=False, min_length=1)]
Urls = Annotated[tuple[Annotated[str, Field(pattern=r"^https?://[^\s/]+$")], ...], Field(strict=False)]


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


class TokenRates(Part):
    """US dollars a million tokens, of prompts and of completions."""

    prompt: Usd
    completion: Usd


class ArmSpec(Part):
    """An engine by name; replicas and digest come from the running stack unless given here.

    It is paid by the hour or by the token.
    """

    engine: Name
    served_model: Text
    quantization: Text | None = None
    usd_per_hour: Usd = 0.0
    usd_per_million_tokens: TokenRates | None = None
    replicas: Urls = ()
    digest: Text | None = None

    @property
    def rates(self) -> tuple[float, float] | None:
        """Return USD a million prompt and completion tokens, None where hours are paid."""
        rates = self.usd_per_million_tokens
        return None if rates is None else (rates.prompt, rates.completion)


class ControlSpec(Part):
    """The baseline's model on replicas of its own: an engine by name, or where it is served.

    `usd_per_hour` is for machines that are there for the release alone.
    """

    engine: Name | None = None
    served_model: Text | None = None
    usd_per_hour: Usd = 0.0
    replicas: Urls = ()
    digest: Text | None = None


class Arms(Part):
    """Who is compared; the control is a part of the baseline that is loaded as the candidate is."""

    baseline: ArmSpec
    candidate: ArmSpec
    control: ControlSpec | None = None

    @property
    def control_arm(self) -> ArmSpec | None:
        """Return the control as an arm: the baseline's model, and an engine name of its own."""
        control, base = self.control, self.baseline
        if control is None:
            return None
        served_model = control.served_model or base.served_model
        engine = control.engine or f"{base.engine}-control"
        return ArmSpec(engine=engine, served_model=served_model, replicas=control.replicas, digest=control.digest)


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


class PreflightSpec(Part):
    """What must be seen before anybody is exposed: how fast a rehearsed rollback is, and room on the baseline."""

    max_rollback: Annotated[Duration, Field(gt=0)] = MAX_ROLLBACK_S
    known_capacity: bool = False


class ShadowSpec(Part):
    """Mirror a share of the baseline's requests and compare the answers."""

    percent: Annotated[Percent, Field(gt=0)]
    min_pairs: Annotated[int, Field(gt=0)] = 200
    max_concurrency: Annotated[int, Field(gt=0)] = 4
    min_duration: Duration = 0.0
    max_duration: Limit = None


class StepSpec(Part):
    """One share of traffic, with how long and how much evidence at least, and what if it takes too long."""

    percent: Annotated[Percent, Field(gt=0)]
    min_duration: Duration = 0.0
    min_samples: Annotated[int, Field(ge=0)] = 0
    gate: Literal["auto", "manual"] = "auto"
    ramp: Duration = 0.0
    max_duration: Limit = None
    on_timeout: End | None = None
    on_inconclusive: End | None = None


class BakeSpec(Part):
    """The last watch, with the rest of the traffic on the old baseline."""

    duration: Duration = 1800.0
    percent: Annotated[Percent, Field(gt=0)] = 95.0
    min_samples: Annotated[int, Field(ge=0)] = 0
    ramp: Duration = 0.0
    max_duration: Limit = None


class Window(Part):
    """While it is open, nothing advances."""

    start: Annotated[AwareDatetime, Field(alias="from")]
    end: Annotated[AwareDatetime, Field(alias="to")]
    reason: Text = "freeze window"

    def open_at(self, moment: datetime) -> bool:
        """Tell whether `moment` (with a time zone) lies within."""
        return self.start <= moment < self.end
