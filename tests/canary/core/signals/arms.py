"""Sums of arms for the tests of signals."""

from __future__ import annotations

from typing import Any

from canary.core.signals import SIGNALS, Reading, Sight, StageView
from canary.core.tails import Memory
from canary.core.tally import Tally


def arm(done: int, **counts: int) -> Tally:
    """An arm with `done` completed requests and other counts."""
    return Tally({"done": done, "ok": done, **counts})


def priced(n: int, usd: float, tokens: int = 100) -> Tally:
    """An arm of n requests at one price, each its own unit."""
    sums = {
        "sum.cost": n * usd,
        "sum.cost2": n * usd * usd * 1.01,
        "sum.tokens": float(n * tokens),
        "sum.tokens2": float(n * tokens * tokens),
        "sum.cost_tokens": n * usd * tokens,
    }
    return Tally({"done": n, "ok": n, "priced": n}, sums)


def histogram(name: str, cells: dict[int, int]) -> Tally:
    """An arm with one histogram."""
    n = sum(cells.values())
    return Tally({"done": n, "ok": n, **{f"{name}.{bucket}": k for bucket, k in cells.items()}})


def read(name: str, *views: StageView, margin: float, memory: Memory | None = None, **sight: Any) -> Reading:
    """Read one signal, as the one that tests its latency's location."""
    return SIGNALS[name].read(Sight(views, margin, memory or Memory(), **{"located": True, **sight}))
