"""The card's success thresholds against the evaluation of this candidate: what promotion waits for. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from canary.assess import MENDS, other_eval
from canary.card.parts import METRIC, Threshold
from canary.core.state import Phase, Release
from canary.evaluate import SliceResult, SliceScore, gained

Report = Mapping[str, Any]


def unmet(release: Release, report: Report | None, success: Mapping[str, Threshold]) -> tuple[str, ...]:
    """Say at a release's bake which thresholds are not proved, each with the command that mends it.

    `report` is the evaluation of the candidate's digest, None if there is none; one that cannot be read proves nothing.
    """
    if release.phase is not Phase.BAKE:
        return ()
    if report is None:
        return (f"no evaluation proves {', '.join(success)}: run `{MENDS['eval']}`",)
    if what := other_eval(release, report):
        return (f"the evaluation {what}: `{MENDS['eval']}` again",)
    if report.get("verdict") == "invalid":
        return (
            f"the evaluation is invalid ({', '.join(map(str, report.get('reasons', ())))}): `{MENDS['eval']}` again",
        )
    named = ((metric.removesuffix(METRIC), rule.min_gain) for metric, rule in success.items())
    checks = (gained(name, _stored(report, name), least) for name, least in named)
    return tuple(f"{sentence}: `{MENDS['eval']}` again" for met, sentence in checks if not met)


def _stored(report: Report, name: str) -> SliceResult | None:
    """Read one slice of a stored report, None if it has none that can be read."""
    try:
        found = report["slices"][name]
        baseline, candidate = (SliceScore(**found[arm]) for arm in ("baseline", "candidate"))
        difference, low, high = (float(found[number]) for number in ("difference", "low", "high"))
        return SliceResult(baseline, candidate, difference, low, high, int(found["passages"]))
    except (KeyError, TypeError, ValueError):
        return None
