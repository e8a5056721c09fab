"""What is remembered between looks: proofs found, what the tails have counted, what closed blocks have said."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from canary.core.course import Course
from canary.core.finding import Finding
from canary.core.location import Arm as BlockArm
from canary.core.location import Block
from canary.core.noise import most_noise
from canary.core.policy import Guard, Key, Policy
from canary.core.signals import SIGNALS, Lag, StageView
from canary.core.stages import Machines, Views
from canary.core.tails import Memory
from canary.core.tally import BLOCK_S, GROWTH

_LOG_GROWTH = math.log(GROWTH)


@dataclass(frozen=True, slots=True)
class Analysis:
    """All that is remembered between looks: proofs found, what the tails have counted, what blocks have said.

    Proofs and memories are kept by guardrail and slice, courses by latency ("ttft", "tpot") and slice.
    """

    proofs: Mapping[Key, Finding] = field(default_factory=dict)
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
            "memories": [[*key, memory.to_plain()] for key, memory in self.memories.items()],
            "courses": [[*key, course.to_plain()] for key, course in self.courses.items()],
        }
        return json.dumps(plain, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> Analysis:
        """Read what `to_json` wrote. Raises ValueError, KeyError or TypeError on anything else."""
        plain = json.loads(text)
        findings = [Finding.from_dict(value) for value in plain["proofs"]]
        return cls(
            {(finding.guardrail, finding.slice): finding for finding in findings},
            {(name, slice_): Memory.from_plain(memory) for name, slice_, memory in plain["memories"]},
            {(name, slice_): Course.from_plain(course) for name, slice_, course in plain.get("courses", ())},
        )


def remember(analysis: Analysis, policy: Policy, views: Views, now: float) -> dict[Key, Memory]:
    """Count what is new in the tails, as far as the blocks of earlier looks do not explain it; `now` in seconds."""
    memories = dict(analysis.memories)
    for guard in policy.guards:
        tail = SIGNALS[guard.name].tail
        if tail is None:
            continue
        for key in guard.keys:
            stages = {view.stage: (view.candidate, view.baseline) for view in views[key[1]]}
            shift = shift_of(course_of(analysis.courses, guard, key[1]), views[key[1]], SIGNALS[guard.name].lag)
            memories[key] = memories.get(key, Memory()).update(tail, guard.margin, stages, now, shift)
    return memories


def follow(analysis: Analysis, policy: Policy, views: Views, machines: Machines, now: float) -> dict[Key, Course]:
    """Take the blocks that have closed since the last look; what a reference tells is believed from the first on."""
    courses, followed = dict(analysis.courses), set[Key]()
    for guard in policy.guards:
        lag = SIGNALS[guard.name].lag
        if lag is None:
            continue
        for slice_ in guard.slices:
            key = lag.histogram, slice_
            if key not in followed:
                followed.add(key)
                course = courses.get(key) or _begun(policy.noise[lag.histogram], machines, lag)
                courses[key] = course.take(closed(views[slice_], lag, now))
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


def closed(views: Sequence[StageView], lag: Lag, now: float) -> dict[tuple[float, int], Block]:
    """Return the blocks whose reports have had their time, by start and stage; a change of share ends a block."""
    found = {}
    for view in views:
        if not view.random:
            continue
        candidate, baseline = view.candidate.blocks(lag.histogram), view.baseline.blocks(lag.histogram)
        for number in candidate.keys() | baseline.keys():
            start = number * BLOCK_S
            if start + BLOCK_S + lag.grace_s <= now:
                arms = (BlockArm(*sums.get(number, (0, 0, 0))) for sums in (candidate, baseline))
                found[start, view.stage] = Block(start, *arms)
    return found
