"""Laws of the verdicts: who counts, when it is flushed and looked at change nothing, and nothing is taken back."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from canary.core.arms import Arm
from canary.core.finding import Finding, OnBreach, Verdict
from canary.core.guardrails import Analysis, Machines, StageEvidence, look
from canary.core.ledger import Ledger
from canary.core.outcome import Outcome, Result
from canary.core.policy import Guard, Policy
from canary.core.tally import Tally, parse
from tests.canary.core.test_hostile import ALL, good
from tests.canary.core.test_reference import QUIET

SHARES = {1: 0.2, 2: 0.5}
MACHINES = Machines(1, 1, {"ttft": QUIET})
SETTINGS = settings(max_examples=12, deadline=None)


class Sums:
    """What a store does with numbered deltas and claims."""

    def __init__(self) -> None:
        self.fields: dict[str, float] = {}
        self.bits: set[int] = set()

    def add(self, ledger: Ledger) -> None:
        """Take what one worker has counted."""
        self._raise(ledger.drain())
        for claim in ledger.claims():
            self._raise(claim.again if claim.offset in self.bits else claim.fresh)
            self.bits.add(claim.offset)

    def evidence(self) -> list[StageEvidence]:
        """What the controller makes of it."""
        tallies = parse({name: repr(amount) for name, amount in self.fields.items()})
        return [
            StageEvidence(at, share, {(arm, slice_): tally for (n, arm, slice_), tally in tallies.items() if n == at})
            for at, share in SHARES.items()
        ]

    def _raise(self, fields: Mapping[str, float]) -> None:
        for name, amount in fields.items():
            self.fields[name] = self.fields.get(name, 0) + amount


def asked(seed: int, n: int, harm: float, first: int = 0) -> list[Outcome]:
    """Seeded requests of users and of nobody; whatever a user asks again ends as the first time."""
    found = []
    for number in range(first, first + n):
        same = number if number % 3 else number % 30
        chance, stage = random.Random(f"{seed} {same}"), 1 + (number >= 200)
        candidate = chance.random() < SHARES[stage]
        found.append(
            Outcome(
                Arm.CANDIDATE if candidate else Arm.BASELINE,
                Result.ERROR if chance.random() < 0.03 + harm * candidate else Result.OK,
                slice=chance.choice(["", "a"]),
                stage=stage,
                ttft=0.1 * chance.lognormvariate(0, 0.3) * (1 + harm * candidate),
                tpot=0.02 * chance.lognormvariate(0, 0.2),
                stall=0.05 * chance.lognormvariate(0, 0.2),
                e2e=2.0,
                prompt_tokens=50,
                completion_tokens=chance.randint(5, 40),
                cost_usd=chance.randint(1, 9) * 1e-5,
                at=1e9 + same,
                unit=0 if number % 3 else chance.getrandbits(50) or 1,
                control=not candidate and stage == 2 and chance.random() < 0.5,
                flaws=("refusal",) if chance.random() < 0.05 else (),
            )
        )
    return found


def counted(sums: Sums, outcomes: Iterable[Outcome], workers: int, order: random.Random | None = None) -> None:
    """Let workers count them, in any order and with flushes anywhere in between."""
    ledgers = [Ledger() for _ in range(workers)]
    shuffled = list(outcomes)
    if order is not None:
        order.shuffle(shuffled)
    for outcome in shuffled:
        ledger = order.choice(ledgers) if order else ledgers[0]
        ledger.assigned(outcome.stage, outcome.arm, outcome.slice, outcome.unit, control=outcome.control)
        ledger.record(outcome)
        ledger.pair(outcome.stage, outcome.slice, outcome.completion_tokens / 1000 - 0.02)
        if order and order.random() < 0.05:
            sums.add(order.choice(ledgers))
    for ledger in ledgers if order is None else order.sample(ledgers, len(ledgers)):
        sums.add(ledger)


def watched(seed: int, harm: float, workers: int = 1, order: random.Random | None = None) -> list[object]:
    """Everything three looks find and remember, an order also meaning restarts and the same look twice."""
    sums, analysis, seen = Sums(), Analysis.initial(), list[object]()
    for number in range(3):
        counted(sums, asked(seed, 100, harm, 100 * number), workers, order)
        stages, now = sums.evidence(), 1e9 + 100 * number + 60
        if order is not None:
            analysis = Analysis.from_json(analysis.to_json())
            order.shuffle(stages)
        analysis, found = look(analysis, ALL, stages, now, MACHINES)
        if order is not None:
            assert (analysis, found) == look(analysis, ALL, stages, now, Machines(1, 1, {}))
        seen.append((analysis.to_json(), found))
    return seen


@SETTINGS
@given(
    seed=st.integers(0, 99),
    harm=st.sampled_from([0.0, 0.3, 0.9]),
    workers=st.integers(1, 4),
    order=st.integers(0, 10**6),
)
def test_who_counted_and_when_changes_no_finding(seed: int, harm: float, workers: int, order: int) -> None:
    """Any number of workers, any order, any flushes, restarts, the same look twice: the same findings, bit by bit."""
    plain, mixed = watched(seed, harm), watched(seed, harm, workers, random.Random(order))
    same = [one == other for one, other in zip(plain, mixed, strict=True)]
    assert all(same)


STEPS = st.lists(
    st.tuples(*[st.integers(0, 300)] * 2, st.sampled_from(["error", "refusal", "empty"]), *[st.integers(0, 60)] * 2),
    min_size=2,
    max_size=6,
)


@settings(max_examples=60, deadline=None)
@given(steps=STEPS)
def test_no_verdict_of_any_guardrail_is_taken_back(steps: Sequence[tuple[int, int, str, int, int]]) -> None:
    """A failure stays, word for word; a pass yields to a failure or to sums gone wrong; and comes back as it was."""
    analysis, sums, before = Analysis.initial(), (Tally(), Tally()), dict[tuple[str, str], Finding]()
    for number, (n_c, n_b, kind, k_c, k_b) in enumerate(steps):
        more = (good(n_c + k_c, **{kind: k_c}), good(n_b + k_b, **{kind: k_b}))
        sums = (sums[0] + more[0], sums[1] + more[1])
        stage = StageEvidence(1, 0.5, {("candidate", ""): sums[0], ("baseline", ""): sums[1]})
        analysis, found = look(analysis, ALL, [stage], float(number))
        for one in found:
            was = before.get((one.guardrail, one.slice))
            if was is not None and was.verdict is Verdict.FAIL:
                assert one == was
            if was is not None and was.verdict is Verdict.PASS and one.guardrail != "sample_ratio":
                assert one.verdict in (Verdict.PASS, Verdict.FAIL)
        before = {(one.guardrail, one.slice): one for one in found}


def named(policy: Policy, candidate: Tally, baseline: Tally) -> dict[str, Finding]:
    """The findings of one look, by guardrail."""
    stage = StageEvidence(1, 0.5, {("candidate", ""): candidate, ("baseline", ""): baseline})
    return {one.guardrail: one for one in look(Analysis.initial(), policy, [stage], 0.0)[1]}


@pytest.mark.parametrize("on_breach", list(OnBreach))
def test_what_a_breach_does_is_said_and_only_a_rollback_joins_the_family(on_breach: OnBreach) -> None:
    """Two guardrails, each short of its own bar: together they fail only if either would roll back."""
    guards = tuple(Guard(name, 0.005, on_breach=on_breach) for name in ("refusal", "empty"))
    policy, found = Policy(guards), dict[str, Finding]()
    for k in range(1, 60):
        found = named(policy, good(150, refusal=k, empty=k), good(150))
        if found["refusal"].verdict is Verdict.FAIL:
            break
    assert found["refusal"].on_breach is on_breach
    assert ("all guardrails" in found["refusal"].reason) is (on_breach is OnBreach.ROLLBACK)


def test_advice_neither_rolls_back_nor_counts() -> None:
    """A whole request that takes far longer is a warning, and adds nothing to the family's evidence."""
    policy = Policy((Guard("e2e_p95", 1.1, on_breach=OnBreach.WARN), Guard("error_rate", 0.005)))
    analysis, sums = Analysis.initial(), good(100)
    for number in range(1, 4):
        slow = {f"e2e.{at}": 100 * number * (at == 400) for at in (300, 400)}
        stage = StageEvidence(1, 0.5, {("candidate", ""): good(100 * number, **slow), ("baseline", ""): sums})
        analysis, found = look(analysis, policy, [stage], float(number))
        sums = sums + good(100)
    advice, errors, _ = found
    assert (advice.verdict, advice.on_breach, errors.verdict) == (Verdict.FAIL, OnBreach.WARN, Verdict.INCONCLUSIVE)
    assert advice.threshold == policy.log_bar
    assert errors.threshold == policy.threshold(1.0)


def test_strict_fails_within_the_margin_and_passes_by_it() -> None:
    """Proved harm that is allowed: only a strict guardrail fails; what is within the margin both pass."""
    lax, strict = Policy((Guard("error_rate", 0.2),)), Policy((Guard("error_rate", 0.2, strict=True),))
    harmed = good(5000, error=400), good(5000, error=100)
    assert named(lax, *harmed)["error_rate"].verdict is Verdict.PASS
    assert named(strict, *harmed)["error_rate"].verdict is Verdict.FAIL
    doubtful = good(5000, error=101), good(5000, error=100)
    assert named(strict, *doubtful)["error_rate"].verdict is Verdict.PASS


def test_a_sample_ratio_that_is_wrong_pauses_and_stays() -> None:
    """The last finding; what chance divides later does not mend what it did not."""
    policy = Policy((Guard("error_rate", 0.05),))
    wrong = StageEvidence(1, 0.5, {("candidate", ""): good(2000), ("baseline", ""): good(1000)})
    analysis, found = look(Analysis.initial(), policy, [wrong], 0.0)
    assert (found[-1].guardrail, found[-1].verdict, found[-1].on_breach) == (
        "sample_ratio",
        Verdict.FAIL,
        OnBreach.PAUSE,
    )
    right = replace(wrong, tallies={("candidate", ""): good(10**6), ("baseline", ""): good(10**6)})
    restarted = Analysis.from_json(analysis.to_json())
    assert look(restarted, policy, [right], 1.0)[1][-1] == found[-1]
