"""The guardrails of a release: one family, looked at as often as one likes, with latched verdicts.

`look` is the whole of it: evidence in, findings out, all memory in a frozen `Analysis`. The chance that a candidate
which is no worse is ever rolled back by the whole family is at most alpha, however often it is looked at:

- alpha is spent: 5 % of it belongs to the workers' tripwire, 10 % to tests of the latencies' location, 85 % to the
  family here (alpha_E). Each guardrail has a weight w, all weights sum to one, and its slices share it.
- FAIL: a guardrail's own e-value reaches 1/(alpha_E w), or the weighted sum of all e-values whose estimates lie beyond
  their margins reaches 1/alpha_E (Vovk & Wang 2021), and then the largest contribution is what failed.
- PASS: "at or beyond the margin" is rejected at beta, with the smallest sample reached. Else INCONCLUSIVE, saying what
  is missing; UNKNOWN without data or with sums that contradict themselves. FAIL absorbs; PASS stays until FAIL.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from canary.core.arms import Arm
from canary.core.bounds import log_sum
from canary.core.finding import Finding, OnBreach, Verdict
from canary.core.location import Arm as BlockArm
from canary.core.location import Belief, Block, Course
from canary.core.noise import most_noise
from canary.core.policy import Guard, Key, Policy
from canary.core.signals import SIGNALS, Lag, Reading, Sight, StageView, sums_of
from canary.core.tails import Memory
from canary.core.tally import BLOCK_S, GROWTH, Tally, merged

_LOG_GROWTH = math.log(GROWTH)


@dataclass(frozen=True, slots=True)
class StageEvidence:
    """All sums of one stage: `share` is the candidate's probability (0..1); `tallies` is keyed (arm, slice)."""

    stage: int
    share: float
    tallies: Mapping[tuple[str, str], Tally]

    def view(self, slice_: str) -> StageView:
        """Return both arms' sums of one slice; "" is the sum of all slices."""
        return StageView(self.stage, self.share, self._sum(Arm.CANDIDATE, slice_), self._sum(Arm.BASELINE, slice_))

    def _sum(self, arm: str, slice_: str) -> Tally:
        wanted = (key for key in sorted(self.tallies) if key[0] == arm and slice_ in ("", key[1]))
        return merged(self.tallies[key] for key in wanted)


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


@dataclass(frozen=True, slots=True)
class _Case:
    """One guardrail on one slice, as it stands: what it read, its threshold, and the family's evidence if it failed."""

    guard: Guard
    slice: str
    reading: Reading
    threshold: float
    family: float | None = None

    @property
    def key(self) -> Key:
        return self.guard.name, self.slice


def look(
    analysis: Analysis, policy: Policy, evidence: Sequence[StageEvidence], now: float
) -> tuple[Analysis, tuple[Finding, ...]]:
    """Judge all evidence so far; return the new memory and one finding per guardrail and slice, in the policy's order.

    `evidence` holds every stage of the attempt, in any order, with sums since the stage began; `now` is in seconds and
    only ages the tails' reference. The same evidence again changes neither memory nor findings.
    """
    stages = sorted(evidence, key=lambda stage: stage.stage)
    slices = dict.fromkeys(slice_ for guard in policy.guards for slice_ in guard.slices)
    views = {slice_: [stage.view(slice_) for stage in stages] for slice_ in slices}
    memories, courses = _remember(analysis, policy, views, now), _follow(analysis, policy, views, now)
    proofs = dict(analysis.proofs)
    findings = tuple(_find(policy, case, proofs) for case in _cases(policy, views, memories, courses))
    return Analysis(proofs, memories, courses), findings


def _remember(
    analysis: Analysis, policy: Policy, views: Mapping[str, Sequence[StageView]], now: float
) -> dict[Key, Memory]:
    memories = dict(analysis.memories)
    for guard in policy.guards:
        tail = SIGNALS[guard.name].tail
        if tail is None:
            continue
        for key in guard.keys:
            stages = {view.stage: (view.candidate, view.baseline) for view in views[key[1]]}
            shift = _shift(_course(analysis.courses, guard, key[1]), views[key[1]], tail.histogram)
            memories[key] = memories.get(key, Memory()).update(tail, guard.margin, stages, now, shift)
    return memories


def _follow(
    analysis: Analysis, policy: Policy, views: Mapping[str, Sequence[StageView]], now: float
) -> dict[Key, Course]:
    """Take the blocks that have closed since the last look."""
    courses, followed = dict(analysis.courses), set[Key]()
    for guard in policy.guards:
        lag = SIGNALS[guard.name].lag
        if lag is None:
            continue
        for slice_ in guard.slices:
            key = lag.histogram, slice_
            if key not in followed:
                followed.add(key)
                course = courses.get(key) or Course(most_noise(lag.spread, 1, 1))
                blocks = _closed(views[slice_], lag, now)
                courses[key] = course.take(blocks, Belief.without_reference(course.laws))
    return courses


def _course(courses: Mapping[Key, Course], guard: Guard, slice_: str) -> Course | None:
    lag = SIGNALS[guard.name].lag
    return None if lag is None else courses.get((lag.histogram, slice_))


def _shift(course: Course | None, views: Sequence[StageView], latency: str) -> int | None:
    """Return how many buckets slower the candidate is as a whole, as earlier looks left it; None: not known yet.

    Where there are no blocks at all (workers that know none) it counts as none.
    """
    if course is not None and course.blocks:
        return math.ceil(course.shift / _LOG_GROWTH)
    return None if any(view.candidate.blocks(latency) or view.baseline.blocks(latency) for view in views) else 0


def _closed(views: Sequence[StageView], lag: Lag, now: float) -> dict[tuple[float, int], Block]:
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


def _cases(
    policy: Policy,
    views: Mapping[str, Sequence[StageView]],
    memories: Mapping[Key, Memory],
    courses: Mapping[Key, Course],
) -> Sequence[_Case]:
    weights, arms = policy.weights(), {slice_: sums_of(seen) for slice_, seen in views.items()}
    cases = []
    for guard in policy.guards:
        for key in guard.keys:
            sight = Sight(
                stages=views[key[1]],
                margin=guard.margin,
                memory=memories.get(key, Memory()),
                min_samples=policy.min_samples,
                min_pairs=policy.min_pairs,
                planned_stages=policy.stages,
                course=_course(courses, guard, key[1]),
                arms=arms[key[1]],
            )
            reading = _read(guard, sight)
            cases.append(_Case(guard, key[1], reading, policy.log_bar - math.log(weights[key])))
    return _with_culprit(policy, cases)


def _read(guard: Guard, sight: Sight) -> Reading:
    reading = SIGNALS[guard.name].read(sight)
    if math.isnan(reading.fail) or math.isnan(reading.passing):
        return replace(reading, unknown="the sums contradict themselves")
    return reading


def _with_culprit(policy: Policy, cases: Sequence[_Case]) -> Sequence[_Case]:
    """Mark the largest contribution where the weighted e-values beyond their margins together reach 1/alpha_E."""
    joined = [case for case in cases if _counts(case)]
    total = log_sum([_over(policy, case) for case in joined])
    if total < policy.log_bar:
        return cases
    culprit = max(joined, key=lambda case: _over(policy, case))
    return [replace(case, family=total) if case is culprit else case for case in cases]


def _counts(case: _Case) -> bool:
    return case.guard.on_breach is OnBreach.ROLLBACK and case.reading.beyond and not case.reading.unknown


def _over(policy: Policy, case: _Case) -> float:
    """Return ln(w E)."""
    return case.reading.fail - case.threshold + policy.log_bar


def _find(policy: Policy, case: _Case, proofs: dict[Key, Finding]) -> Finding:
    """Give one verdict, in a fixed order: a proved failure, untrusted evidence, failure, a proved pass, pass."""
    proof = proofs.get(case.key)
    if proof is not None and proof.verdict is Verdict.FAIL:
        return proof
    verdict, why = _judge(policy, case)
    if proof is not None and verdict is Verdict.INCONCLUSIVE:
        verdict, why = Verdict.PASS, f"passed at n = {proof.n}"
    finding = _finding(case, verdict, why)
    if verdict is Verdict.FAIL or (verdict is Verdict.PASS and proof is None):
        proofs[case.key] = finding
    return finding


def _judge(policy: Policy, case: _Case) -> tuple[Verdict, str]:
    """Return the verdict of the moment and, in words with numbers, what it rests on or what is missing."""
    reading, against = case.reading, f"{_e(case.reading.fail)}"
    if reading.unknown:
        return Verdict.UNKNOWN, reading.unknown
    if reading.beyond and reading.fail >= case.threshold:
        return Verdict.FAIL, f"evidence {against} over {_e(case.threshold)}"
    if case.family is not None:
        return Verdict.FAIL, f"evidence of all guardrails {_e(case.family)} over {_e(policy.log_bar)}"
    if reading.missing:
        return Verdict.INCONCLUSIVE, reading.missing
    if not reading.beyond and reading.passing >= policy.log_pass:
        return Verdict.PASS, f"within the margin by evidence {_e(reading.passing)} over {_e(policy.log_pass)}"
    proved = f"against it {against} of {_e(case.threshold)}, for it {_e(reading.passing)} of {_e(policy.log_pass)}"
    return Verdict.INCONCLUSIVE, f"not yet proved: {proved}"


def _finding(case: _Case, verdict: Verdict, why: str) -> Finding:
    guard, reading = case.guard, case.reading
    name = f"{guard.name} of slice {case.slice}" if case.slice else guard.name
    facts = f" {reading.facts}; " if reading.facts else ": "
    return Finding(
        guardrail=guard.name,
        slice=case.slice,
        verdict=verdict,
        reason=f"{name}{facts}{why}",
        estimate=reading.estimate,
        low=reading.low,
        high=reading.high,
        margin=guard.margin if reading.margin is None else reading.margin,
        evidence=None if reading.unknown else reading.fail,
        threshold=case.threshold,
        n=reading.n,
        on_breach=guard.on_breach,
    )


def _e(log_evidence: float) -> str:
    return f"e^{log_evidence:.1f}"
