"""A price fitted from a load test: the bill of a run, shared among its requests (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from serving.cost import SECONDS_PER_HOUR, CostError, Price

_TIE = 1e-9  # relative: a richer model must explain more than rounding does
_REQUEST, _PROMPT, _COMPLETION = 0, 1, 2
_COLUMNS = (_COMPLETION, _PROMPT, _REQUEST)  # tokens first: of two equal explanations, tokens are charged
_SUPPORTS = tuple(subset for size in (1, 2, 3) for subset in combinations(_COLUMNS, size))


@dataclass(frozen=True, slots=True)
class Sample:
    """One good answer of a load test; `e2e` in seconds."""

    prompt_tokens: int
    completion_tokens: int
    e2e: float


def fit(samples: Sequence[Sample], usd_per_hour: float, seconds: float) -> Price:
    """Share the bill of a run among its requests by how long each kind of work kept the engine.

    Non-negative least squares of e2e on (1, prompt tokens, completion tokens) (Lawson and Hanson, Solving Least Squares
    Problems, 1974, chapter 23; three columns are few enough to try every support), then scaled so that the prices of
    the samples sum to the bill, usd_per_hour x seconds / 3600. `seconds` is the time the samples were served in.

    Limits: e2e holds queueing and batching, so the price is of this operating point and hardware only; the split among
    the three is as good as the workload varies (where lengths are collinear, tokens are charged before requests,
    completion tokens before prompt tokens); cached prompt tokens are charged like others. Raises CostError where
    nothing can be fitted.
    """
    if not samples or not usd_per_hour >= 0 or not seconds > 0:
        run = f"{len(samples)} good answers in {seconds:g} s at {usd_per_hour:g} USD/h"
        raise CostError(f"no price from {run}; run the load test longer")
    work = np.array([(1.0, s.prompt_tokens, s.completion_tokens) for s in samples])
    share = _non_negative(work, np.array([s.e2e for s in samples], dtype=float))
    total = float((work @ share).sum())
    if not total > 0 or not np.isfinite(total):
        raise CostError("no price from answers that took no time; the samples are not of a real run")
    request, prompt, completion = (share * (usd_per_hour * seconds / SECONDS_PER_HOUR / total)).tolist()
    return Price(request, prompt, completion)


def _non_negative(work: NDArray[np.float64], time: NDArray[np.float64]) -> NDArray[np.float64]:
    """Solve least squares under x >= 0: its optimum is the unconstrained one on some support, so try them all."""
    best, least = np.zeros(3), float(time @ time)
    for support in _SUPPORTS:
        columns = work[:, support]
        found, *_ = np.linalg.lstsq(columns, time, rcond=None)
        misses = float(np.square(columns @ found - time).sum())
        if (found >= 0).all() and misses < least - _TIE * float(time @ time):
            best, least = np.zeros(3), misses
            best[list(support)] = found
    return best
