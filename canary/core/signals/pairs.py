"""The shadow's paired scores."""

from __future__ import annotations

import math

from canary.core import bounds
from canary.core.signals.sight import Z95, Reading, Sight
from canary.core.tally import Tally

FAILED_PAIRS_SHARE = 0.2  # what could not be compared is not a random part


def read_pairs(sight: Sight) -> Reading:
    """Read the shadow's paired scores, candidate - baseline, of all stages; the margin is a difference, -0.02."""
    counts = sum((view.candidate.told(_counts) for view in sight.stages), bounds.paired({}))
    n, failed = int(counts.sum()), sum(view.candidate.count("pairs_failed") for view in sight.stages)
    if n == 0:
        return Reading(unknown=f"no shadow pair was scored, {failed} failed" if failed else "no shadow pair yet")
    mean = float(counts @ bounds.THOUSANDTHS) / bounds.PAIR_UNIT / n  # whole numbers until here: nothing cancels
    squares = float(counts @ (bounds.THOUSANDTHS / bounds.PAIR_UNIT - mean) ** 2)
    error = math.sqrt(squares / max(1, n - 1) / n)
    beyond = mean < sight.margin
    lost = failed > FAILED_PAIRS_SHARE * (n + failed)
    few = f"needs {sight.min_pairs} shadow pairs, has {n}" if n < sight.min_pairs else ""
    return Reading(
        facts=f"{mean:+.3f} over {n} pairs {'<' if beyond else '>='} {sight.margin:+.3f} allowed",
        missing=f"{failed} of {n + failed} shadow pairs failed" if lost else few,
        n=n,
        estimate=mean,
        low=mean - Z95 * error,
        high=mean + Z95 * error,
        margin=sight.margin,
        worse=mean < 0,
        beyond=beyond,
        fail=bounds.log_e_pairs(counts, sign=-1),
        passing=bounds.log_e_pairs(counts, sight.margin, sign=+1),
    )


def _counts(arm: Tally) -> bounds.Floats:
    return bounds.paired(arm.histogram("pair"))
