from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canary.core.arms import Arm
from canary.core.ledger import Ledger
from canary.core.outcome import Outcome, Result
from canary.core.tally import TOP, Tally, blocks_before, bucket, merged, parse
from canary.core.units import WAITING_MOST

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


def test_each_latency_has_blocks_of_its_own():
    """An answer of one token has no TPOT, and a TTFT that is nonsense takes no TPOT with it."""
    short, odd = sums(replace(GOOD, tpot=None)), sums(replace(GOOD, ttft=float("nan")))
    assert (short.blocks("ttft"), short.blocks("tpot")) == (sums(GOOD).blocks("ttft"), {})
    assert (odd.blocks("ttft"), odd.blocks("tpot")) == ({}, sums(GOOD).blocks("tpot"))


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
    names = [*blocks, "1|candidate||ttft.17", "1|baseline|a@1.n|ok", "1|baseline||cost_of.3", "1|baseline||stall.7"]
    assert blocks_before(names, 1_800_000_100.0) == names[:1]
    assert blocks_before(names, 1_800_000_200.0) == names[:2]


def test_a_units_first_event_is_claimed_and_its_next_ones_are_again():
    """The store decides about the first; this worker knows the rest."""
    ledger = Ledger()
    for _ in range(3):
        ledger.assigned(1, Arm.CANDIDATE, "", 5)
        ledger.record(replace(GOOD, unit=5))
    found = ledger.drain()
    prefix = "1|candidate||"
    assert [found[prefix + word] for word in ("assigned", "assigned_again", "done", "done_again")] == [3, 2, 3, 2]
    assigned, done, timed = ledger.claims()
    assert (assigned.fresh, assigned.again) == ({}, {prefix + "assigned_again": 1})
    assert (done.fresh, done.again, timed.again) == ({}, {prefix + "done_again": 1}, {})
    assert timed.fresh == {name: n for name, n in latencies(GOOD).items() if not name.startswith(f"{prefix}e2e")}
    ledger.record(replace(GOOD, unit=5))  # what is known outlives a flush
    assert (ledger.drain()[prefix + "done_again"], ledger.claims()) == (1, ())


def latencies(outcome: Outcome) -> dict[str, float]:
    """The fields of one request's latencies."""
    ledger = Ledger()
    ledger.record(outcome)
    words = ("ttft", "tpot", "stall", "e2e")
    return {name: n for name, n in ledger.drain().items() if name.rpartition("|")[2].startswith(words)}


def test_requests_without_a_unit_claim_nothing():
    """They stand for themselves, and cost the store nothing more."""
    ledger = Ledger()
    ledger.assigned(1, Arm.BASELINE, "")
    ledger.record(replace(GOOD, result=Result.ERROR))
    assert ledger.claims() == ()
    assert not [name for name in ledger.drain() if name.endswith("_again")]


@pytest.mark.parametrize(
    "first", [replace(GOOD, cold=True), replace(GOOD, result=Result.ERROR), replace(GOOD, ttft=None, tpot=None)]
)
def test_a_units_latency_is_that_of_the_first_warm_answer_that_has_one(first: Outcome):
    """A user who came early, or whose first request failed or was not streamed, is timed once all the same."""
    ledger = Ledger()
    for outcome in (first, GOOD, replace(GOOD, ttft=9.0)):
        ledger.record(replace(outcome, unit=5))
    timed = {name: n for claim in ledger.claims() for name, n in claim.fresh.items() if "|ttft." in name}
    assert timed == {name: n for name, n in latencies(GOOD).items() if "|ttft." in name}


def test_what_a_control_answers_counts_for_the_baseline_and_besides_for_itself():
    """Its latencies too, and under the same claim if it has a unit."""
    ledger, baseline = Ledger(), replace(GOOD, arm=Arm.BASELINE, control=True, prompt_tokens=7)
    ledger.assigned(1, Arm.BASELINE, "", control=True)
    ledger.record(baseline)
    tallies = parse({name: str(amount) for name, amount in ledger.drain().items()})
    whole, part = tallies[1, "baseline", ""], tallies[1, "control", ""]
    for word in ("assigned", "done", "busy_ms", "prompt_tokens"):
        assert part.count(word) == whole.count(word) > 0
    assert part.blocks("ttft") == whole.blocks("ttft") != {}
    assert (part.count("ok"), part.histogram("e2e")) == (0, whole.histogram("e2e"))
    ledger.record(replace(baseline, unit=5))
    done, claim = ledger.claims()
    baselines, controls = ({name for name in claim.fresh if f"|{arm}|" in name} for arm in ("baseline", "control"))
    assert controls == {name.replace("baseline", "control") for name in baselines} != set()
    assert (set(done.again), claim.again) == ({"1|baseline||done_again"}, {})


def test_claims_that_wait_are_bounded():
    """A store that is away must not fill the memory: what is too much is no evidence, and may be claimed later."""
    ledger = Ledger()
    for unit in range(1, WAITING_MOST + 11):
        ledger.assigned(1, Arm.BASELINE, "", unit)
    assert len(ledger.claims()) == WAITING_MOST
    assert ledger.drain()["1|baseline||assigned_again"] == 10
    ledger.assigned(1, Arm.BASELINE, "", WAITING_MOST + 10)
    assert len(ledger.claims()) == 1


def test_halves_of_the_baseline_are_told_apart_by_the_replicas_number():
    """Blocks and nothing else, each request of a unit too; nothing of the control, the candidate, the cold."""
    ledger, answer = Ledger(), replace(GOOD, arm=Arm.BASELINE, unit=5)
    for outcome in (replace(answer, replica=2), replace(answer, replica=2), replace(answer, replica=1)):
        ledger.refer(outcome)
    found = ledger.drain()
    k = bucket(0.5)
    assert (found["0|even||ttft@180000000.n"], found["0|odd||ttft@180000000.k"]) == (2, k)
    assert {name.rpartition("|")[2].partition("@")[0] for name in found} == {"ttft", "tpot"}
    assert all("@" in name for name in found)
    for strange in (
        replace(answer, replica=-1),
        replace(answer, replica=0, control=True),
        replace(answer, replica=0, arm=Arm.CANDIDATE),
        replace(answer, replica=0, cold=True),
        replace(answer, replica=0, result=Result.ERROR),
        replace(answer, replica=0, evidence=False),
    ):
        ledger.refer(strange)
    assert (ledger.drain(), ledger.claims()) == ({}, ())
