"""What each guardrail reads out of the tallies: an estimate with its numbers, and evidence both ways.

A signal turns the stages of one slice into a `Reading`; `SIGNALS` is the table of them all, with each one's weight in
the family. Intervals are ordinary 95 % ones, for the eye only; decisions rest on the evidence.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from canary.core import bounds, location
from canary.core.bounds import Events, Sums
from canary.core.location import Belief, Course
from canary.core.tails import Memory, Tail, margin_ratio
from canary.core.tally import Tally, merged
from canary.core.tally import seconds as bucket_seconds

NOISE: Mapping[str, float] = {"ttft": 0.18, "tpot": 0.10}  # the most of one replica's own that is assumed
Z95 = 1.96
UNUSABLE_SHARE = 0.01  # of an arm's reports; above it the measurements are not to be trusted
FAILED_PAIRS_SHARE = 0.2  # what could not be compared is not a random part
_NO_MEMORY = Memory()


@dataclass(frozen=True, slots=True)
class StageView:
    """One stage as one guardrail sees it: the candidate's share in 0..1, and both arms' sums of the slice."""

    stage: int
    share: float
    candidate: Tally
    baseline: Tally

    @property
    def random(self) -> bool:
        """True while chance divides the traffic: only then do the arms compare."""
        return 0 < self.share < 1


@dataclass(frozen=True, slots=True)
class Reading:
    """What one signal says now. `unknown` and `missing` are reasons in words; `fail` and `passing` are log e-values.

    `estimate`, `low`, `high` and `margin` share the signal's unit; `beyond` tells whether the estimate is worse than
    the margin; `facts` is the sentence's first half.
    """

    unknown: str = ""
    missing: str = ""
    facts: str = ""
    n: int = 0
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    margin: float | None = None
    beyond: bool = False
    fail: float = 0.0
    passing: float = 0.0


@dataclass(frozen=True, slots=True)
class Sight:
    """Everything a signal may look at: the stages, the margin, what was remembered, and what is asked of the data."""

    stages: Sequence[StageView]
    margin: float
    memory: Memory = _NO_MEMORY
    min_samples: int = 0
    min_pairs: int = 0
    planned_stages: int = 1
    course: Course | None = None
    arms: tuple[Tally, Tally] | None = None  # the sums of candidate and baseline over the random stages, if known

    @property
    def random(self) -> list[StageView]:
        """The stages in which chance divided the traffic, first to last."""
        return [view for view in self.stages if view.random]


@dataclass(frozen=True, slots=True)
class Lag:
    """A latency whose location is tested: its histogram, and how its blocks close.

    `spread` is the largest noise of one replica's own that is assumed (standard deviation of the log), `grace_s` how
    long a block's reports may still come, `part` the location's part of the guardrail's weight.
    """

    histogram: str
    spread: float
    grace_s: float
    part: float


@dataclass(frozen=True, slots=True)
class Signal:
    """A row of the table: its weight in the family, the unit of its margin, and how it is read."""

    weight: float
    unit: str  # of the margin. rate: a difference of rates; difference: of scores; ratio: candidate over baseline
    read: Callable[[Sight], Reading]
    tail: Tail | None = None
    lag: Lag | None = None


def read_rate(events: Sequence[str], sight: Sight) -> Reading:
    """Read a rate of events among completed requests; the margin is a difference of rates, 0.005 = 0.5 pp."""
    views = sight.random
    candidate, baseline = _arms(sight)
    n_c, n_b = candidate.count("done"), baseline.count("done")
    if trouble := _trouble(candidate, baseline, "done"):
        return Reading(unknown=trouble, n=n_c)
    k_c, k_b = candidate.count(*events), baseline.count(*events)
    stages = [_events_of(view, events) for view in views]
    estimate, error = _difference(views, events)
    worse = estimate > sight.margin
    return Reading(
        facts=f"{k_c}/{n_c} ({k_c / n_c:.1%}) against {k_b}/{n_b} ({k_b / n_b:.1%}), {100 * estimate:+.1f} pp "
        f"{'>' if worse else '<='} {100 * sight.margin:+.3g} pp allowed",
        missing=_short(n_c, n_b, sight.min_samples, "completed requests"),
        n=n_c,
        estimate=estimate,
        low=estimate - Z95 * error,
        high=estimate + Z95 * error,
        margin=sight.margin,
        beyond=worse,
        fail=bounds.with_restarts(bounds.log_e_more, stages, sight.planned_stages),
        passing=bounds.log_e_within(stages, sight.margin),
    )


def read_tail(tail: Tail, sight: Sight) -> Reading:
    """Read an upper quantile of a latency; the margin is a ratio, taken as whole buckets (1.10 is 1.104).

    An event is a baseline request above x, the baseline's quantile from earlier looks, or a candidate request above x
    times the margin; then the event test, exact for exchangeable arms. For FAIL the candidate's threshold moves with
    the latency as a whole, so that a machine that is slow for minutes has no heavier tail; for PASS it does not.
    """
    views = sight.random
    candidate, baseline = _arms(sight)
    n_c, n_b = (sum(arm.histogram(tail.histogram).values()) for arm in (candidate, baseline))
    if trouble := _trouble(candidate, baseline, "done") or _none_measured(tail.histogram, n_c, n_b):
        return Reading(unknown=trouble, n=n_c)
    margin = margin_ratio(sight.margin)
    quantiles = tail.compare([(view.candidate, view.baseline) for view in views])
    if quantiles is None:
        return Reading(unknown=f"no stage in which both arms have a {tail.histogram}", n=n_c)
    stages = [_exceedances(view, sight.memory.events) for view in views]
    heavier = [_exceedances(view, sight.memory.unexplained) for view in views]
    worse = quantiles.ratio > margin * (1 + 1e-9)
    return Reading(
        facts=f"{_ms(quantiles.candidate)} against {_ms(quantiles.baseline)}, x{quantiles.ratio:.2f} "
        f"{'>' if worse else '<='} x{margin:.2f} allowed",
        missing=_short(n_c, n_b, sight.min_samples, f"requests with a {tail.histogram}"),
        n=n_c,
        estimate=quantiles.ratio,
        low=quantiles.low,
        high=quantiles.high,
        margin=margin,
        beyond=worse,
        fail=bounds.with_restarts(bounds.log_e_more, heavier, sight.planned_stages),
        passing=bounds.log_e_fewer(stages),
    )


def read_latency(tail: Tail, lag: Lag, sight: Sight) -> Reading:
    """Read an upper quantile, and with it the latency as a whole: FAIL if either fails.

    Both have their part of the weight, and of the evidence only what lies beyond the margin counts; a weighted average
    of e-processes is one. PASS is the quantile's alone.
    """
    reading, course = read_tail(tail, sight), sight.course
    if reading.unknown or course is None or course.whole is None:
        return reading
    belief = Belief.without_reference(course.laws)
    theta, margin = location.effect(course.whole, belief)[0], margin_ratio(sight.margin)
    slower = theta > math.log(margin) * (1 + 1e-9)
    as_whole = math.log(lag.part) + course.log_e(belief, sight.planned_stages) if lag.part else -math.inf
    at_tail = math.log1p(-lag.part) + reading.fail
    beyond = [log for log, counts in ((as_whole, slower and lag.part > 0), (at_tail, reading.beyond)) if counts]
    told = f"as a whole x{math.exp(theta):.2f} {'>' if slower else '<='} x{margin:.2f} over {course.blocks} blocks"
    return replace(
        reading,
        facts=f"{reading.facts}, {told}",
        beyond=bool(beyond),
        fail=bounds.log_sum(beyond or [as_whole, at_tail]),
    )


def read_cost(per: str, sight: Sight) -> Reading:
    """Read the calibrated cost per token (prompt and completion) or per request; the margin is a ratio."""
    views = sight.random
    candidate, baseline = _arms(sight)
    n_c, n_b = candidate.count("priced"), baseline.count("priced")
    if trouble := _trouble(candidate, baseline, "done") or _unpriced(candidate, baseline):
        return Reading(unknown=trouble, n=n_c)
    stages = [(_sums(view.candidate, per), _sums(view.baseline, per)) for view in views]
    pooled = bounds.log_ratio(stages)
    if pooled is None:
        needed = max(bounds.MIN_UNITS, sight.min_samples)
        return Reading(missing=f"needs {needed} priced requests an arm, has {n_c} and {n_b}", n=n_c)
    ratio = math.exp(pooled.estimate)
    worse = ratio > sight.margin
    prices = [_price(arm, per) for arm in (candidate, baseline)]
    more = partial(bounds.log_e_ratio, sign=+1)
    return Reading(
        facts=f"{prices[0]} against {prices[1]}, x{ratio:.3f} {'>' if worse else '<='} x{sight.margin:.3g} allowed",
        missing=_short(n_c, n_b, sight.min_samples, "priced requests"),
        n=n_c,
        estimate=ratio,
        low=math.exp(pooled.estimate - Z95 * pooled.error),
        high=math.exp(pooled.estimate + Z95 * pooled.error),
        margin=sight.margin,
        beyond=worse,
        fail=bounds.with_restarts(more, stages, sight.planned_stages),
        passing=bounds.log_e_ratio(stages, sight.margin, sign=-1),
    )


def read_pairs(sight: Sight) -> Reading:
    """Read the shadow's paired scores, candidate - baseline, of all stages; the margin is a difference, -0.02."""
    candidate = merged(view.candidate for view in sight.stages)
    pairs, failed = candidate.histogram("pair"), candidate.count("pairs_failed")
    n = sum(pairs.values())
    if n == 0:
        return Reading(unknown=f"no shadow pair was scored, {failed} failed" if failed else "no shadow pair yet")
    mean = math.fsum(d * k for d, k in pairs.items()) / bounds.PAIR_UNIT / n
    square = math.fsum((d / bounds.PAIR_UNIT - mean) ** 2 * k for d, k in pairs.items())
    error = math.sqrt(square / n / max(1, n - 1))
    worse = mean < sight.margin
    lost = failed > FAILED_PAIRS_SHARE * (n + failed)
    short = f"needs {sight.min_pairs} shadow pairs, has {n}" if n < sight.min_pairs else ""
    return Reading(
        facts=f"{mean:+.3f} over {n} pairs {'<' if worse else '>='} {sight.margin:+.3f} allowed",
        missing=f"{failed} of {n + failed} shadow pairs failed" if lost else short,
        n=n,
        estimate=mean,
        low=mean - Z95 * error,
        high=mean + Z95 * error,
        margin=sight.margin,
        beyond=worse,
        fail=bounds.log_e_pairs(pairs, sign=-1),
        passing=bounds.log_e_pairs(pairs, sight.margin, sign=+1),
    )


_TTFT95, _TTFT99, _TPOT95 = Tail("ttft", 0.95), Tail("ttft", 0.99), Tail("tpot", 0.95)
_TTFT, _TPOT = Lag("ttft", NOISE["ttft"], 10.0, 0.15 / 0.19), Lag("tpot", NOISE["tpot"], 30.0, 0.15 / 0.18)
_TTFT_TAIL = replace(_TTFT, part=0.0)  # its location is the other's

SIGNALS: Mapping[str, Signal] = {
    "error_rate": Signal(0.15, "rate", partial(read_rate, ("error", "timeout"))),
    "empty": Signal(0.05, "rate", partial(read_rate, ("empty",))),
    "truncated": Signal(0.05, "rate", partial(read_rate, ("truncated",))),
    "ttft_p95": Signal(0.19, "ratio", partial(read_latency, _TTFT95, _TTFT), _TTFT95, _TTFT),
    "ttft_p99": Signal(0.03, "ratio", partial(read_latency, _TTFT99, _TTFT_TAIL), _TTFT99, _TTFT_TAIL),
    "tpot_p95": Signal(0.18, "ratio", partial(read_latency, _TPOT95, _TPOT), _TPOT95, _TPOT),
    "cost_per_token": Signal(0.10, "ratio", partial(read_cost, "token")),
    "cost_per_request": Signal(0.05, "ratio", partial(read_cost, "request")),
    "shadow_quality": Signal(0.15, "difference", read_pairs),
}


def sums_of(views: Sequence[StageView]) -> tuple[Tally, Tally]:
    """Return the sums of candidate and baseline over the stages in which chance divided the traffic."""
    random = [view for view in views if view.random]
    return merged(view.candidate for view in random), merged(view.baseline for view in random)


def _arms(sight: Sight) -> tuple[Tally, Tally]:
    return sums_of(sight.stages) if sight.arms is None else sight.arms


def _trouble(candidate: Tally, baseline: Tally, needed: str) -> str:
    """Say why sums cannot be trusted at all; empty if they can."""
    for name, arm in (("candidate", candidate), ("baseline", baseline)):
        if min(arm.counts.values(), default=0) < 0 or not all(map(math.isfinite, arm.sums.values())):
            return f"the {name}'s sums contradict themselves"
        if arm.count("unusable") > UNUSABLE_SHARE * arm.count("done"):
            return f"{arm.count('unusable')} measurements of the {name} are not numbers"
        if arm.count(needed) == 0:
            return f"no completed request of the {name} yet"
    return ""


def _none_measured(what: str, n_c: int, n_b: int) -> str:
    return "" if n_c and n_b else f"no {what} measured on {'the baseline' if n_c else 'the candidate'}"


def _unpriced(candidate: Tally, baseline: Tally) -> str:
    """An arm without a price has no cost; half an arm's requests priced is a price that came or went in between."""
    for name, arm in (("candidate", candidate), ("baseline", baseline)):
        if arm.count("ok") and arm.count("priced") == 0:
            return f"the {name}'s answers have no price; run the load test first"
    return ""


def _short(n_c: int, n_b: int, needed: int, what: str) -> str:
    return "" if min(n_c, n_b) >= needed else f"needs {needed} {what} an arm, has {n_c} and {n_b}"


def _exceedances(view: StageView, counted: Mapping[int, tuple[int, int]]) -> Events:
    candidate, baseline = counted.get(view.stage, (0, 0))
    return Events(view.share, candidate, baseline, candidate + baseline)


def _events_of(view: StageView, events: Sequence[str]) -> Events:
    done = view.candidate.count("done") + view.baseline.count("done")
    return Events(view.share, view.candidate.count(*events), view.baseline.count(*events), done)


def _difference(views: Sequence[StageView], events: Sequence[str]) -> tuple[float, float]:
    """Return the difference of rates and its standard error, stage against itself (Mantel & Haenszel 1959 weights)."""
    total = weighted = variance = 0.0
    for view in views:
        (n_c, k_c), (n_b, k_b) = ((arm.count("done"), arm.count(*events)) for arm in (view.candidate, view.baseline))
        if n_c and n_b:
            weight = n_c * n_b / (n_c + n_b)
            total += weight
            weighted += weight * (k_c / n_c - k_b / n_b)
            variance += weight**2 * (_variance(k_c, n_c) + _variance(k_b, n_b))
    return (weighted / total, math.sqrt(variance) / total) if total else (0.0, 0.0)


def _variance(k: int, n: int) -> float:
    rate = (k + 1) / (n + 2)  # never certain after a few
    return rate * (1 - rate) / n


def _sums(arm: Tally, per: str) -> Sums:
    n, x, xx = arm.count("priced"), arm.total("sum.cost"), arm.total("sum.cost2")
    if per == "request":
        return Sums(n, x, float(n), xx, float(n), x)
    return Sums(n, x, arm.total("sum.tokens"), xx, arm.total("sum.tokens2"), arm.total("sum.cost_tokens"))


def _price(arm: Tally, per: str) -> str:
    if per == "request":
        return f"{1000 * arm.total('sum.cost') / arm.count('priced'):.3g} USD a thousand requests"
    return f"{1e6 * arm.total('sum.cost') / max(1.0, arm.total('sum.tokens')):.3g} USD a million tokens"


def _ms(bucket_number: float) -> str:
    return f"{1000 * bucket_seconds(bucket_number):.3g} ms"
