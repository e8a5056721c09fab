"""Whether chance divided the traffic as the split says: if not, no other comparison can be trusted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from scipy.special import betaln, xlog1py, xlogy

from canary.core.finding import Finding, OnBreach, Verdict
from canary.core.signals import StageView
from canary.core.signals.sight import Z95
from canary.core.tally import Tally

NAME: Final = "sample_ratio"
TOLERANCE: Final = 0.02  # of the smaller arm's share: what a late acknowledgement or a clock may do
LOG_BAR: Final = math.log(1000.0)  # alpha = 0.1 %
_SURE: Final = 500.0  # the mixture's weight, in units


def log_e_mismatch(stages: Sequence[tuple[float, int, int]], tolerance: float = TOLERANCE) -> float:
    """Evidence that units were not divided as meant, from (share in 0..1, candidate's units, the baseline's) by stage.

    ln E = sum over stages of ln Beta-binomial(k, n; 500 share, 500 (1-share)) less the largest binomial likelihood with
    a probability within the tolerance of the share. Source: Lindon & Malek, arXiv 2011.03567, with a composite
    hypothesis. Exact for independent units. NaN for numbers that no traffic can leave.
    """
    total = 0.0
    for share, candidate, baseline in stages:
        if not (0 < share < 1 and min(candidate, baseline) >= 0):
            return math.nan
        mixed = betaln(_SURE * share + candidate, _SURE * (1 - share) + baseline) - betaln(
            _SURE * share, _SURE * (1 - share)
        )
        n = candidate + baseline
        p = _clipped(candidate / n, share, tolerance) if n else share
        total += float(mixed - xlogy(candidate, p) - xlog1py(baseline, -p))
    return total


def _clipped(p: float, share: float, tolerance: float) -> float:
    """Return the probability nearest to `p` that is within the tolerance of the smaller arm's share."""
    slack = tolerance * min(share, 1 - share)
    return min(max(p, share - slack), share + slack)


def find(views: Sequence[StageView]) -> Finding:
    """Return what the units of the stages in which chance divided them say; a mismatch pauses, it never rolls back."""
    stages = [(view.share, _units(view.candidate), _units(view.baseline)) for view in views if view.random]
    n, of = sum(k for _, k, _ in stages), sum(k + b for _, k, b in stages)
    evidence = log_e_mismatch(stages)
    if not of or math.isnan(evidence):
        return _finding(Verdict.UNKNOWN, "no unit was assigned yet" if not of else "the sums contradict themselves")
    meant = math.fsum(share * (k + b) for share, k, b in stages) / of
    facts = f"{n} of {of} units ({n / of:.2%}) got the candidate, {meant:.2%} were meant"
    error = Z95 * math.sqrt(meant * (1 - meant) / of)
    verdict = Verdict.FAIL if evidence >= LOG_BAR else Verdict.PASS
    why = (
        f"chance did not divide them (evidence e^{evidence:.1f} over e^{LOG_BAR:.1f})" if evidence >= LOG_BAR else "ok"
    )
    return replace(
        _finding(verdict, f"{facts}; {why}"),
        estimate=n / of / meant,
        low=(n / of - error) / meant,
        high=(n / of + error) / meant,
        margin=1 + TOLERANCE,
        evidence=evidence,
        n=n,
    )


def _units(arm: Tally) -> int:
    return arm.count("assigned") - arm.count("assigned_again")


def _finding(verdict: Verdict, why: str) -> Finding:
    return Finding(NAME, "", verdict, f"{NAME}: {why}", threshold=LOG_BAR, on_breach=OnBreach.PAUSE)
