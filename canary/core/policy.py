"""What the guardrails of a release are held to: margins, weights, and how sure one must be."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from canary.core.finding import OnBreach
from canary.core.signals import NOISE, SIGNALS

FAMILY_SHARE = 0.85  # of alpha; the rest is the tripwire's and the location tests'
_MARGINS = {
    "rate": (0.0, 1.0),
    "difference": (-1.0, 1.0),
    "ratio": (0.0, math.inf),
    "limit": (0.0, 1.0),
    "seconds": (0.0, math.inf),
}

Key = tuple[str, str]  # guardrail, slice


class GuardError(ValueError):
    """A policy that cannot be held."""


@dataclass(frozen=True, slots=True)
class Guard:
    """One guardrail of the spec.

    `margin` is what is allowed: a difference (error_rate 0.005 = 0.5 pp; shadow_quality -0.02) or a ratio of candidate
    to baseline (1.10). The slice "" is all traffic. `weight` is its part of the family's evidence beside the others',
    None for the usual one; `strict` lets any proved harm fail, however small, and leaves the margin to PASS. Raises
    GuardError on an unknown name or an impossible margin.
    """

    name: str
    margin: float
    slices: tuple[str, ...] = ("",)
    on_breach: OnBreach = OnBreach.ROLLBACK
    weight: float | None = None
    strict: bool = False

    def __post_init__(self) -> None:
        if self.name not in SIGNALS:
            raise GuardError(f"guardrail {self.name!r} is unknown; choose from {', '.join(SIGNALS)}")
        low, high = _MARGINS[SIGNALS[self.name].unit]
        if not low < self.margin < high:
            raise GuardError(f"guardrail {self.name}: margin {self.margin} must lie between {low:g} and {high:g}")
        if not self.slices or len(set(self.slices)) < len(self.slices):
            raise GuardError(f"guardrail {self.name}: name each slice once, '' for all traffic")
        if self.name == "output_length" and self.margin <= 1:
            raise GuardError(
                f"guardrail {self.name}: margin {self.margin} allows nothing; write more than 1, such as 1.25"
            )
        if self.weight is not None and not 0 < self.weight < math.inf:
            raise GuardError(f"guardrail {self.name}: weight {self.weight} must be above 0")
        if self.on_breach is OnBreach.ROLLBACK and not self.share:
            raise GuardError(f"guardrail {self.name} is advice and has no weight; give it one, or on_breach: warn")

    @property
    def share(self) -> float:
        """Its part of the family's evidence, beside the others'."""
        return SIGNALS[self.name].weight if self.weight is None else self.weight

    @property
    def keys(self) -> tuple[Key, ...]:
        """One key per slice."""
        return tuple((self.name, slice_) for slice_ in self.slices)


@dataclass(frozen=True, slots=True)
class Policy:
    """What the guardrails of a release are held to.

    `alpha` bounds the chance of rolling back a candidate that is no worse, over the whole release; `beta` that of
    passing a guardrail that is at its margin. `min_samples` are requests an arm and `min_pairs` shadow pairs before a
    PASS; FAIL needs none. `stages` is the number of shares planned, for harm that begins late. `noise` is the largest
    slow noise of one replica's own that is assumed (standard deviation of the log), by latency: "ttft", "tpot". Arms
    whose requests in flight a replica differ by more than `max_load_ratio` are not load-matched: no latency passes.
    """

    guards: tuple[Guard, ...]
    alpha: float = 0.01
    beta: float = 0.05
    min_samples: int = 200
    min_pairs: int = 30
    stages: int = 4
    noise: Mapping[str, float] = field(default_factory=lambda: dict(NOISE))
    max_load_ratio: float = 4.0

    def __post_init__(self) -> None:
        names = [guard.name for guard in self.guards]
        if len(set(names)) < len(names):
            raise GuardError("a guardrail is named twice; give it one entry with all its slices")
        if not (0 < self.alpha < 1 and 0 < self.beta < 1):
            raise GuardError("alpha and beta are probabilities between 0 and 1")
        if set(self.noise) != set(NOISE) or not all(0 <= noise < math.inf for noise in self.noise.values()):
            raise GuardError(f"own noise is one number from 0 on for each of {', '.join(NOISE)}")
        if not self.max_load_ratio >= 1:
            raise GuardError(f"a load ratio of at most {self.max_load_ratio} is never met; write 1 or more")

    @property
    def log_bar(self) -> float:
        """ln(1/alpha_E): what the family as a whole must reach."""
        return -math.log(FAMILY_SHARE * self.alpha)

    @property
    def log_pass(self) -> float:
        """ln(1/beta)."""
        return -math.log(self.beta)

    def weights(self) -> dict[Key, float]:
        """Return each key's weight; those named sum to 1, and what was left out goes to them in proportion."""
        total = sum(guard.share for guard in self.guards) or 1.0
        return {key: guard.share / total / len(guard.slices) for guard in self.guards for key in guard.keys}

    @property
    def locating(self) -> frozenset[str]:
        """The guardrails that test the location of a latency: of those that could, the first in the table."""
        named = {guard.name for guard in self.guards}
        found: dict[str, str] = {}
        for name, signal in SIGNALS.items():
            if name in named and signal.lag is not None:
                found.setdefault(signal.lag.histogram, name)
        return frozenset(found.values())

    def threshold(self, weight: float) -> float:
        """Return ln E at which a guardrail of that weight fails by itself; one beside the family stands alone."""
        return self.log_bar - (math.log(weight) if weight else 0.0)
