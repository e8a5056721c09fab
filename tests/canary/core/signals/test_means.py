"""Ratios of means: cost and length, of requests and of sticky units."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Iterable

import pytest

from canary.core import ratios
from canary.core.arms import Arm
from canary.core.ledger import Ledger
from canary.core.outcome import Outcome, Result
from canary.core.signals import StageView
from canary.core.signals.means import _lengths as lengths
from canary.core.signals.means import _per_request, _per_token
from canary.core.tally import Tally, parse
from tests.canary.core.signals.arms import arm, priced, read

SUMMED = {"cost_per_token": _per_token, "cost_per_request": _per_request, "output_length": lengths}


def test_cost_per_token_and_per_request() -> None:
    """Calibrated cost by tokens, and by requests, where longer answers show."""
    views = StageView(1, 0.5, priced(200, 3e-5, tokens=150), priced(200, 2e-5, tokens=100))
    token, request = read("cost_per_token", views, margin=1.1), read("cost_per_request", views, margin=1.1)
    assert token.facts == "0.2 USD a million tokens against 0.2 USD a million tokens, x1.000 <= x1.1 allowed"
    assert request.facts == "0.03 USD a thousand requests against 0.02 USD a thousand requests, x1.500 > x1.1 allowed"
    assert token.passing > 3
    assert token.fail < 0
    assert request.fail > 10
    assert request.passing < 0


def test_a_cost_of_few_requests_waits() -> None:
    """Below 50 priced requests an arm there is no mean, and it says how many are missing."""
    got = read("cost_per_token", StageView(1, 0.5, priced(20, 1e-5), priced(70, 1e-5)), margin=1.1)
    assert got.missing == "needs 50 priced requests an arm, has 20 and 70"


def test_answers_without_a_price_are_unknown() -> None:
    """An arm that no load test priced has no cost, and the mend is said."""
    got = read("cost_per_token", StageView(1, 0.5, arm(100), priced(100, 1e-5)), margin=1.1)
    assert got.unknown == "the candidate's answers have no price; run the load test first"


def asked(chance: random.Random, unit: int, arm_: Arm, stage: int = 1, length: int = 20) -> Outcome:
    """One good answer of a unit, of a length of its own."""
    tokens = max(1, round(length * chance.lognormvariate(0, 0.1)))
    return Outcome(
        arm_,
        Result.OK,
        stage=stage,
        prompt_tokens=chance.randint(10, 90),
        completion_tokens=tokens,
        cost_usd=1e-5 + 1e-6 * tokens,
        unit=unit,
    )


def summed(outcomes: Iterable[Outcome]) -> dict[tuple[int, str], Tally]:
    """What a worker's ledger makes of outcomes, by stage and arm."""
    ledger = Ledger()
    for outcome in outcomes:
        ledger.record(outcome)
    fields = ledger.drain()
    found = parse({name: str(amount) for name, amount in fields.items()})
    return {(stage, side): tally for (stage, side, _), tally in found.items()}


@pytest.mark.parametrize("name", ["cost_per_token", "cost_per_request", "output_length"])
def test_a_groups_sums_are_those_of_its_requests(name: str) -> None:
    """Requests that stand for themselves, and sixty-four groups: squares and products as if each were one request."""
    chance = random.Random(1)
    outcomes = [asked(chance, chance.choice([0, chance.getrandbits(50)]), Arm.CANDIDATE) for _ in range(300)]
    got = SUMMED[name](summed(outcomes)[1, "candidate"])
    terms: dict[int, tuple[float, float]] = {}
    for number, outcome in enumerate(outcomes):
        key = -1 - number if outcome.unit == 0 else outcome.unit % 64
        assert outcome.cost_usd is not None
        x = float(outcome.completion_tokens) if name == "output_length" else outcome.cost_usd
        y = outcome.prompt_tokens + outcome.completion_tokens if name == "cost_per_token" else 1
        before = terms.get(key, (0.0, 0.0))
        terms[key] = before[0] + x, before[1] + y
    assert got.n == len(terms)
    assert (got.x, got.y) == pytest.approx(tuple(math.fsum(t[i] for t in terms.values()) for i in (0, 1)), rel=1e-6)
    squares = (math.fsum(x * x for x, _ in terms.values()), math.fsum(y * y for _, y in terms.values()))
    assert (got.xx, got.yy) == pytest.approx(squares, rel=1e-6)
    assert got.xy == pytest.approx(math.fsum(x * y for x, y in terms.values()), rel=1e-6)


def spread_of_z(seed: int, *, sticky: bool, stages: tuple[float, ...] = (0.5,), runs: int = 80) -> float:
    """The standard deviation of z over seeded runs of equal arms whose users have lengths of their own."""
    chance, zs = random.Random(seed), []
    for _ in range(runs):
        users = [(chance.random(), chance.getrandbits(50), 20 * chance.lognormvariate(0, 0.5)) for _ in range(400)]
        outcomes = (
            asked(chance, unit if sticky else 0, Arm.CANDIDATE if at < share else Arm.BASELINE, stage, int(length))
            for stage, share in enumerate(stages)
            for at, unit, length in users
            for _ in range(8 if len(stages) == 1 else 2)
        )
        sums = summed(outcomes)
        pairs = [(lengths(sums[stage, "candidate"]), lengths(sums[stage, "baseline"])) for stage in range(len(stages))]
        pooled = ratios.log_ratio(pairs)
        assert pooled is not None
        zs.append(pooled.estimate / pooled.error)
    return statistics.pstdev(zs)


def test_eight_like_requests_of_a_user_are_not_eight_users() -> None:
    """By group z of equal arms spreads as it should; taken one by one it spreads nearly three times as wide."""
    assert 0.8 < spread_of_z(2, sticky=True) < 1.25
    assert spread_of_z(2, sticky=False) > 2.2


def test_the_same_users_in_every_stage_are_not_new_ones() -> None:
    """Users keep their arm while the share grows, so stages lean the same way; the error knows it."""
    assert 0.8 < spread_of_z(3, sticky=True, stages=(0.3, 0.4, 0.5, 0.5)) < 1.3


@pytest.mark.parametrize(("factor", "beyond"), [(1.0, False), (1.1, False), (1.4, True), (1 / 1.4, True)])
def test_answers_may_be_neither_longer_nor_shorter(factor: float, beyond: bool) -> None:
    """A margin of 1.25 both ways: shorter answers are as much another model as longer ones."""
    candidate, baseline = (
        Tally({"done": n, "ok": n, "lengths": n}, {"sum.length": n * length, "sum.length2": n * length**2 * 1.05})
        for n, length in ((500, 100 * factor), (500, 100.0))
    )
    got = read("output_length", StageView(1, 0.5, candidate, baseline), margin=1.25)
    assert got.beyond is beyond
    assert (got.beyond and got.fail > 6) is beyond  # of less it may be sure, and allows it
    assert (got.passing > 3) is not beyond
    assert ("beyond" in got.facts) is beyond
    assert got.estimate == pytest.approx(factor)


def test_answers_without_a_length_wait() -> None:
    """Below fifty answers that told their length there is no mean."""
    got = read("output_length", StageView(1, 0.5, arm(100), arm(100)), margin=1.25, min_samples=200)
    assert got.missing == "needs 200 answers with a length an arm, has 0 and 0"


def test_answers_while_the_arms_warm_up_need_no_price() -> None:
    """Cold answers are in no sum; an arm that has only those is not yet unpriced."""
    got = read("cost_per_token", StageView(1, 0.5, arm(9, cold=9), priced(100, 1e-5)), margin=1.1)
    assert (got.unknown, "has 0 and 100" in got.missing) == ("", True)


def lengthy(n: int, length: float) -> Tally:
    """An arm of n answers of one length on average."""
    sums = {"sum.length": n * length, "sum.length2": n * length**2 * 1.05}
    return Tally({"done": n, "ok": n, "lengths": n}, sums)


@pytest.mark.parametrize(
    ("name", "margin", "one", "factor"),
    [
        ("cost_per_token", 1.05, priced, 1.2),
        ("cost_per_request", 1.05, priced, 1.2),
        ("output_length", 1.25, lengthy, 1.6),
        ("output_length", 1.25, lengthy, 1 / 1.6),
    ],
)
def test_a_mean_that_moved_with_the_last_share_is_not_hidden(
    name: str, margin: float, one: Callable[[int, float], Tally], factor: float
) -> None:
    """Ten times as much quiet traffic before it: beyond by the present stage alone, which is said, and proved."""
    quiet = StageView(1, 0.5, one(5000, 100.0), one(5000, 100.0))
    got = read(name, quiet, StageView(2, 0.5, one(500, 100 * factor), one(500, 100.0)), margin=margin, planned_stages=3)
    assert got.estimate is not None
    assert 1 / margin < got.estimate < margin
    assert (got.beyond, got.worse) == (True, True)
    assert got.facts.endswith(f"allowed, x{factor:.3f} since the share changed")
    assert got.fail > 10


@pytest.mark.parametrize(
    ("name", "margin", "one"), [("cost_per_token", 1.05, priced), ("output_length", 1.25, lengthy)]
)
def test_a_mean_of_a_few_that_may_be_chance_is_not_beyond(
    name: str, margin: float, one: Callable[[int, float], Tally]
) -> None:
    """A little above the margin of late, of sixty requests, or of too few for a mean."""
    quiet = StageView(1, 0.5, one(5000, 100.0), one(5000, 100.0))
    for n in (60, 20):
        got = read(name, quiet, StageView(2, 0.5, one(n, 101 * margin), one(n, 100.0)), margin=margin, planned_stages=3)
        assert not got.beyond
        assert got.facts.endswith("allowed")
