"""What a stored release tells of the traffic: requests a second, and each slice's part. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from canary.core.state import Release
from canary.core.tally import CONTROL, parse

LEAST = 100  # requests; fewer say little


@dataclass(frozen=True, slots=True)
class Measured:
    """Requests a second over a release's whole course, and the parts of its slices in 0..1."""

    rps: float
    slices: Mapping[str, float] = field(default_factory=dict)


def measured(release: Release, fields: Mapping[str, str], now: float) -> Measured | None:
    """Return the traffic of an attempt from its sums, None from fewer than 100 requests; `now` in Unix seconds.

    Of a release that has ended, the stage after its end is left out: nobody knows for how long it went on. Raises
    TallyError.
    """
    last = release.stage if release.active else release.stage - 1
    assigned: dict[str, int] = {}
    for (stage, arm, slice_), tally in parse(fields).items():
        if stage <= last and arm != CONTROL:  # a part of the baseline, counted with it
            assigned[slice_] = assigned.get(slice_, 0) + tally.count("assigned")
    total, seconds = sum(assigned.values()), (now if release.active else release.ended or now) - release.started
    if total < LEAST or seconds <= 0:
        return None
    return Measured(total / seconds, {name: n / total for name, n in assigned.items() if name and n})
