"""Seeded traffic through the whole family: identical arms, looked at all the time, are rarely rolled back."""

import random

import pytest

from canary.core.arms import Arm
from canary.core.finding import Verdict
from canary.core.guardrails import Analysis, StageEvidence, look
from canary.core.ledger import Ledger
from canary.core.outcome import Outcome, Result
from canary.core.policy import Guard, Policy
from canary.core.tally import Tally, merged, parse

NARROW = Policy(
    (
        Guard("error_rate", 0.005),
        Guard("ttft_p95", 1.1),
        Guard("tpot_p95", 1.1),
        Guard("cost_per_token", 1.05),
        Guard("cost_per_request", 1.15),
        Guard("shadow_quality", -0.02),
    ),
    alpha=0.10,  # ten times the default, so that a broken bound shows in few runs
)
WIDE = Policy(
    (Guard("error_rate", 0.05), Guard("ttft_p95", 1.5), Guard("tpot_p95", 1.5), Guard("cost_per_token", 1.2)),
    min_samples=60,
    noise={"ttft": 0.0, "tpot": 0.0},  # a thousand requests tell nothing of machines
)


def verdicts(policy: Policy, seed: int, share: float, *, looks: int, each: int, slow: float = 1.0):
    """Yield the number of requests and the verdicts after every look; `each` requests come between two."""
    chance, ledger, memory = random.Random(seed), Ledger(), Analysis.initial()
    sums = {(Arm.CANDIDATE.value, ""): Tally(), (Arm.BASELINE.value, ""): Tally()}
    for number in range(1, looks + 1):
        for _ in range(each):
            outcome = answer(chance, candidate=chance.random() < share, slow=slow)
            ledger.assigned(1, outcome.arm, "")
            ledger.record(outcome)
            ledger.pair(1, "", round(chance.gauss(0, 0.15), 3))
        for (_, arm, slice_), tally in parse({k: str(v) for k, v in ledger.drain().items()}).items():
            sums[arm, slice_] = merged([sums[arm, slice_], tally])
        memory, findings = look(memory, policy, [StageEvidence(1, share, sums)], now=float(number))
        yield number * each, {finding.guardrail: finding.verdict for finding in findings}


def answer(chance: random.Random, *, candidate: bool, slow: float) -> Outcome:
    """One seeded request; the candidate's tokens take `slow` times as long."""
    tokens = chance.randint(5, 60)
    return Outcome(
        Arm.CANDIDATE if candidate else Arm.BASELINE,
        Result.ERROR if chance.random() < 0.03 else Result.OK,
        stage=1,
        ttft=0.1 * chance.lognormvariate(0, 0.35),
        tpot=0.02 * chance.lognormvariate(0, 0.2) * (slow if candidate else 1.0),
        prompt_tokens=chance.randint(20, 200),
        completion_tokens=tokens,
        cost_usd=1e-6 * tokens + 2e-6,
    )


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_identical_arms_under_peeking_are_rarely_rolled_back(share: float) -> None:
    """Of 100 runs at alpha 10 %, at most 16 fail: more would come by chance less than once in fifty times."""
    failed = sum(
        any(Verdict.FAIL in found.values() for _, found in verdicts(NARROW, seed, share, looks=10, each=60))
        for seed in range(100)
    )
    assert failed <= 16


@pytest.mark.parametrize(("share", "requests"), [(0.2, 400), (0.5, 280)])
def test_tokens_twice_as_slow_are_found_within_a_few_hundred_requests(share: float, requests: int) -> None:
    """The median of 9 seeded runs reaches FAIL on tpot_p95 within the stated number of requests, both arms together."""
    runs = [
        next(
            (
                n
                for n, found in verdicts(WIDE, seed, share, looks=80, each=10, slow=2.0)
                if Verdict.FAIL in found.values()
            ),
            10**6,
        )
        for seed in range(9)
    ]
    assert sorted(runs)[4] <= requests


def test_an_equal_candidate_passes_wide_margins_within_a_thousand_requests() -> None:
    """At half the traffic, every wide guardrail passes in the median of 7 seeded runs, and none fails in any."""
    runs = []
    for seed in range(7):
        seen = list(verdicts(WIDE, 100 + seed, 0.5, looks=50, each=20))
        assert all(Verdict.FAIL not in found.values() for _, found in seen)
        runs.append(next((n for n, found in seen if set(found.values()) == {Verdict.PASS}), 10**6))
    assert sorted(runs)[3] <= 1000
