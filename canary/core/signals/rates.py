"""Rates of events among completed requests, candidate against baseline."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from canary.core import bounds
from canary.core.bounds import Events
from canary.core.signals.sight import Z95, Reading, Sight, StageView, short, trouble, units
from canary.core.tally import Tally


@dataclass(frozen=True, slots=True)
class Kind:
    """What counts as an event: the counts that say so, and the one that says how often a unit had had it before."""

    names: tuple[str, ...]
    again: str

    def of(self, arm: Tally) -> int:
        """Return how many units had the event."""
        return arm.count(*self.names) - arm.count(self.again)

    def impossible(self, *arms: Tally) -> str:
        """Say that no traffic leaves such counts, "" if it does."""
        wrong = any(not 0 <= self.of(arm) <= arm.count(*self.names) <= arm.count("done") for arm in arms)
        return "the sums contradict themselves" if wrong else ""


def kind(*names: str, again: str = "") -> Kind:
    """Return a kind of event; a single count has its own name for what came again."""
    return Kind(names, again or f"{names[0]}_again")


def read_rate(event: Kind, sight: Sight) -> Reading:
    """Read a rate of events among completed requests; the margin is a difference of rates, 0.005 = 0.5 pp.

    The estimate is that of requests. For the evidence a unit, such as a sticky user, is one request and at most one
    event: what it does again is no new chance.
    """
    views, (candidate, baseline) = sight.random, sight.sums
    if unknown := trouble(candidate, baseline) or event.impossible(candidate, baseline):
        return Reading(unknown=unknown, n=max(0, units(candidate)))
    (k_c, n_c), (k_b, n_b) = ((arm.count(*event.names), arm.count("done")) for arm in (candidate, baseline))
    stages = [_events(view, event) for view in views]
    estimate, error = _difference(views, event)
    beyond, since = sight.beyond(sight.margin, estimate, partial(_late, event))
    return Reading(
        facts=f"{k_c}/{n_c} ({k_c / n_c:.1%}) against {k_b}/{n_b} ({k_b / n_b:.1%}), {100 * estimate:+.1f} pp "
        f"{'>' if estimate > sight.margin else '<='} {100 * sight.margin:+.3g} pp allowed{since}",
        missing=short(units(candidate), units(baseline), sight.min_samples, "completed requests"),
        n=units(candidate),
        estimate=estimate,
        low=estimate - Z95 * error,
        high=estimate + Z95 * error,
        margin=sight.margin,
        worse=beyond or estimate > 0,
        beyond=beyond,
        fail=bounds.log_e_more_restarted(stages, sight.planned_stages),
        passing=bounds.log_e_within(stages, sight.margin),
    )


def _events(view: StageView, event: Kind) -> Events:
    """Return a stage's events; a unit that was there before the stage may have its first one here."""
    candidate, baseline = event.of(view.candidate), event.of(view.baseline)
    fresh = units(view.candidate) + units(view.baseline)
    return Events(view.share, candidate, baseline, max(fresh, candidate + baseline))


def _late(event: Kind, view: StageView) -> tuple[float, str]:
    difference, error = _difference([view], event)
    return difference - Z95 * error, f"{100 * difference:+.1f} pp"


def _difference(views: Sequence[StageView], event: Kind) -> tuple[float, float]:
    """Return the difference of rates and its standard error, stage against itself (Mantel & Haenszel 1959 weights)."""
    total = weighted = variance = 0.0
    for view in views:
        (n_c, k_c), (n_b, k_b) = (
            (arm.count("done"), arm.count(*event.names)) for arm in (view.candidate, view.baseline)
        )
        if n_c > 0 and n_b > 0:
            weight = n_c * n_b / (n_c + n_b)
            total += weight
            weighted += weight * (k_c / n_c - k_b / n_b)
            variance += weight**2 * (_variance(k_c, n_c) + _variance(k_b, n_b))
    return (weighted / total, math.sqrt(variance) / total) if total else (0.0, 0.0)


def _variance(k: int, n: int) -> float:
    rate = (k + 1) / (n + 2)  # never certain after a few
    return rate * (1 - rate) / n
