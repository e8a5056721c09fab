"""What an answer costs: its price, and the bill that the prices of a run add up to (pure).

Two different things, never mixed. The *bill cost* divides the hardware's bill by the tokens of a run. It tells engines
apart only at capacity: at a rate that each of them can serve, all serve the same tokens in the same paid time. The
*calibrated cost* prices each request from its usage with a price fitted at one operating point (`serving.fit`), so that
few requests can already be compared. Nothing here needs numpy: every gateway worker prices answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from serving.errors import ServingError
from serving.wire import Usage

_PER_MILLION: Final = 1_000_000
SECONDS_PER_HOUR: Final = 3600


class CostError(ServingError):
    """A run from which no cost can be worked out."""


@dataclass(frozen=True, slots=True)
class Price:
    """What one request is charged, in USD; none of the three is negative."""

    usd_per_request: float
    usd_per_prompt_token: float
    usd_per_completion_token: float

    def of(self, usage: Usage) -> float:
        """Return the calibrated cost of one request in USD."""
        return cost_of(self.to_tuple(), usage)

    def to_tuple(self) -> tuple[float, float, float]:
        """Return (per request, per prompt token, per completion token)."""
        return self.usd_per_request, self.usd_per_prompt_token, self.usd_per_completion_token

    @classmethod
    def from_tuple(cls, value: Sequence[float]) -> Price:
        """Read what `to_tuple` gave, lists from JSON too. Raises ValueError or TypeError on anything else."""
        request, prompt, completion = value
        return cls(float(request), float(prompt), float(completion))


def cost_of(price: tuple[float, float, float], usage: Usage) -> float:
    """Return the calibrated cost in USD of one request at (USD per request, per prompt token, per completion token)."""
    request, prompt, completion = price
    return float(request) + prompt * usage.prompt_tokens + completion * usage.completion_tokens


def bill_usd_per_million_tokens(usd_per_hour: float, tokens: int, seconds: float) -> float:
    """Return the bill cost, USD/h x hours / tokens x 10^6; `usd_per_hour` is of all replicas.

    Raises CostError without tokens.
    """
    if tokens <= 0 or not seconds > 0:
        raise CostError(f"no cost per token from {tokens} tokens in {seconds:g} s; run the load test longer")
    return usd_per_hour * seconds / SECONDS_PER_HOUR / tokens * _PER_MILLION
