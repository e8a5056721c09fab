"""The table of signals: each guardrail's weight in the family, the unit of its margin, and how it is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from canary.core.signals.latency import Lag, read_latency, read_tail
from canary.core.signals.limits import read_quantile_limit, read_rate_limit
from canary.core.signals.means import COST_PER_REQUEST, COST_PER_TOKEN, OUTPUT_LENGTH, read_mean
from canary.core.signals.pairs import read_pairs
from canary.core.signals.rates import kind, read_rate
from canary.core.signals.sight import Reading, Sight
from canary.core.tails import Tail

NOISE: Mapping[str, float] = {"ttft": 0.18, "tpot": 0.10}  # the most of one replica's own that is assumed


@dataclass(frozen=True, slots=True)
class Signal:
    """A row of the table: its weight in the family, the unit of its margin, and how it is read.

    A weight of 0 is advice: it stands beside the family. Units: a difference of rates (`rate`) or of scores
    (`difference`), candidate over baseline (`ratio`), a largest rate (`limit`), seconds (`seconds`).
    """

    weight: float
    unit: str
    read: Callable[[Sight], Reading]
    tail: Tail | None = None
    lag: Lag | None = None


_TTFT95, _TTFT99, _TPOT95 = Tail("ttft", 0.95), Tail("ttft", 0.99), Tail("tpot", 0.95)
_STALL99, _E2E95 = Tail("stall", 0.99), Tail("e2e", 0.95)
# A step of the engine serves every request at once, so a token's time moves as a whole: 1.10 of the 95 % quantile, in
# which machines' noise has its part, is 1.05 of the whole.
_TTFT, _TPOT = Lag("ttft", 10.0, 0.15 / 0.19), Lag("tpot", 30.0, 0.15 / 0.18, power=0.5)
_HALF = 0.5  # of their weight, where no guardrail above them tests the location of their latency
_FAILED = kind("error", "timeout", again="failed_again")


def _rate(weight: float, name: str) -> Signal:
    return Signal(weight, "rate", partial(read_rate, kind(name)))


def _latency(weight: float, tail: Tail, lag: Lag) -> Signal:
    return Signal(weight, "ratio", partial(read_latency, tail, lag), tail, lag)


def _limit(tail: Tail) -> Signal:
    return Signal(0.05, "seconds", partial(read_quantile_limit, tail))


SIGNALS: Mapping[str, Signal] = {
    "error_rate": Signal(0.15, "rate", partial(read_rate, _FAILED)),
    "refusal": _rate(0.05, "refusal"),
    "empty": _rate(0.05, "empty"),
    "truncated": _rate(0.05, "truncated"),
    "malformed": _rate(0.05, "malformed"),
    "repetition": _rate(0.05, "repetition"),
    "ttft_p95": _latency(0.19, _TTFT95, _TTFT),
    "ttft_p99": _latency(0.03, _TTFT99, replace(_TTFT, part=_HALF)),
    "tpot_p95": _latency(0.18, _TPOT95, _TPOT),
    "stall_p99": _latency(0.03, _STALL99, replace(_TPOT, part=_HALF)),
    "e2e_p95": Signal(0.0, "ratio", partial(read_tail, _E2E95), _E2E95),
    "cost_per_token": Signal(0.10, "ratio", partial(read_mean, COST_PER_TOKEN)),
    "cost_per_request": Signal(0.05, "ratio", partial(read_mean, COST_PER_REQUEST)),
    "output_length": Signal(0.05, "ratio", partial(read_mean, OUTPUT_LENGTH)),
    "shadow_quality": Signal(0.15, "difference", read_pairs),
    "error_rate_limit": Signal(0.05, "limit", partial(read_rate_limit, _FAILED)),
    "ttft_p95_limit": _limit(_TTFT95),
    "ttft_p99_limit": _limit(_TTFT99),
    "tpot_p95_limit": _limit(_TPOT95),
}
