"""Ratios of means: what a token or a request costs, and how long answers are.

Requests of one sticky unit are alike, so their spread tells too little. They are summed up by group of units (a unit's
group is drawn by its hash), and a group stands where otherwise a request does: whatever ties the requests of a unit
together, the spread between groups has it (random groups: Wolter, Introduction to Variance Estimation, ch. 2).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from canary.core import bounds, ratios
from canary.core.ratios import Sums
from canary.core.signals.sight import UNTOLD, Z95, Reading, Sight, StageView, short, trouble
from canary.core.tally import GROUP_COST_GRID, Tally


@dataclass(frozen=True, slots=True)
class Mean:
    """A ratio of sums whose means are compared, and its words: what is `counted`, `what` those are, an arm's own mean.

    `ways`: whether more of it is worse (+1), or more and less (+1, -1).
    """

    summed: Callable[[Tally], Sums]
    counted: str
    what: str
    told: Callable[[Tally], str]
    ways: tuple[int, ...] = (+1,)

    def stages(self, views: Sequence[StageView]) -> list[tuple[Sums, Sums]]:
        """Return both arms' sums by stage."""
        return [(view.candidate.told(self.summed), view.baseline.told(self.summed)) for view in views]

    def furthest(self, log_ratio: float) -> float:
        """Return how much worse a ratio is, as a logarithm."""
        return max(way * log_ratio for way in self.ways)

    def late(self, view: StageView) -> tuple[float, str]:
        """Return a stage's own difference, for `Sight.beyond`."""
        found = ratios.log_ratio(self.stages([view]))
        if found is None:
            return UNTOLD
        return self.furthest(found.estimate) - Z95 * found.error, f"x{math.exp(found.estimate):.3f}"

    def allowed(self, worse: float, margin: float) -> str:
        """Say how a log ratio that is so much worse lies to its margin."""
        outside = worse > math.log(margin)
        if len(self.ways) == 1:
            return f"{'>' if outside else '<='} x{margin:.3g} allowed"
        return f"{'beyond' if outside else 'within'} x{1 / margin:.3g}..x{margin:.3g} allowed"


def read_mean(mean: Mean, sight: Sight) -> Reading:
    """Read a ratio of means; the margin is a ratio, and with both ways 1.25 is neither 25 % more nor 1/1.25.

    Evidence for FAIL is the average of the ways, for PASS the smallest.
    """
    candidate, baseline = sight.sums
    n_c, n_b = candidate.count(mean.counted), baseline.count(mean.counted)
    if unknown := trouble(candidate, baseline) or _unpriced(mean, candidate, baseline):
        return Reading(unknown=unknown, n=n_c)
    stages = mean.stages(sight.random)
    pooled = ratios.log_ratio(stages)
    if pooled is None:
        needed = max(ratios.MIN_UNITS, sight.min_samples)
        return Reading(missing=f"needs {needed} {mean.what} an arm, has {n_c} and {n_b}", n=n_c)
    worse = mean.furthest(pooled.estimate)
    beyond, since = sight.beyond(math.log(sight.margin), worse, mean.late)
    failing = (partial(ratios.log_e_ratio, sign=way) for way in mean.ways)
    ratio = math.exp(pooled.estimate)
    return Reading(
        facts=f"{mean.told(candidate)} against {mean.told(baseline)}, x{ratio:.3f} "
        f"{mean.allowed(worse, sight.margin)}{since}",
        missing=short(n_c, n_b, sight.min_samples, mean.what),
        n=n_c,
        estimate=ratio,
        low=math.exp(pooled.estimate - Z95 * pooled.error),
        high=math.exp(pooled.estimate + Z95 * pooled.error),
        margin=sight.margin,
        worse=beyond or worse > 0,
        beyond=beyond,
        fail=_average([bounds.with_restarts(process, stages, sight.planned_stages) for process in failing]),
        passing=min(ratios.log_e_ratio(stages, sight.margin**way, sign=-way) for way in mean.ways),
    )


def _average(logs: Sequence[float]) -> float:
    return bounds.log_sum(logs, [1 / len(logs)] * len(logs))


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


def _unpriced(mean: Mean, candidate: Tally, baseline: Tally) -> str:
    """An arm without a price has no cost; half an arm's requests priced is a price that came or went in between."""
    for name, arm in (("candidate", candidate), ("baseline", baseline)):
        if mean.counted == "priced" and arm.count("ok") - arm.count("cold") > 0 and arm.count("priced") == 0:
            return f"the {name}'s answers have no price; run the load test first"
    return ""


def _token_price(arm: Tally) -> str:
    return f"{1e6 * arm.total('sum.cost') / max(1.0, arm.total('sum.tokens')):.3g} USD a million tokens"


def _request_price(arm: Tally) -> str:
    return f"{1000 * arm.total('sum.cost') / max(1, arm.count('priced')):.3g} USD a thousand requests"


def _length(arm: Tally) -> str:
    return f"{arm.total('sum.length') / max(1, arm.count('lengths')):.4g} tokens an answer"


COST_PER_TOKEN = Mean(_per_token, "priced", "priced requests", _token_price)  # calibrated: prompt and completion
COST_PER_REQUEST = Mean(_per_request, "priced", "priced requests", _request_price)
OUTPUT_LENGTH = Mean(_lengths, "lengths", "answers with a length", _length, ways=(+1, -1))
