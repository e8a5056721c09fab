"""A release's guardrails over traffic that is made up: the controller's code, a thousand times, before it is needed.

Every request becomes an outcome in a worker's own ledger, every look is the guardrails' own. What is drawn: arrivals
(Poisson), the arm of each, latencies around a load that both arms share and a slow noise that is one machine's own,
events, prices, shadow scores. Seeded: the same world and seed make the same story.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from canary.core.arms import Arm
from canary.core.finding import Finding, OnBreach, Verdict
from canary.core.guardrails import Analysis, StageEvidence, look
from canary.core.ledger import Ledger
from canary.core.outcome import Outcome, Result
from canary.core.policy import Policy
from canary.core.tally import Tally, merged, parse

START = 1_800_000_000.0  # Unix seconds, a block's beginning


@dataclass(frozen=True, slots=True)
class Traffic:
    """What comes, and how the baseline answers it. Rates in 0..1; `_sd` are standard deviations of the log.

    `rate` in requests a second; `load_sd` and `load_tau` (seconds) of a load that slows both arms alike.
    """

    rate: float = 20.0
    error: float = 0.005
    empty: float = 0.005
    truncated: float = 0.02
    ttft_s: float = 0.3
    ttft_sd: float = 0.5
    tpot_s: float = 0.02
    tpot_sd: float = 0.2
    cost_usd: float = 2e-4
    cost_sd: float = 0.5
    pairs_per_s: float = 1.0
    pair_sd: float = 0.25
    load_sd: float = 0.3
    load_tau: float = 120.0
    refusal: float = 0.005
    malformed: float = 0.005
    repetition: float = 0.005
    stall_s: float = 0.06
    stall_sd: float = 0.5


@dataclass(frozen=True, slots=True)
class Harm:
    """How the candidate is worse: factors of latency and cost, what is added to a rate, what is taken from a score.

    `stall` is a factor of TTFT for the part `stalled` of its requests, `gap` one of the longest wait within an answer,
    `length` one of its tokens.
    """

    ttft: float = 1.0
    tpot: float = 1.0
    cost: float = 1.0
    error: float = 0.0
    quality: float = 0.0
    stall: float = 1.0
    stalled: float = 0.0
    refusal: float = 0.0
    malformed: float = 0.0
    repetition: float = 0.0
    empty: float = 0.0
    truncated: float = 0.0
    gap: float = 1.0
    length: float = 1.0


FLAWS = ("refusal", "malformed", "repetition")


@dataclass(frozen=True, slots=True)
class OwnNoise:
    """Slow noise of a machine's own, an Ornstein-Uhlenbeck process of the log latency; `both` arms have one, or one."""

    ttft_sd: float = 0.0
    tpot_sd: float = 0.0
    tau: float = 60.0
    both: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """A share of the traffic in 0..1 for some seconds, while so many times as much arrives, and slower."""

    share: float
    seconds: int
    load: float = 1.0


@dataclass(frozen=True, slots=True)
class World:
    """One story to be told again and again."""

    steps: Sequence[Step]
    traffic: Traffic = Traffic()
    harm: Harm = Harm()
    noise: OwnNoise = OwnNoise()

    @property
    def seconds(self) -> int:
        """How long it lasts."""
        return sum(step.seconds for step in self.steps)


@dataclass(frozen=True, slots=True)
class Told:
    """How a story ended: the failing guardrail if one rolled back, when, and the candidate's requests by then."""

    seconds: int
    requests: int
    failed: str = ""


def tell(world: World, policy: Policy, seed: int, every: int = 1) -> Told:
    """Tell one story, looking every so many seconds; it ends at the first failure that rolls back."""
    ledger, analysis, requests = Ledger(), Analysis.initial(), 0
    sums: dict[tuple[int, str, str], Tally] = {}
    second = 0
    for second, stage, outcomes, pairs in _seconds(world, np.random.default_rng(seed)):
        for outcome in outcomes:
            ledger.assigned(stage, outcome.arm, "")
            ledger.record(outcome)
            requests += outcome.arm is Arm.CANDIDATE
        for d in pairs:
            ledger.pair(stage, "", d)
        if second % every and second < world.seconds:
            continue
        for key, tally in parse({name: str(amount) for name, amount in ledger.drain().items()}).items():
            sums[key] = merged((sums[key], tally)) if key in sums else tally
        analysis, findings = look(analysis, policy, _evidence(world, sums), START + second)
        failed = next(filter(_rolls_back, findings), None)
        if failed is not None:
            return Told(second, requests, failed.guardrail)
    return Told(second, requests)


def _rolls_back(finding: Finding) -> bool:
    return finding.verdict is Verdict.FAIL and finding.on_breach is OnBreach.ROLLBACK


def _evidence(world: World, sums: dict[tuple[int, str, str], Tally]) -> list[StageEvidence]:
    found: dict[int, dict[tuple[str, str], Tally]] = {}
    for (stage, arm, slice_), tally in sums.items():
        found.setdefault(stage, {})[arm, slice_] = tally
    return [StageEvidence(stage, world.steps[stage - 1].share, tallies) for stage, tallies in sorted(found.items())]


@dataclass(frozen=True, slots=True)
class _Second:
    """One second of a stage: when it begins, how slow everything is, and each arm's own drift, in log units."""

    stage: int
    at: float
    slow: float
    drifts: dict[Arm, float]


def _seconds(world: World, chance: np.random.Generator) -> Iterator[tuple[int, int, list[Outcome], list[float]]]:
    """Yield each second that is over, its stage, the requests that it drew, and the scores that its shadow gave."""
    traffic, noise = world.traffic, world.noise
    texts = chance.spawn(1)[0]  # of its own, so that what is drawn of texts moves nothing else
    load = _Drift(traffic.load_sd, traffic.load_tau, chance)
    own = {
        Arm.CANDIDATE: _Drift(1.0, noise.tau, chance),
        Arm.BASELINE: _Drift(1.0 if noise.both else 0.0, noise.tau, chance),
    }
    number = 0
    for stage, step in enumerate(world.steps, start=1):
        shares = {Arm.CANDIDATE: step.share, Arm.BASELINE: 1 - step.share}
        for _ in range(step.seconds):
            drifts = {arm: drift.next() for arm, drift in own.items()}
            second = _Second(stage, START + number, load.next() + math.log(step.load), drifts)
            number += 1
            outcomes = []
            for arm, share in shares.items():
                drawn = _answers(world, arm, chance.poisson(traffic.rate * step.load * share), second, chance)
                outcomes += _texts(world, arm, drawn, drifts[arm], texts)
            scores = chance.normal(-world.harm.quality, traffic.pair_sd, chance.poisson(traffic.pairs_per_s))
            yield number, stage, outcomes, [max(-1.0, min(1.0, round(float(d), 3))) for d in scores]


def _answers(world: World, arm: Arm, count: int, second: _Second, chance: np.random.Generator) -> list[Outcome]:
    """Draw one arm's requests of one second."""
    traffic, noise, drift = world.traffic, world.noise, second.drifts[arm]
    harm = world.harm if arm is Arm.CANDIDATE else Harm()
    slow = second.slow + chance.normal(0, traffic.ttft_sd, count)
    ttft = traffic.ttft_s * harm.ttft * np.exp(slow + noise.ttft_sd * drift)
    ttft = np.where(chance.random(count) < harm.stalled, harm.stall * ttft, ttft)
    tpot = traffic.tpot_s * harm.tpot * np.exp(noise.tpot_sd * drift + chance.normal(0, traffic.tpot_sd, count))
    tokens = np.rint(harm.length * chance.integers(20, 200, count)).astype(int)
    cost = traffic.cost_usd * harm.cost * np.exp(chance.normal(0, traffic.cost_sd, count))
    lucks = chance.random((3, count))
    return [
        Outcome(
            arm,
            Result.ERROR if lucks[0, i] < traffic.error + harm.error else Result.OK,
            stage=second.stage,
            e2e=float(ttft[i] + tokens[i] * tpot[i]),
            ttft=float(ttft[i]),
            tpot=float(tpot[i]),
            prompt_tokens=100,
            completion_tokens=0 if lucks[1, i] < traffic.empty + harm.empty else int(tokens[i]),
            finish_reason="length" if lucks[2, i] < traffic.truncated + harm.truncated else "stop",
            cost_usd=float(cost[i]),
            at=second.at,
        )
        for i in range(count)
    ]


def _texts(world: World, arm: Arm, answers: list[Outcome], drift: float, chance: np.random.Generator) -> list[Outcome]:
    """Draw what an answer's text shows: flaws, and the longest wait between two of its pieces."""
    traffic, harm = world.traffic, world.harm if arm is Arm.CANDIDATE else Harm()
    rates = np.array([getattr(traffic, flaw) + getattr(harm, flaw) for flaw in FLAWS])
    flawed = chance.random((len(answers), len(FLAWS))) < rates
    slow = world.noise.tpot_sd * drift + chance.normal(0, traffic.stall_sd, len(answers))
    gaps = traffic.stall_s * harm.gap * np.exp(slow)
    return [
        replace(
            answer,
            stall=float(gaps[i]),
            flaws=tuple(flaw for flaw, has in zip(FLAWS, flawed[i], strict=True) if has),
        )
        for i, answer in enumerate(answers)
    ]


class _Drift:
    """A stationary Ornstein-Uhlenbeck process, a value a second."""

    def __init__(self, sd: float, tau: float, chance: np.random.Generator) -> None:
        self._keep = math.exp(-1 / tau)
        self._fresh = sd * math.sqrt(1 - self._keep**2)
        self._value = float(chance.normal(0, sd))
        self._chance = chance

    def next(self) -> float:
        """Return the value one second later."""
        self._value = self._keep * self._value + self._fresh * float(self._chance.normal())
        return self._value
