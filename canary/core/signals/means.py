"""Ratios of means: what a token or a request costs, and how long answers are.

Requests of one sticky unit are alike, so their spread tells too little. They are summed up by group of units (a unit's
group is drawn by its hash), and a group stands where otherwise a request does: whatever ties the requests of a unit
together, the spread between groups has it (random groups: Wolter, Introduction to Variance Estimation, ch. 2).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from canary.core import bounds
from canary.core.bounds import LogRatio, Sums
from canary.core.signals.sight import Z95, Reading, Sight, short, trouble
from canary.core.tally import GROUP_COST_GRID, Tally

Summed = Callable[[Tally], Sums]


def read_cost(per: str, sight: Sight) -> Reading:
    """Read the calibrated cost per token (prompt and completion) or per request; the margin is a ratio."""
    candidate, baseline = sight.sums
    n_c, n_b = candidate.count("priced"), baseline.count("priced")
    if unknown := trouble(candidate, baseline) or _unpriced(candidate, baseline):
        return Reading(unknown=unknown, n=n_c)
    stages, pooled = _pooled(_COSTS[per], sight)
    if pooled is None:
        needed = max(bounds.MIN_UNITS, sight.min_samples)
        return Reading(missing=f"needs {needed} priced requests an arm, has {n_c} and {n_b}", n=n_c)
    ratio = math.exp(pooled.estimate)
    beyond = ratio > sight.margin
    return Reading(
        facts=f"{_price(candidate, per)} against {_price(baseline, per)}, x{ratio:.3f} {'>' if beyond else '<='} "
        f"x{sight.margin:.3g} allowed",
        missing=short(n_c, n_b, sight.min_samples, "priced requests"),
        n=n_c,
        estimate=ratio,
        low=math.exp(pooled.estimate - Z95 * pooled.error),
        high=math.exp(pooled.estimate + Z95 * pooled.error),
        margin=sight.margin,
        worse=ratio > 1,
        beyond=beyond,
        fail=bounds.with_restarts(partial(bounds.log_e_ratio, sign=+1), stages, sight.planned_stages),
        passing=bounds.log_e_ratio(stages, sight.margin, sign=-1),
    )


def read_length(sight: Sight) -> Reading:
    """Read completion tokens an answer; the margin is a ratio both ways: 1.25 is neither 25 % longer nor 1/1.25.

    Evidence for FAIL is the average of longer and shorter, for PASS the smaller of both.
    """
    candidate, baseline = sight.sums
    n_c, n_b = candidate.count("lengths"), baseline.count("lengths")
    if unknown := trouble(candidate, baseline):
        return Reading(unknown=unknown, n=n_c)
    stages, pooled = _pooled(_lengths, sight)
    if pooled is None:
        needed = max(bounds.MIN_UNITS, sight.min_samples)
        return Reading(missing=f"needs {needed} answers with a length an arm, has {n_c} and {n_b}", n=n_c)
    ratio, both = math.exp(pooled.estimate), (+1, -1)
    beyond = abs(pooled.estimate) > math.log(sight.margin)
    ways = [bounds.with_restarts(partial(bounds.log_e_ratio, sign=sign), stages, sight.planned_stages) for sign in both]
    return Reading(
        facts=f"{_length(candidate):.4g} against {_length(baseline):.4g} tokens an answer, x{ratio:.3f} "
        f"{'beyond' if beyond else 'within'} x{1 / sight.margin:.3g}..x{sight.margin:.3g} allowed",
        missing=short(n_c, n_b, sight.min_samples, "answers with a length"),
        n=n_c,
        estimate=ratio,
        low=math.exp(pooled.estimate - Z95 * pooled.error),
        high=math.exp(pooled.estimate + Z95 * pooled.error),
        margin=sight.margin,
        worse=ratio != 1,
        beyond=beyond,
        fail=bounds.log_sum(ways, [0.5, 0.5]),
        passing=min(bounds.log_e_ratio(stages, sight.margin**sign, sign=-sign) for sign in both),
    )


def _pooled(summed: Summed, sight: Sight) -> tuple[list[tuple[Sums, Sums]], LogRatio | None]:
    stages = [(summed(view.candidate), summed(view.baseline)) for view in sight.random]
    return stages, bounds.log_ratio(stages)


def _per_token(arm: Tally) -> Sums:
    cost, tokens = _groups(arm, "cost_of", GROUP_COST_GRID), _groups(arm, "tokens_of")
    return Sums(
        _independent(arm, "priced", "answers_of"),
        arm.total("sum.cost"),
        arm.total("sum.tokens"),
        arm.total("sum.cost2") + math.fsum(x * x for x in cost.values()),
        arm.total("sum.tokens2") + math.fsum(y * y for y in tokens.values()),
        arm.total("sum.cost_tokens") + math.fsum(x * tokens.get(group, 0.0) for group, x in cost.items()),
        _paired(cost, tokens),
        arm.count("priced"),
    )


def _per_request(arm: Tally) -> Sums:
    return _a_request(arm, ("sum.cost", "priced"), ("cost_of", "answers_of"), GROUP_COST_GRID)


def _lengths(arm: Tally) -> Sums:
    return _a_request(arm, ("sum.length", "lengths"), ("length_of", "lengths_of"))


def _a_request(arm: Tally, whole: tuple[str, str], grouped: tuple[str, str], grid: float = 1.0) -> Sums:
    """Return the sums of something a request: the names of its total and of the requests, and those by group."""
    total, counted = whole
    x, n = _groups(arm, grouped[0], grid), _groups(arm, grouped[1])
    alone = arm.count(counted) - math.fsum(n.values())
    return Sums(
        _independent(arm, counted, grouped[1]),
        arm.total(total),
        float(arm.count(counted)),
        arm.total(f"{total}2") + math.fsum(value * value for value in x.values()),
        alone + math.fsum(value * value for value in n.values()),
        arm.total(total) - math.fsum(x.values()) + math.fsum(value * n.get(group, 0.0) for group, value in x.items()),
        _paired(x, n),
        arm.count(counted),
    )


def _independent(arm: Tally, counted: str, counted_of: str) -> int:
    """Return how many independent terms the sums have: requests that stand for themselves, and groups of units."""
    groups = arm.histogram(counted_of)
    return arm.count(counted) - sum(groups.values()) + len(groups)


def _paired(x: dict[int, float], y: dict[int, float]) -> dict[int, tuple[float, float]]:
    return {group: (x.get(group, 0.0), value) for group, value in y.items()}


def _groups(arm: Tally, name: str, grid: float = 1.0) -> dict[int, float]:
    return {group: value / grid for group, value in arm.histogram(name).items()}


_COSTS: dict[str, Summed] = {"token": _per_token, "request": _per_request}


def _unpriced(candidate: Tally, baseline: Tally) -> str:
    """An arm without a price has no cost; half an arm's requests priced is a price that came or went in between."""
    for name, arm in (("candidate", candidate), ("baseline", baseline)):
        if arm.count("ok") - arm.count("cold") > 0 and arm.count("priced") == 0:
            return f"the {name}'s answers have no price; run the load test first"
    return ""


def _price(arm: Tally, per: str) -> str:
    if per == "request":
        return f"{1000 * arm.total('sum.cost') / max(1, arm.count('priced')):.3g} USD a thousand requests"
    return f"{1e6 * arm.total('sum.cost') / max(1.0, arm.total('sum.tokens')):.3g} USD a million tokens"


def _length(arm: Tally) -> float:
    return arm.total("sum.length") / max(1, arm.count("lengths"))
