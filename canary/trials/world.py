"""What a story is made of: the traffic and its load, how the candidate is worse, which share it has for how long."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import ndtri

from canary.trials.recording import Recording, Usual

START = 1_800_000_000.0  # Unix seconds, a block's beginning
FLAWS = ("refusal", "malformed", "repetition")


@dataclass(frozen=True, slots=True)
class Traffic:
    """What comes, and how the baseline answers it. Rates in 0..1; `_sd` are standard deviations of the log.

    `rate` in requests a second; `load_sd` and `load_tau` (seconds) of a load that slows both arms alike.
    """

    rate: float = 20.0
    error: float = 0.005
    empty: float = 0.005
    truncated: float = 0.02
    ttft_s: float = 0.3
    ttft_sd: float = 0.5
    tpot_s: float = 0.02
    tpot_sd: float = 0.2
    cost_usd: float = 2e-4
    cost_sd: float = 0.5
    pairs_per_s: float = 1.0
    pair_sd: float = 0.25
    load_sd: float = 0.3
    load_tau: float = 120.0
    refusal: float = 0.005
    malformed: float = 0.005
    repetition: float = 0.005
    stall_s: float = 0.06
    stall_sd: float = 0.5

    def usual(self) -> Usual:
        """Return how the baseline is as a whole: its latencies are lognormal."""
        sd = math.hypot(self.ttft_sd, self.load_sd)
        p95, p99 = (float(ndtri(q)) for q in (0.95, 0.99))
        ttft_p95, ttft_p99 = (self.ttft_s * math.exp(z * sd) for z in (p95, p99))
        tpot_p95 = self.tpot_s * math.exp(p95 * self.tpot_sd)
        return Usual(self.error, self.empty, self.truncated, ttft_p95, ttft_p99, tpot_p95)


@dataclass(frozen=True, slots=True)
class Harm:
    """How the candidate is worse: factors of latency and cost, what is added to a rate, what is taken from a score.

    `stall` is a factor of TTFT for the part `stalled` of its requests, `gap` one of the longest wait within an answer,
    `length` one of its tokens.
    """

    ttft: float = 1.0
    tpot: float = 1.0
    cost: float = 1.0
    error: float = 0.0
    quality: float = 0.0
    stall: float = 1.0
    stalled: float = 0.0
    refusal: float = 0.0
    malformed: float = 0.0
    repetition: float = 0.0
    empty: float = 0.0
    truncated: float = 0.0
    gap: float = 1.0
    length: float = 1.0


@dataclass(frozen=True, slots=True)
class OwnNoise:
    """Slow noise of a machine's own, an Ornstein-Uhlenbeck process of the log latency; `both` arms have one, or one."""

    ttft_sd: float = 0.0
    tpot_sd: float = 0.0
    tau: float = 60.0
    both: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """A share of the traffic in 0..1 for some seconds, while so many times as much arrives, and slower."""

    share: float
    seconds: int
    load: float = 1.0


@dataclass(frozen=True, slots=True)
class World:
    """One story to be told again and again.

    With a `recording`, arrivals and answers are its own, and `traffic` says only what no log has (scores, texts). For
    `warm_up` seconds latency and cost do not count. With a `control` a part of the baseline's requests, as large as the
    candidate's or all that is left, is the control's.
    """

    steps: Sequence[Step]
    traffic: Traffic = Traffic()
    harm: Harm = Harm()
    noise: OwnNoise = OwnNoise()
    recording: Recording | None = None
    warm_up: float = 0.0
    control: bool = False

    @property
    def seconds(self) -> int:
        """How long it lasts."""
        return sum(step.seconds for step in self.steps)

    def usual(self) -> Usual:
        """Return how the baseline is."""
        return self.traffic.usual() if self.recording is None else self.recording.usual
