"""What a forecast rests on: the traffic that is expected, what is assumed of the baseline, each guardrail's case."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from canary.core.location import Belief
from canary.core.noise import most_noise
from canary.core.policy import Guard, Policy
from canary.core.signals import SIGNALS, Signal


@dataclass(frozen=True, slots=True)
class Baseline:
    """What is assumed of the baseline.

    Rates in 0..1; `_sd` of a latency is the standard deviation of the log of one request's, `ttft_s` and `tpot_s` are
    medians in seconds; `cost_sd` and `length_sd` are standard deviations of a request's cost and answer length over
    their means; `pair_sd` that of the difference of two paired scores; `answer_s` the seconds that an answer takes.
    """

    error_rate: float = 0.005
    refusal: float = 0.01
    empty: float = 0.01
    truncated: float = 0.01
    malformed: float = 0.005
    repetition: float = 0.005
    ttft_s: float = 0.3
    ttft_sd: float = 0.5
    tpot_s: float = 0.02
    tpot_sd: float = 0.2
    stall_sd: float = 0.5
    e2e_sd: float = 0.6
    cost_sd: float = 0.5
    length_sd: float = 0.6
    pair_sd: float = 0.25
    answer_s: float = 2.0


@dataclass(frozen=True, slots=True)
class Traffic:
    """What comes and who answers: requests a second, each slice's part in 0..1, replicas an arm, a control's (0: none).

    A *reference* tells of the machines' own noise: `beliefs`, by latency, are what a real one says; `reference` is how
    many seconds of one that shows no noise are supposed where there is none. `pairs` is how many shadow pairs a second
    can be scored at most.
    """

    rps: float
    slices: Mapping[str, float]
    replicas: int = 1
    control: int = 0
    reference: float = 0.0
    beliefs: Mapping[str, Belief] = field(default_factory=dict)
    pairs: float = math.inf

    def of(self, slice_: str) -> float:
        """Return the requests a second of one slice; "" is all traffic, a slice without a part has none."""
        return self.rps * (self.slices.get(slice_, 0.0) if slice_ else 1.0)

    @property
    def paced(self) -> int:
        """The replicas that the candidate's latency is compared with."""
        return self.control or self.replicas


@dataclass(frozen=True, slots=True)
class Stretch:
    """Seconds at one share: the candidate's probability in 0..1, and scored shadow pairs for each request."""

    share: float
    pairs: float
    seconds: float

    @property
    def random(self) -> bool:
        """True while chance divides the traffic."""
        return 0 < self.share < 1


@dataclass(frozen=True, slots=True)
class Case:
    """One guardrail on one slice: its requests a second, its threshold (a log), what is assumed.

    `effect` is how much worse the candidate is where it is to fail, in the margin's unit.
    """

    guard: Guard
    slice: str
    rate: float
    effect: float
    policy: Policy
    threshold: float
    baseline: Baseline
    traffic: Traffic

    @property
    def signal(self) -> Signal:
        """The row of the table of signals."""
        return SIGNALS[self.guard.name]

    @property
    def latency(self) -> str:
        """The histogram it reads, "" if it reads none."""
        name, limit, _ = self.guard.name.partition("_limit")
        tail = SIGNALS[name].tail if limit else self.signal.tail
        return tail.histogram if tail else ""

    @property
    def sd(self) -> float:
        """The standard deviation of the log of one request's latency."""
        return float(getattr(self.baseline, f"{self.latency}_sd")) if self.latency else math.nan

    @property
    def most_noise(self) -> float:
        """The largest noise of the difference of both arms, log units; 0 where none is assumed."""
        lag, traffic = self.signal.lag, self.traffic
        return most_noise(self.policy.noise[lag.histogram], traffic.replicas, traffic.paced) if lag else 0.0

    @property
    def located(self) -> bool:
        """Whether it reads the latency as a whole too."""
        return self.guard.name in self.policy.locating

    def parts(self, stretch: Stretch) -> tuple[float, float]:
        """Return the parts of the traffic that are compared: the candidate's, and the control's or else the rest."""
        rest = 1 - stretch.share
        return stretch.share, min(stretch.share, rest) if self.latency and self.traffic.control else rest

    def matched(self, stretch: Stretch) -> bool:
        """Tell whether the arms have about as many requests in flight a replica; only then a latency passes."""
        if not (self.latency and self.signal.unit == "ratio" and stretch.random):
            return True
        candidate, baseline = self.parts(stretch)
        load = candidate / self.traffic.replicas / (baseline / self.traffic.paced)
        return 1 / self.policy.max_load_ratio <= load <= self.policy.max_load_ratio


def cases(policy: Policy, traffic: Traffic, baseline: Baseline, times: float = 2.0) -> tuple[Case, ...]:
    """Return a case for each guardrail and slice; a candidate that is to fail is worse by `times` the margin."""
    weights = policy.weights()
    return tuple(
        Case(
            guard,
            slice_,
            traffic.of(slice_),
            effect_of(guard, times),
            policy,
            policy.threshold(weights[guard.name, slice_]),
            baseline,
            traffic,
        )
        for guard in policy.guards
        for slice_ in guard.slices
    )


def effect_of(guard: Guard, times: float) -> float:
    """Return `times` the margin, in its unit.

    0.5 pp twice is 1 pp, a ratio of 1.1 twice is 1.2, -0.02 twice -0.04, a limit of 2 % twice 4 %, 800 ms twice 1.6 s.
    """
    unit = SIGNALS[guard.name].unit
    if unit == "ratio":
        return 1 + times * abs(guard.margin - 1)
    return times * guard.margin if unit == "seconds" else max(-1.0, min(1.0, times * guard.margin))
