"""The evidence of an attempt, stage by stage, as guardrails look at it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

    def paced(self, slice_: str, load: float | None) -> StageView:
        """Return the sums that latencies are read from: the candidate against the control, where there is one.

        The control answers as large a part of the traffic as the candidate, or all that is left, so of what both
        answer the candidate's part is half, or its share.
        """
        view, control = self.view(slice_), self.sum(CONTROL, slice_)
        if control.count("done"):
            part = self.share / (self.share + min(self.share, 1 - self.share))
            view = replace(view, baseline=control, share=part if view.random else self.share)
        return replace(view, load=load)

    def sum(self, arm: str, slice_: str) -> Tally:
        """Return one arm's sums of a slice."""
        wanted = (key for key in sorted(self.tallies) if key[0] == arm and slice_ in ("", key[1]))
        return merged(self.tallies[key] for key in wanted)

    def load(self, machines: Machines) -> float | None:
        """Return how many times the baseline's requests in flight a replica the candidate has, None if not known.

        By Little's law requests in flight are the seconds they take in a second; the time is the same for both.
        """
        candidate = self.sum(Arm.CANDIDATE, "").count("busy_ms") / max(1, machines.candidate)
        control = self.sum(CONTROL, "")
        other = control if control.count("done") else self.sum(Arm.BASELINE, "")
        baseline = other.count("busy_ms") / max(1, machines.baseline)
        return candidate / baseline if candidate > 0 and baseline > 0 else None


def views_of(stages: Sequence[StageEvidence], slices: Sequence[str]) -> dict[str, list[StageView]]:
    """Return each slice's views, first stage to last."""
    return {slice_: [stage.view(slice_) for stage in stages] for slice_ in slices}


def paced_of(stages: Sequence[StageEvidence], slices: Sequence[str], machines: Machines) -> dict[str, list[StageView]]:
    """Return each slice's views as latencies see them."""
    loads = [stage.load(machines) for stage in stages]
    return {slice_: [stage.paced(slice_, load) for stage, load in zip(stages, loads, strict=True)] for slice_ in slices}
