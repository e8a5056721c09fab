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

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from canary.core import sample_ratio
from canary.core.analysis import Analysis, course_of, follow, remember
from canary.core.bounds import log_sum
from canary.core.finding import Finding, OnBreach, Verdict
from canary.core.policy import Guard, Key, Policy
from canary.core.signals import SIGNALS, Reading, Sight, StageView, sums_of
from canary.core.stages import Machines, StageEvidence, Views, paced, views_of
from canary.core.tails import Memory
from canary.core.tally import Tally

__all__ = ["Analysis", "Machines", "StageEvidence", "look"]

ONE = Machines()
CONTRADICT = "the sums contradict themselves"


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

    @property
    def harmed(self) -> bool:
        """Whether the estimate is bad enough to fail."""
        return self.reading.worse if self.guard.strict else self.reading.beyond


def look(
    analysis: Analysis, policy: Policy, evidence: Sequence[StageEvidence], now: float, machines: Machines = ONE
) -> tuple[Analysis, tuple[Finding, ...]]:
    """Judge all evidence so far; return the new memory and one finding per guardrail and slice, in the policy's order.

    `evidence` holds every stage of the attempt, in any order, with sums since the stage began; `now` is in seconds and
    only ages the tails' reference. The same evidence again changes neither memory nor findings. The last finding is the
    sample ratio's: where chance did not divide the traffic as it should, it pauses.
    """
    stages = sorted(evidence, key=lambda stage: stage.stage)
    slices = tuple(dict.fromkeys(("", *(slice_ for guard in policy.guards for slice_ in guard.slices))))
    views = views_of(stages, slices)
    latencies = paced(views, stages, machines)
    proofs = dict(analysis.proofs)
    courses = follow(analysis, policy, latencies, machines, now)
    after = Analysis(proofs, *remember(analysis, policy, latencies, now), courses)
    findings = [_find(policy, case, proofs) for case in _cases(policy, views, latencies, after)]
    return after, (*findings, _ratio(views, proofs)) if findings else ()


def _ratio(views: Views, proofs: dict[Key, Finding]) -> Finding:
    """Return what the sample ratio says; a mismatch that was proved stays."""
    key = sample_ratio.NAME, ""
    finding = proofs.get(key) or sample_ratio.find(views[""])
    if finding.verdict is Verdict.FAIL:
        proofs[key] = finding
    return finding


def _cases(policy: Policy, views: Views, latencies: Views, after: Analysis) -> Sequence[_Case]:
    """Read each guardrail on each slice: latencies against the control, where there is one, all else against all."""
    weights, locating = policy.weights(), policy.locating
    sums = {slice_: sums_of(seen) for slice_, seen in views.items()}
    paced_sums = {slice_: _sums(latencies[slice_], views[slice_], sums[slice_]) for slice_ in views}
    cases = []
    for guard in policy.guards:
        seen, arms = (latencies, paced_sums) if SIGNALS[guard.name].tail else (views, sums)
        for key in guard.keys:
            sight = Sight(
                stages=seen[key[1]],
                margin=guard.margin,
                memory=after.memories.get(key, Memory()),
                min_samples=policy.min_samples,
                min_pairs=policy.min_pairs,
                planned_stages=policy.stages,
                course=course_of(after.courses, guard, key[1]),
                arms=arms[key[1]],
                located=guard.name in locating,
                max_load_ratio=policy.max_load_ratio,
                log_pass=policy.log_pass,
            )
            cases.append(_Case(guard, key[1], _read(guard, sight), policy.threshold(weights[key])))
    return _with_culprit(policy, cases)


def _sums(seen: Sequence[StageView], whole: Sequence[StageView], sums: tuple[Tally, Tally]) -> tuple[Tally, Tally]:
    """Return the sums of both arms; without a control they are those of the whole."""
    same = all(one.baseline is other.baseline for one, other in zip(seen, whole, strict=True))
    return sums if same else sums_of(seen)


def _read(guard: Guard, sight: Sight) -> Reading:
    try:
        reading = SIGNALS[guard.name].read(sight)
    except (ArithmeticError, ValueError):  # numbers that are finite, and that no traffic leaves
        return Reading(unknown=CONTRADICT)
    if math.isnan(reading.fail) or math.isnan(reading.passing):
        return replace(reading, unknown=CONTRADICT)
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
    return case.guard.on_breach is OnBreach.ROLLBACK and case.harmed and not case.reading.unknown


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
    finding = _finding(policy, case, verdict, why)
    if verdict is Verdict.FAIL or (verdict is Verdict.PASS and proof is None):
        proofs[case.key] = finding
    return finding


def _judge(policy: Policy, case: _Case) -> tuple[Verdict, str]:
    """Return the verdict of the moment and, in words with numbers, what it rests on or what is missing."""
    reading, against = case.reading, f"{_e(case.reading.fail)}"
    if reading.unknown:
        return Verdict.UNKNOWN, reading.unknown
    if case.harmed and reading.fail >= case.threshold:
        return Verdict.FAIL, f"evidence {against} over {_e(case.threshold)}"
    if case.family is not None:
        return Verdict.FAIL, f"evidence of all guardrails {_e(case.family)} over {_e(policy.log_bar)}"
    if reading.missing:
        return Verdict.INCONCLUSIVE, reading.missing
    if not reading.beyond and reading.passing >= policy.log_pass:
        return Verdict.PASS, f"within the margin by evidence {_e(reading.passing)} over {_e(policy.log_pass)}"
    proved = f"against it {against} of {_e(case.threshold)}, for it {_e(reading.passing)} of {_e(policy.log_pass)}"
    return Verdict.INCONCLUSIVE, f"not yet proved: {proved}"


def _finding(policy: Policy, case: _Case, verdict: Verdict, why: str) -> Finding:
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
        passing=None if reading.unknown else reading.passing,
        pass_threshold=policy.log_pass,
        n=reading.n,
        on_breach=guard.on_breach,
    )


def _e(log_evidence: float) -> str:
    return f"e^{log_evidence:.1f}"
