from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canary.core.arms import Arm
from canary.core.cell import Cell
from canary.core.outcome import Outcome, Result
from canary.core.tally import COST_GRID, GROUP_COST_GRID, GROUPS, TOP, bucket

GOOD = Outcome(
    Arm.CANDIDATE,
    Result.OK,
    e2e=2.0004,
    ttft=0.5,
    tpot=0.02,
    stall=0.3,
    prompt_tokens=40,
    cached_tokens=32,
    completion_tokens=5,
    cost_usd=2e-4,
    at=1_800_000_003.0,
)


def fields(*outcomes: Outcome) -> dict[str, float]:
    """What a cell has to write of outcomes."""
    cell = Cell()
    for outcome in outcomes:
        cell.add(outcome)
    return dict(cell.fields())


def named(found: dict[str, float], *starts: str) -> set[str]:
    """The names that begin so."""
    return {name for name in found if name.startswith(starts)}


def test_a_cold_answer_is_an_event_and_no_latency_or_cost():
    """Caches that fill make both arms slow, and an arm that was just started slower."""
    found = fields(replace(GOOD, cold=True, flaws=("refusal",)))
    assert named(found, "ttft", "tpot", "stall", "sum", "priced", "length") == set()
    assert (found["cold"], found["done"], found["refusal"], found["busy_ms"]) == (1, 1, 1, 2000)
    late = fields(replace(GOOD, cold=True, result=Result.TIMEOUT))
    assert named(late, "ttft", "tpot", "stall") == set()
    assert (late["timeout"], "cold" in late) == (1, False)


def test_a_units_latency_is_not_added_with_its_counts():
    """Whether it is the unit's first is for others to say."""
    assert named(fields(replace(GOOD, unit=9)), "ttft", "tpot", "stall") == set()
    assert fields(GOOD)[f"stall.{bucket(0.3)}"] == 1


def test_a_request_that_hangs_amid_its_answer_has_stalled_for_ever():
    """One that never began has not stalled: it has no pieces."""
    assert fields(replace(GOOD, result=Result.TIMEOUT))[f"stall.{TOP}"] == 1
    assert named(fields(replace(GOOD, result=Result.TIMEOUT, ttft=None)), "stall") == set()


@pytest.mark.parametrize("e2e", [float("nan"), float("inf"), -1.0, 1e300])
def test_a_time_in_hand_that_is_none_ends_no_sum(e2e: float):
    """A damaged clock must not make a number that the store refuses."""
    assert "busy_ms" not in fields(replace(GOOD, result=Result.ERROR, e2e=e2e))


def test_only_an_engine_that_counted_says_how_long_an_answer_was():
    """Without usage, pieces stand for tokens elsewhere; no length is made of them."""
    assert named(fields(replace(GOOD, prompt_tokens=0, cost_usd=None)), "length", "sum") == set()
    found = fields(replace(GOOD, cost_usd=None))
    assert (found["lengths"], found["sum.length"], found["sum.length2"], "priced" in found) == (1, 5.0, 25.0, False)


@given(st.lists(st.tuples(st.integers(0, 2**53), st.integers(0, 10**6)), max_size=30))
def test_groups_are_the_sums_of_their_units(requests: list[tuple[int, int]]):
    """Costs, tokens and lengths of a unit lie in one group, and squares are of those without a unit."""
    cost, tokens, answers = Counter[int](), Counter[int](), Counter[int]()
    alone: defaultdict[str, float] = defaultdict(float)
    outcomes = [replace(GOOD, unit=unit, completion_tokens=n, cost_usd=n / 1e6) for unit, n in requests]
    for one in outcomes:
        x, z = one.cost_usd or 0.0, one.completion_tokens
        if one.unit:
            cost[one.unit % GROUPS] += round(x * GROUP_COST_GRID)
            tokens[one.unit % GROUPS] += 40 + z
            answers[one.unit % GROUPS] += 1
        else:
            alone["sum.length2"] += z * z
            alone["sum.tokens2"] += (40 + z) ** 2
    found = fields(*outcomes)
    for name, sums in (("cost_of", cost), ("tokens_of", tokens), ("answers_of", answers), ("lengths_of", answers)):
        assert {k: v for k, v in found.items() if k.startswith(f"{name}.")} == {
            f"{name}.{group}": amount for group, amount in sums.items() if amount
        }
    assert [found.get(name, 0) for name in alone] == list(alone.values())
    assert found.get("priced", 0) == found.get("lengths", 0) == len(requests)
    assert found.get("sum.cost", 0) == sum(round((one.cost_usd or 0) * COST_GRID) for one in outcomes) / COST_GRID


def test_a_control_is_known_by_its_load_and_its_latencies():
    """What it answered is the baseline's evidence elsewhere."""
    cell = Cell()
    for outcome in (GOOD, replace(GOOD, result=Result.ERROR), replace(GOOD, result=Result.CANCELLED)):
        cell.add_load(outcome)
    found = dict(cell.fields())
    blocks = {f"{name}@180000000.{word}" for name in ("ttft", "tpot") for word in ("n", "k", "kk")}
    latencies = {f"ttft.{bucket(0.5)}", f"tpot.{bucket(0.02)}", f"stall.{bucket(0.3)}", f"e2e.{bucket(GOOD.e2e)}"}
    assert found.keys() == {"done", "busy_ms", "prompt_tokens", "cached_tokens"} | latencies | blocks
    assert (found["done"], found["busy_ms"], found["prompt_tokens"], found["cached_tokens"]) == (2, 4000, 40, 32)
