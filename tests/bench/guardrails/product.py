"""The product's own way over a crowd's traffic: outcomes, a worker's ledger, tallies, one look a second."""

import numpy as np

from canary.core.arms import Arm
from canary.core.guardrails import Analysis, Machines, StageEvidence, look
from canary.core.ledger import Ledger
from canary.core.outcome import Outcome, Result
from canary.core.tally import BLOCK_S, COST_GRID, merged, parse, seconds
from canary.simulate import START

ARMS = (Arm.BASELINE, Arm.CANDIDATE)


def outcomes(reports, run):
    """One run's reports as a worker would have seen them."""
    mine = reports.at(reports.run == run)
    return [
        Outcome(
            ARMS[mine.arm[i]],
            Result.ERROR if mine.failed[i] else Result.OK,
            stage=int(mine.stage[i]) + 1,
            ttft=seconds(mine.ttft[i] - 0.5),
            tpot=seconds(mine.tpot[i] - 0.5),
            prompt_tokens=100,
            completion_tokens=int(mine.tokens[i]) - 100,
            finish_reason="length" if mine.truncated[i] else "stop",
            cost_usd=int(mine.cost[i]) / COST_GRID,
            at=START + BLOCK_S * int(mine.block[i]),
            unit=int(mine.unit[i]),
        )
        for i in range(len(mine.run))
    ]


class Product:
    """One run as the controller sees it."""

    def __init__(self, policy, scene, run, references=None):
        self._policy, self._scene, self._run = policy, scene, run
        self._machines = Machines(1, 1, references or {})
        self._ledger, self._analysis, self._sums, self._claimed = Ledger(), Analysis.initial(), {}, set()

    def take(self, second):
        """Count a second, and look; the findings by guardrail."""
        for outcome in outcomes(second.reports, self._run):
            self._ledger.record(outcome)
        for d in second.pairs[second.pair_runs == self._run]:
            self._ledger.pair(second.stage + 1, "", d / 1000)
        for key, tally in parse({name: str(amount) for name, amount in self._drained().items()}).items():
            self._sums[key] = merged((self._sums[key], tally)) if key in self._sums else tally
        now = START + second.number
        self._analysis, findings = look(self._analysis, self._policy, self._evidence(), now, self._machines)
        return {finding.guardrail: finding for finding in findings}

    def _drained(self):
        """What was flushed, the claims settled as the store does."""
        drained = self._ledger.drain()
        for claim in self._ledger.claims():
            told = claim.again if claim.offset in self._claimed else claim.fresh
            self._claimed.add(claim.offset)
            for name, amount in told.items():
                drained[name] = drained.get(name, 0) + amount
        return drained

    def _evidence(self):
        found = {}
        for (stage, arm, slice_), tally in self._sums.items():
            found.setdefault(stage, {})[arm, slice_] = tally
        return [StageEvidence(stage, self._scene.shares[stage - 1], found[stage]) for stage in sorted(found)]


def chance(seed=1):
    """A seeded source of chance."""
    return np.random.default_rng(seed)
