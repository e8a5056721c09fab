from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from canary.core.arms import Arm
from canary.core.ledger import Ledger
from canary.core.outcome import Outcome, Result
from canary.core.tally import TOP, Tally, blocks_before, bucket, merged, parse

GOOD = Outcome(Arm.CANDIDATE, Result.OK, stage=1, e2e=2.0, ttft=0.5, tpot=0.02, completion_tokens=5, at=1_800_000_003.0)


def sums(*outcomes: Outcome) -> Tally:
    """What a ledger leaves in the store."""
    ledger = Ledger()
    for outcome in outcomes:
        ledger.record(outcome)
    return merged(parse({name: str(amount) for name, amount in ledger.drain().items()}).values())


def test_a_latency_is_summed_in_the_block_its_arm_was_drawn_in():
    """Ten seconds each, however long the answer took."""
    k = bucket(0.5)
    found = sums(GOOD, replace(GOOD, e2e=100.0), replace(GOOD, at=1_800_000_010.0)).blocks("ttft")
    assert found == {180_000_000: (2, 2 * k, 2 * k * k), 180_000_001: (1, k, k * k)}
    assert sums(GOOD).blocks("tpot") == {180_000_000: (1, bucket(0.02), bucket(0.02) ** 2)}


def test_what_never_came_is_in_the_last_bucket_of_its_block():
    """A timeout before the first token, and one amid the answer."""
    late = replace(GOOD, result=Result.TIMEOUT, ttft=None, tpot=None)
    assert sums(late).blocks("ttft") == {180_000_000: (1, TOP, TOP * TOP)}
    assert sums(replace(late, ttft=0.5)).blocks("tpot") == {180_000_000: (1, TOP, TOP * TOP)}


def test_what_has_no_time_or_no_duration_is_in_no_block():
    """A moment that nobody knows, a whole answer, nonsense."""
    for outcome in (
        replace(GOOD, at=0.0),
        replace(GOOD, ttft=None, tpot=None),
        replace(GOOD, ttft=float("nan"), tpot=-1.0),
    ):
        assert (sums(outcome).blocks("ttft"), sums(outcome).blocks("tpot")) == ({}, {})


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(1, 1e10), st.integers(0, 3)), max_size=30))
def test_blocks_add_up_whoever_counts_them(requests):
    """Four workers or one leave the same sums."""
    outcomes = [(replace(GOOD, ttft=ttft, at=at), worker) for ttft, at, worker in requests]
    alone = sums(*(outcome for outcome, _ in outcomes))
    four = merged(sums(*(outcome for outcome, who in outcomes if who == worker)) for worker in range(4))
    assert four.blocks("ttft") == alone.blocks("ttft")


def test_old_blocks_are_found_by_their_names():
    """And nothing else is."""
    blocks = ["1|candidate||ttft@180000000.n", "1|candidate|a|b|tpot@180000012.kk"]
    names = [*blocks, "1|candidate||ttft.17", "1|baseline|a@1.n|ok"]
    assert blocks_before(names, 1_800_000_100.0) == names[:1]
    assert blocks_before(names, 1_800_000_200.0) == names[:2]
