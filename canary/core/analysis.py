"""What is remembered between looks: proofs found, what the tails have counted, what closed blocks have said."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from canary.core.course import Course
from canary.core.finding import Finding
from canary.core.location import Arm as BlockArm
from canary.core.location import Block
from canary.core.noise import most_noise
from canary.core.policy import Guard, Key, Policy
from canary.core.signals import SIGNALS, Lag, StageView
from canary.core.stages import Machines, Views
from canary.core.tails import Fresh, Memory, Recent
from canary.core.tally import BLOCK_S, GROWTH

_LOG_GROWTH = math.log(GROWTH)


@dataclass(frozen=True, slots=True)
class Analysis:
    """All that is remembered between looks: proofs found, what the tails have counted, what blocks have said.

    Proofs and memories are kept by guardrail and slice; recent histograms and courses by latency ("ttft") and slice.
    """

    proofs: Mapping[Key, Finding] = field(default_factory=dict)
    recents: Mapping[Key, Recent] = field(default_factory=dict)
    memories: Mapping[Key, Memory] = field(default_factory=dict)
    courses: Mapping[Key, Course] = field(default_factory=dict)

    @classmethod
    def initial(cls) -> Analysis:
        """Return the memory of an attempt that nobody has looked at."""
        return cls()

    def to_json(self) -> str:
        """One line of JSON; `from_json` reads it back to an equal value."""
        plain = {
            "proofs": [finding.to_dict() for finding in self.proofs.values()],
            "recents": _listed(self.recents),
            "memories": _listed(self.memories),
            "courses": _listed(self.courses),
        }
        return json.dumps(plain, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> Analysis:
        """Read what `to_json` wrote. Raises ValueError, KeyError or TypeError on anything else."""
        plain = json.loads(text)
        findings = [Finding.from_dict(value) for value in plain["proofs"]]
        return cls(
            {(finding.guardrail, finding.slice): finding for finding in findings},
            {(name, slice_): Recent.from_plain(recent) for name, slice_, recent in plain.get("recents", ())},
            {(name, slice_): Memory.from_plain(memory) for name, slice_, memory in plain.get("memories", ())},
            {
                (name, slice_): Course.from_plain(course)
                for name, slice_, course in plain.get("courses", ())
                if "belief" in course  # an older one's laws were others: its blocks are taken again
            },
        )


def _listed(kept: Mapping[Key, Recent] | Mapping[Key, Memory] | Mapping[Key, Course]) -> list[Any]:
    return [[*key, value.to_plain()] for key, value in kept.items()]


def remember(
    analysis: Analysis, policy: Policy, views: Views, now: float
) -> tuple[dict[Key, Recent], dict[Key, Memory]]:
    """Count what is new in the tails, as far as the blocks of earlier looks do not explain it; `now` in seconds."""
    recents, memories, taken = dict(analysis.recents), dict(analysis.memories), dict[Key, Fresh]()
    for guard in policy.guards:
        tail = SIGNALS[guard.name].tail
        if tail is None:
            continue
        for slice_ in guard.slices:
            seen, key = views[slice_], (tail.histogram, slice_)
            before = analysis.recents.get(key, Recent())
            if key not in taken:
                stages = {view.place: (view.candidate, view.baseline) for view in seen}
                recents[key], taken[key] = before.take(tail.histogram, stages, now)
            shift = shift_of(course_of(analysis.courses, guard, slice_), seen, SIGNALS[guard.name].lag)
            memory = analysis.memories.get((guard.name, slice_), Memory())
            memories[guard.name, slice_] = memory.count(taken[key], before.threshold(tail), guard.margin, shift)
    return recents, memories


def follow(analysis: Analysis, policy: Policy, views: Views, machines: Machines, now: float) -> dict[Key, Course]:
    """Take the blocks that have closed since the last look; what a reference tells until the first one is believed."""
    courses, followed = dict(analysis.courses), set[Key]()
    for guard in policy.guards:
        lag = SIGNALS[guard.name].lag
        if lag is None:
            continue
        for slice_ in guard.slices:
            key = lag.histogram, slice_
            if key not in followed:
                followed.add(key)
                course = courses.get(key)
                if course is None or course.taken[1] < 0:
                    course = _begun(policy.noise[lag.histogram], machines, lag)
                courses[key] = course.take(closed(views[slice_], lag, now, course.taken))
    return courses


def _begun(noise: float, machines: Machines, lag: Lag) -> Course:
    most = most_noise(noise, machines.candidate, machines.baseline)
    reference = machines.references.get(lag.histogram)
    return Course.begin(most) if reference is None else Course.begin(most, reference.belief, reference.variance)


def course_of(courses: Mapping[Key, Course], guard: Guard, slice_: str) -> Course | None:
    """Return what the blocks have said of a guardrail's latency, None if it has none."""
    lag = SIGNALS[guard.name].lag
    return None if lag is None else courses.get((lag.histogram, slice_))


def shift_of(course: Course | None, views: Sequence[StageView], lag: Lag | None) -> int | None:
    """Return how many buckets slower the candidate is as a whole, as earlier looks left it; None: not known yet.

    Where there are no blocks at all (workers that know none) it counts as none.
    """
    if course is not None and course.blocks:
        return math.ceil(course.shift / _LOG_GROWTH)
    known = lag is not None and any(arm.blocks(lag.histogram) for v in views for arm in (v.candidate, v.baseline))
    return None if known else 0


def closed(
    views: Sequence[StageView], lag: Lag, now: float, after: tuple[float, int]
) -> dict[tuple[float, int], Block]:
    """Return the blocks whose reports have had their time, by start and stage, those beyond `after`.

    A change of share ends a block.
    """
    found = {}
    for view in views:
        if not view.random:
            continue
        candidate, baseline = view.candidate.blocks(lag.histogram), view.baseline.blocks(lag.histogram)
        for number in candidate.keys() | baseline.keys():
            start = number * BLOCK_S
            if (start, view.stage) > after and start + BLOCK_S + lag.grace_s <= now:
                arms = (BlockArm(*sums.get(number, (0, 0, 0))) for sums in (candidate, baseline))
                found[start, view.stage] = Block(start, *arms)
    return found
