"""Latencies: an upper quantile, and with it the latency as a whole."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from canary.core import bounds
from canary.core.bounds import Events
from canary.core.course import Course
from canary.core.signals.sight import UNTOLD, Z95, Reading, Sight, StageView, short, trouble
from canary.core.tails import Tail, margin_ratio
from canary.core.tally import Tally
from canary.core.tally import seconds as bucket_seconds


@dataclass(frozen=True, slots=True)
class Lag:
    """A latency whose location is tested: its histogram, and how its blocks close.

    `grace_s` is how long a block's reports may still come, `part` the location's part of the weight of the guardrail
    that tests it; the others only need to know of the latency as a whole what explains their tails. The whole fails
    beyond the `power` of the quantile's margin.
    """

    histogram: str
    grace_s: float
    part: float
    power: float = 1.0

    def beyond(self, ratio: float) -> float:
        """Return the ratio beyond which the whole fails, of the one for the quantile."""
        return math.pow(margin_ratio(ratio), self.power)


def read_tail(tail: Tail, sight: Sight) -> Reading:
    """Read an upper quantile of a latency; the margin is a ratio, taken as whole buckets (1.10 is 1.104).

    An event is a baseline request above x, the baseline's quantile from earlier looks, or a candidate request above x
    times the margin; then the event test, exact for exchangeable arms. For FAIL the candidate's threshold moves with
    the latency as a whole, so that a machine that is slow for minutes has no heavier tail; for PASS it does not, and
    only stages count in which the arms were loaded alike. That shift is known half a minute late, in which many
    requests tell much of a machine's noise: what the noise that is possible may do to a quantile proves nothing.
    """
    views, (candidate, baseline) = sight.random, sight.sums
    n_c, n_b = (_measured(arms, tail) for arms in ([v.candidate for v in views], [v.baseline for v in views]))
    if unknown := trouble(candidate, baseline) or _none_measured(tail.histogram, n_c, n_b):
        return Reading(unknown=unknown, n=n_c)
    margin = margin_ratio(sight.margin)
    quantiles = tail.compare([(view.candidate, view.baseline) for view in views])
    if quantiles is None:
        return Reading(unknown=f"no stage in which both arms have a {tail.histogram}", n=n_c)
    alike = [view for view in views if view.matched(sight.max_load_ratio)]
    heavier = [_exceedances(view, sight.memory.unexplained) for view in views]
    allowed, noise = margin * (1 + 1e-9), sight.course.noise if sight.course else 0.0
    beyond, since = sight.beyond(allowed * math.exp(Z95 * noise), quantiles.ratio, partial(_late_tail, tail))
    evidence = bounds.log_e_more_restarted(heavier, sight.planned_stages)
    return Reading(
        facts=f"{_ms(quantiles.candidate)} against {_ms(quantiles.baseline)}, x{quantiles.ratio:.2f} "
        f"{'>' if quantiles.ratio > allowed else '<='} x{margin:.2f} allowed"
        f"{since if beyond or quantiles.ratio <= allowed else _NOISE}",
        missing=short(n_c, n_b, sight.min_samples, f"requests with a {tail.histogram}") or _unlike(views[-1], sight),
        n=n_c,
        estimate=quantiles.ratio,
        low=quantiles.low,
        high=quantiles.high,
        margin=margin,
        worse=beyond or quantiles.ratio > 1,
        beyond=beyond,
        fail=evidence if beyond or not noise else min(evidence, 0.0),
        passing=bounds.log_e_fewer([_exceedances(view, sight.memory.events) for view in alike]),
    )


def read_latency(tail: Tail, lag: Lag, sight: Sight) -> Reading:
    """Read an upper quantile, and with it the latency as a whole: FAIL if either fails, PASS if both pass.

    Both have their part of the weight, and of the evidence only what lies beyond the margin counts; a weighted average
    of e-processes is one. Where no noise of machines is assumed, the quantile's PASS says all.
    """
    reading, course = read_tail(tail, sight), sight.course
    if reading.unknown or not sight.located or course is None:
        return reading
    if course.whole is None:
        return reading if course.most == 0 else replace(reading, passing=min(0.0, reading.passing))
    margin = lag.beyond(sight.margin)
    theta, most = course.effect, math.log(margin) * (1 + 1e-9)
    slower, since = sight.beyond(most, theta, partial(_late_whole, course))
    as_whole = math.log(lag.part) + course.log_e(sight.planned_stages)
    at_tail = math.log1p(-lag.part) + reading.fail
    beyond = [log for log, counts in ((as_whole, slower), (at_tail, reading.beyond)) if counts]
    told = f"as a whole x{math.exp(theta):.2f} {'>' if theta > most else '<='} x{margin:.2f}"
    return replace(
        reading,
        facts=f"{reading.facts}, {told} over {course.blocks} blocks{since}{_OUTSIDE if course.outside else ''}",
        missing=reading.missing or (_NOISY if course.outside else ""),
        worse=reading.worse or slower or theta > 0,
        beyond=bool(beyond),
        fail=bounds.log_sum(beyond or [as_whole, at_tail]),
        passing=reading.passing if course.most == 0 else min(reading.passing, _within(course, sight)),
    )


_NOISE = ", as a machine's noise may be"
_OUTSIDE = ", noisier than assumed"
_NOISY = "one arm's machines are noisier than assumed: more replicas, or analysis.own_noise"


def _late_tail(tail: Tail, view: StageView) -> tuple[float, str]:
    """Return a stage's own ratio; both arms need as many requests as have a limit of the quantile among them."""
    n_c, n_b = _measured([view.candidate], tail), _measured([view.baseline], tail)
    quantiles = tail.compare([(view.candidate, view.baseline)])
    if quantiles is None or min(n_c, n_b) < least_bounded(tail.q):
        return UNTOLD
    return quantiles.low, f"x{quantiles.ratio:.2f}"


def least_bounded(q: float) -> float:
    """Return of how many requests the largest is an upper 95 % limit of their q-quantile: 73 for q = 0.95."""
    return Z95**2 * q / (1 - q)


def _late_whole(course: Course, view: StageView) -> tuple[float, str]:
    theta, error = course.effect_in(view.stage)
    return theta - Z95 * error, f"x{math.exp(theta):.2f}"


def _within(course: Course, sight: Sight) -> float:
    """Return the evidence that the whole is within the margin; of the present stage alone if others were not alike."""
    alike = all(view.matched(sight.max_load_ratio) for view in sight.random)
    if not alike and course.taken[1] != sight.random[-1].stage:
        return 0.0  # no block of the present stage has closed yet
    return course.log_e_within(math.log(margin_ratio(sight.margin)), present=not alike)


def _unlike(view: StageView, sight: Sight) -> str:
    """Say that the arms are not loaded alike, "" if they are."""
    if view.load is None or view.matched(sight.max_load_ratio):
        return ""
    return (
        f"not load-matched: the candidate has x{view.load:.2g} the baseline's requests in flight a replica, "
        f"x{sight.max_load_ratio:g} is alike; a control, or as many replicas as its share"
    )


def _measured(arms: Sequence[Tally], tail: Tail) -> int:
    return sum(arm.told(tail.measured) for arm in arms)


def _none_measured(what: str, n_c: int, n_b: int) -> str:
    return "" if n_c and n_b else f"no {what} measured on {'the baseline' if n_c else 'the candidate'}"


def _exceedances(view: StageView, counted: Mapping[int, tuple[int, int]]) -> Events:
    candidate, baseline = counted.get(view.place, (0, 0))
    return Events(view.share, candidate, baseline, candidate + baseline)


def _ms(bucket_number: float) -> str:
    return f"{1000 * bucket_seconds(bucket_number):.3g} ms"
