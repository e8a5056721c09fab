"""The product's own way over a crowd's traffic: outcomes, a worker's ledger, tallies, one look a second."""

import numpy as np

from bench.guardrails import references
from bench.guardrails.references import References, blocks
from canary.core.arms import Arm
from canary.core.guardrails import Analysis, Machines, StageEvidence, look
from canary.core.ledger import Ledger
from canary.core.location import Arm as BlockArm
from canary.core.location import Block
from canary.core.outcome import Outcome, Result
from canary.core.reference import Reference
from canary.core.tally import BLOCK_S, COST_GRID, merged, parse, seconds
from canary.trials.simulate import START

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

    def __init__(self, policy, scene, run, told=None):
        self._policy, self._scene, self._run = policy, scene, run
        self._machines = Machines(1, 1, told or {})
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


def referred(noise, tau, runs, most=0.18):
    """The same hours of blocks, as many as a reference of ours takes, to both: ours, and the product's of each run."""
    ours, theirs = References(most, runs), [Reference.of_replicas(most, 1, 1)] * runs
    some = blocks(20, 0.5, (noise, tau), chance(), runs)
    for number, halves in zip(range(references.COUNTED + 10), some, strict=False):
        start = 10.0 * number
        for run in np.flatnonzero(ours.blocks < references.COUNTED):
            arms = (BlockArm(*map(int, (halves.n[run, i], halves.k[run, i], halves.kk[run, i]))) for i in (0, 1))
            theirs[run] = theirs[run].take({start: Block(start, *arms)})
        ours.take(halves)
    return ours.beliefs(), theirs


def chance(seed=1):
    """A seeded source of chance."""
    return np.random.default_rng(seed)
