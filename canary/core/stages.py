"""The evidence of an attempt, stage by stage, as guardrails look at it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from canary.core.arms import Arm
from canary.core.reference import Reference
from canary.core.signals import StageView
from canary.core.tally import CONTROL, Tally, merged

NO_REFERENCES: Final[Mapping[str, Reference]] = {}


@dataclass(frozen=True, slots=True)
class Machines:
    """Replicas an arm (the baseline's are its control's, if it has one), and references by latency, as they are now."""

    candidate: int = 1
    baseline: int = 1
    references: Mapping[str, Reference] = field(default_factory=lambda: NO_REFERENCES)


@dataclass(frozen=True, slots=True)
class StageEvidence:
    """All sums of one stage: `share` is the candidate's probability (0..1); `tallies` is keyed (arm, slice)."""

    stage: int
    share: float
    tallies: Mapping[tuple[str, str], Tally]

    def view(self, slice_: str) -> StageView:
        """Return both arms' sums of one slice; "" is the sum of all slices."""
        return StageView(self.stage, self.share, self.sum(Arm.CANDIDATE, slice_), self.sum(Arm.BASELINE, slice_))

    def sum(self, arm: str, slice_: str) -> Tally:
        """Return one arm's sums of a slice."""
        wanted = (key for key in sorted(self.tallies) if key[0] == arm and slice_ in ("", key[1]))
        return merged(self.tallies[key] for key in wanted)


Views = Mapping[str, Sequence[StageView]]  # by slice, the first stage first


def views_of(stages: Sequence[StageEvidence], slices: Iterable[str]) -> Views:
    """Return the candidate against the whole baseline."""
    return {slice_: [stage.view(slice_) for stage in stages] for slice_ in slices}


def paced(views: Views, stages: Sequence[StageEvidence], machines: Machines) -> Views:
    """Return `views` as latencies are read from them: against the control where there is one, and with the load."""
    pairs = list(zip(stages, views[""], strict=True))
    loads = [_load(_against_control(view, stage, ""), machines) for stage, view in pairs]
    return {
        slice_: [
            replace(_against_control(view, stage, slice_), load=load)
            for stage, view, load in zip(stages, seen, loads, strict=True)
        ]
        for slice_, seen in views.items()
    }


def _against_control(view: StageView, stage: StageEvidence, slice_: str) -> StageView:
    """Return the candidate against the control, or as it was where there is none.

    The control answers as large a part of the traffic as the candidate, or all that is left, so of what both answer
    the candidate's part is half, or its share.
    """
    control = stage.sum(CONTROL, slice_)
    if not control.count("done"):
        return view
    part = view.share / (view.share + min(view.share, 1 - view.share)) if view.random else view.share
    return replace(view, baseline=control, share=part, control=True)


def _load(view: StageView, machines: Machines) -> float | None:
    """Return how many times the other's requests in flight a replica the candidate has, None if it is not known.

    By Little's law requests in flight are the seconds they take in a second; the time is the same for both.
    """
    candidate = view.candidate.count("busy_ms") / max(1, machines.candidate)
    baseline = view.baseline.count("busy_ms") / max(1, machines.baseline)
    return candidate / baseline if candidate > 0 and baseline > 0 else None
