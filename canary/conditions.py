"""Under what conditions the evidence is taken: what is known of the machines' own noise, and how each arm is loaded.

Pure: from what lies in the store to the fields of the status.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from canary.assess import Tallies
from canary.core.arms import Arm, Endpoint
from canary.core.noise import Law
from canary.core.signals import NOISE
from canary.core.state import Release
from canary.core.tally import BLOCK_S, CONTROL, Tally, merged
from canary.references import Collected

LEAST_S: Final = 10.0  # at a share; what finished in less says little of what is in flight


def reference(collected: Collected, now: float) -> dict[str, Any]:
    """Return what is known of each latency's machines at `now` (Unix seconds), None where nothing is.

    `replicas` are those on either side; `likeliest` and `largest` laws are one replica's own noise: the standard
    deviation of the log, and seconds. `tells` is False as long as it is too short to be believed.
    """
    return {latency: _reference(collected, latency, now) for latency in NOISE}


def _reference(collected: Collected, latency: str, now: float) -> dict[str, Any] | None:
    best = collected.best(latency, now)
    if best is None:
        return None
    source, known, found = best
    one = NOISE[latency] / found.most
    return {
        "source": source,
        "replicas": [known.sides.first, known.sides.second],
        "seconds": found.seconds,
        "age_s": max(0.0, now - found.last - BLOCK_S),
        "tells": found.belief is not None,
        "likeliest": _law(found.likeliest, one),
        "largest": _law(found.largest, one),
        "outside": found.outside,
    }


def _law(law: Law, one: float) -> dict[str, float]:
    return {"sd": law.sigma * one, "tau_s": law.tau}


def load(release: Release, tallies: Tallies, now: float) -> dict[str, Any]:
    """Return how each arm is loaded at the present share: the candidate, and the control or else the baseline.

    `in_flight` is a replica's, by Little's law: the seconds that requests took, over the seconds since the share
    began; `cached` is the part of prompt tokens that a cache held; `per_second` are finished requests. None where it
    is not known.
    """
    paced = (CONTROL, release.control) if release.control is not None else (Arm.BASELINE.value, release.baseline)
    arms = {Arm.CANDIDATE.value: release.candidate, paced[0]: paced[1]}
    seconds = now - release.staged if release.active and release.percent > 0 and release.staged else 0.0
    sums = {arm: _at_stage(tallies, arm, release.stage) for arm in arms}
    reported = any(tally.count("cached_tokens") for tally in sums.values())
    return {arm: _load(sums[arm], endpoint, seconds, reported=reported) for arm, endpoint in arms.items()}


def _at_stage(tallies: Tallies, arm: str, stage: int) -> Tally:
    return merged(tally for (at, name, _), tally in tallies.items() if (at, name) == (stage, arm))


def _load(tally: Tally, endpoint: Endpoint, seconds: float, *, reported: bool) -> Mapping[str, float | None]:
    known = seconds >= LEAST_S
    replicas, prompts = len(endpoint.replicas), tally.count("prompt_tokens")
    return {
        "in_flight": tally.count("busy_ms") / 1000 / seconds / max(1, replicas) if known else None,
        "per_second": tally.count("done") / seconds if known else None,
        "cached": tally.count("cached_tokens") / prompts if known and reported and prompts else None,
        "replicas": replicas,
    }
