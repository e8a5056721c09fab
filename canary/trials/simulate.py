"""A release's guardrails over made-up or recorded traffic: the controller's code, a thousand times, ahead of need.

Every request becomes an outcome in a worker's own ledger, every look is the guardrails' own. Seeded: the same world and
seed make the same story.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from canary.core.arms import Arm
from canary.core.finding import Finding, OnBreach, Verdict
from canary.core.guardrails import Analysis, StageEvidence, look
from canary.core.ledger import Ledger
from canary.core.policy import Policy
from canary.core.tally import Amount, Tally
from canary.trials.drawing import Second, seconds
from canary.trials.world import START, Harm, OwnNoise, Step, Traffic, World

__all__ = ["START", "Harm", "OwnNoise", "Step", "Told", "Traffic", "World", "tell"]


@dataclass(frozen=True, slots=True)
class Told:
    """How a story ended: the failing guardrail if one rolled back, when, and the candidate's requests by then."""

    seconds: int
    requests: int
    failed: str = ""


def tell(world: World, policy: Policy, seed: int, every: int = 1) -> Told:
    """Tell one story, looking every so many seconds; it ends at the first failure that rolls back."""
    ledger, sums, analysis, requests = Ledger(), Sums(), Analysis.initial(), 0
    for second in seconds(world, np.random.default_rng(seed)):
        requests += _count(ledger, second)
        if second.number % every and second.number < world.seconds:
            continue
        sums.add(ledger.drain())
        analysis, findings = look(analysis, policy, sums.evidence(world.steps), START + second.number)
        failed = next(filter(_rolls_back, findings), None)
        if failed is not None:
            return Told(second.number, requests, failed.guardrail)
    return Told(world.seconds, requests)


def _count(ledger: Ledger, second: Second) -> int:
    """Count a second's requests and pairs; return how many were the candidate's."""
    stage, candidates = second.stage, 0
    for outcome in second.outcomes:
        ledger.assigned(stage, outcome.arm, outcome.slice, control=outcome.control)
        ledger.record(outcome)
        candidates += outcome.arm is Arm.CANDIDATE
    for slice_, difference in second.pairs:
        ledger.pair(stage, slice_, difference)
    return candidates


def _rolls_back(finding: Finding) -> bool:
    return finding.verdict is Verdict.FAIL and finding.on_breach is OnBreach.ROLLBACK


class Sums:
    """What a store would hold: all that was drained, as tallies; only what has changed becomes a new one."""

    def __init__(self) -> None:
        self._amounts: dict[str, tuple[dict[str, int], dict[str, float]]] = {}
        self._stages: dict[int, dict[tuple[str, str], Tally]] = {}

    def add(self, drained: Mapping[str, Amount]) -> None:
        """Add a ledger's sums."""
        changed = set()
        for name, amount in drained.items():
            key, _, word = name.rpartition("|")
            changed.add(key)
            counts, sums = self._amounts.setdefault(key, ({}, {}))
            if isinstance(amount, float):
                sums[word] = sums.get(word, 0.0) + amount
            else:
                counts[word] = counts.get(word, 0) + amount
        for key in changed:
            stage, arm, slice_ = key.split("|", 2)
            counts, sums = self._amounts[key]
            self._stages.setdefault(int(stage), {})[arm, slice_] = Tally(counts, dict(sums))

    def evidence(self, steps: Sequence[Step]) -> list[StageEvidence]:
        """Return it by stage, with the candidate's share of each."""
        return [
            StageEvidence(stage, steps[stage - 1].share, tallies) for stage, tallies in sorted(self._stages.items())
        ]
