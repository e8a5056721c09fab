"""Absolute limits: what no answer may exceed, whatever the baseline does.

They are held on the candidate alone, by a test of one arm (bounds.log_e_over). If the baseline is over the limit too,
that is the day's weather and not the candidate's fault: nothing fails, and nothing passes. That need not be proved of
the baseline: proof would come later than the candidate's, and an equal candidate would be rolled back in between.
"""

from __future__ import annotations

import math
from dataclasses import replace

from canary.core import bounds
from canary.core.signals.rates import Kind
from canary.core.signals.sight import Z95, Reading, Sight, short, trouble, units
from canary.core.tails import Tail, above
from canary.core.tally import bucket
from canary.core.tally import seconds as bucket_seconds


def read_rate_limit(event: Kind, sight: Sight) -> Reading:
    """Read a rate of events of the candidate; the margin is the largest rate allowed, 0.02 = 2 %.

    Of a unit's events only the first is evidence. That is too many if its requests are likely to fail one by one, also
    where each of them seldom does; so against the candidate it counts among all requests, for it among the units.
    """
    candidate, baseline = sight.sums
    if unknown := trouble(candidate, baseline) or event.impossible(candidate, baseline):
        return Reading(unknown=unknown, n=max(0, units(candidate)))
    (k_c, n_c), (k_b, n_b) = ((arm.count(*event.names), arm.count("done")) for arm in (candidate, baseline))
    rate, error = k_c / n_c, math.sqrt(max(k_c, 1) / n_c / n_c)
    facts = f"{k_c}/{n_c} ({rate:.2%}) of at most {sight.margin:.2%}, the baseline {k_b}/{n_b} ({k_b / n_b:.2%})"
    first = event.of(candidate)
    reading = _read(sight, sight.margin, (first, n_c), (event.of(baseline), n_b), max(first, units(candidate)))
    reading = replace(reading, beyond=rate > sight.margin and not reading.missing)
    return _told(reading, sight, facts, (rate, max(0.0, rate - Z95 * error), rate + Z95 * error))


def read_quantile_limit(tail: Tail, sight: Sight) -> Reading:
    """Read an upper quantile of the candidate's latency; the margin is the largest allowed, in seconds."""
    candidate, baseline = sight.sums
    n_c, n_b = candidate.told(tail.measured), baseline.told(tail.measured)
    if unknown := trouble(candidate, baseline) or ("" if n_c and n_b else f"no {tail.histogram} measured yet"):
        return Reading(unknown=unknown, n=n_c)
    limit = bucket(sight.margin)
    over_c, over_b = (above(arm.histogram(tail.histogram), limit) for arm in (candidate, baseline))
    low, mid, high = (bucket_seconds(at) for at in candidate.told(tail.interval))
    other = 1000 * bucket_seconds(baseline.told(tail.interval)[1])
    facts = f"{1000 * mid:.3g} ms of at most {1000 * sight.margin:.3g} ms, the baseline {other:.3g} ms"
    return _told(_read(sight, 1 - tail.q, (over_c, n_c), (over_b, n_b)), sight, facts, (mid, low, high))


def _read(
    sight: Sight, most: float, candidate: tuple[int, int], baseline: tuple[int, int], n: int | None = None
) -> Reading:
    """Return the evidence that more than `most` of the candidate's requests exceed, or fewer, and what says nothing.

    An arm is (events, requests); `n` of the candidate's are those among which events count for it, None for all.
    """
    n = candidate[1] if n is None else n
    environment = baseline[0] > most * baseline[1] or bounds.log_e_over(*baseline, most) >= sight.log_pass
    return Reading(
        missing="the baseline is over it too: the environment" if environment else "",
        n=n,
        beyond=candidate[0] > most * candidate[1] and not environment,
        fail=bounds.log_e_over(*candidate, most),
        passing=bounds.log_e_under(candidate[0], n, most),
    )


def _told(reading: Reading, sight: Sight, facts: str, estimate: tuple[float, float, float]) -> Reading:
    needed = short(reading.n, reading.n, sight.min_samples, "requests")
    return Reading(
        facts=facts,
        missing=reading.missing or needed,
        n=reading.n,
        estimate=estimate[0],
        low=estimate[1],
        high=estimate[2],
        margin=sight.margin,
        worse=reading.beyond,
        beyond=reading.beyond,
        fail=reading.fail,
        passing=reading.passing,
    )
