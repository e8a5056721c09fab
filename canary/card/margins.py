"""The guardrails of a release spec, each with its margin, and how sure they must be."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from canary.card.parts import Part
from canary.card.units import Duration, Name, Points, Rate, Ratio
from canary.core.finding import OnBreach
from canary.core.signals import NOISE

Slices = Annotated[tuple[Name, ...], Field(strict=False, min_length=1)]
Breach = Annotated[OnBreach, Field(strict=False)]
Weight = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Noise = Annotated[float, Field(ge=0, le=2)]


class GuardSpec(Part):
    """One guardrail, on all traffic or on named slices.

    `weight` is its part of the evidence beside the others'; `strict` lets any proved harm fail, however small.
    """

    slices: Slices | None = None
    on_breach: Breach = OnBreach.ROLLBACK
    weight: Weight | None = None
    strict: bool = False

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


class Advice(Growth):
    """A quantity that only advises unless it is given a weight."""

    on_breach: Breach = OnBreach.WARN


class Band(GuardSpec):
    """A quantity may neither grow to this multiple of the baseline's nor shrink to its inverse."""

    max_ratio: Annotated[float, Field(gt=1, allow_inf_nan=False)]

    @property
    def margin(self) -> float:
        """A ratio: 1.25 is a quarter more, or as much less."""
        return self.max_ratio


class RateLimit(GuardSpec):
    """A share of requests that nobody may exceed, whatever the baseline does."""

    max: Rate

    @property
    def margin(self) -> float:
        """A rate in 0..1."""
        return self.max


class TimeLimit(GuardSpec):
    """A time that nobody may exceed, whatever the baseline does."""

    max: Annotated[Duration, Field(gt=0)]

    @property
    def margin(self) -> float:
        """Seconds."""
        return self.max


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
    refusal: Increase | None = None
    malformed: Increase | None = None
    repetition: Increase | None = None
    ttft_p95: Growth | None = None
    ttft_p99: Growth | None = None
    tpot_p95: Growth | None = None
    stall_p99: Growth | None = None
    e2e_p95: Advice | None = None
    output_length: Band | None = None
    cost_per_token: Growth | None = None
    cost_per_request: Growth | None = None
    shadow_quality: Loss | None = None
    error_rate_limit: RateLimit | None = None
    ttft_p95_limit: TimeLimit | None = None
    ttft_p99_limit: TimeLimit | None = None
    tpot_p95_limit: TimeLimit | None = None

    def named(self) -> dict[str, GuardSpec]:
        """Return the guardrails given, by name."""
        found = ((name, getattr(self, name)) for name in type(self).model_fields)
        return {name: guard for name, guard in found if guard is not None}


class NoiseSpec(Part):
    """The largest slow noise of one replica's own that is assumed: standard deviations of the log; 0 is none."""

    ttft: Noise = NOISE["ttft"]
    tpot: Noise = NOISE["tpot"]


class Analysis(Part):
    """How sure the guardrails must be, and what is assumed of the machines; see docs/guardrails.md."""

    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.01
    beta: Annotated[float, Field(gt=0, lt=1)] = 0.05
    min_samples: Annotated[int, Field(gt=0)] | None = None
    own_noise: NoiseSpec = NoiseSpec()
    warm_up: Duration = 60.0
    max_load_ratio: Annotated[float, Field(gt=1, allow_inf_nan=False)] = 4.0
