import math
import sys
import time
import timeit
from collections import defaultdict
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canary.core import tally
from canary.core.arms import Arm
from canary.core.ledger import Ledger
from canary.core.outcome import Outcome, Result
from canary.core.tally import TOP, Tally, TallyError, bucket, merged, parse

ANSWER = Outcome(
    Arm.CANDIDATE,
    Result.OK,
    slice="legal",
    stage=2,
    status=200,
    e2e=1.2,
    ttft=0.2,
    tpot=0.05,
    prompt_tokens=30,
    completion_tokens=21,
    finish_reason="stop",
    cost_usd=3e-5,
)


def recorded(*outcomes: Outcome) -> Tally:
    """The sums that outcomes leave in the store."""
    ledger = Ledger()
    for outcome in outcomes:
        ledger.record(outcome)
    return merged(parse(as_text(ledger.drain())).values())


def as_text(fields: dict[str, int | float]) -> dict[str, str]:
    """Fields as the store returns them."""
    return {name: str(amount) for name, amount in fields.items()}


def test_a_good_answer_leaves_counts_histograms_and_sums() -> None:
    """One answer is one in every count it belongs to, with its cost and tokens."""
    got = recorded(ANSWER)
    assert (got.count("done"), got.count("ok"), got.count("error"), got.count("empty")) == (1, 1, 0, 0)
    assert {bucket(0.2): 1} == got.histogram("ttft")
    assert {bucket(0.05): 1} == got.histogram("tpot")
    assert {bucket(1.2): 1} == got.histogram("e2e")
    assert (got.count("prompt_tokens"), got.count("completion_tokens"), got.count("priced")) == (30, 21, 1)
    assert got.total("sum.cost") == pytest.approx(3e-5, rel=1e-6)
    assert got.total("sum.tokens") == 51
    assert got.total("sum.cost_tokens") == pytest.approx(51 * 3e-5, rel=1e-6)


@pytest.mark.parametrize(
    ("result", "done"),
    [
        (Result.OK, 1),
        (Result.ERROR, 1),
        (Result.TIMEOUT, 1),
        (Result.CLIENT_ERROR, 0),
        (Result.CANCELLED, 0),
    ],
)
def test_only_what_blames_the_arm_or_succeeds_is_done(result: Result, done: int) -> None:
    """Client errors and cancellations are counted, and are no evidence."""
    got = recorded(replace(ANSWER, result=result))
    assert (done, 1) == (got.count("done"), got.count(result.value))


def test_what_chance_did_not_assign_leaves_no_trace() -> None:
    """A forced tester's outcome changes no sum."""
    assert recorded(replace(ANSWER, evidence=False)) == Tally()


def test_an_empty_and_a_cut_off_answer_are_counted() -> None:
    """Answers without a token and answers cut at their limit are drift that needs no label."""
    got = recorded(replace(ANSWER, completion_tokens=0), replace(ANSWER, finish_reason="length"))
    assert (got.count("empty"), got.count("truncated")) == (1, 1)


def test_a_timeout_is_longer_than_anything_seen() -> None:
    """A request whose first token never came lies in the top bucket; one that hung later has a top TPOT."""
    waiting = recorded(replace(ANSWER, result=Result.TIMEOUT, ttft=None, tpot=None))
    hanging = recorded(replace(ANSWER, result=Result.TIMEOUT))
    assert (waiting.histogram("ttft"), waiting.histogram("tpot")) == ({TOP: 1}, {})
    assert ({bucket(0.2): 1}, {TOP: 1}) == (hanging.histogram("ttft"), hanging.histogram("tpot"))
    assert hanging.histogram("e2e") == {TOP: 1}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -0.001])
def test_a_measurement_that_is_no_number_is_counted_as_such(bad: float) -> None:
    """NaN, infinity and negative durations or costs never reach a histogram or a sum."""
    got = recorded(replace(ANSWER, ttft=bad, cost_usd=bad))
    assert (got.count("unusable"), got.count("priced"), got.histogram("ttft")) == (2, 0, {})


def test_a_cost_beyond_reason_reaches_no_sum() -> None:
    """A damaged price would make a sum that the store refuses, and with it all others."""
    got = recorded(replace(ANSWER, cost_usd=1e200))
    assert (got.count("unusable"), got.count("priced"), got.total("sum.cost2")) == (1, 0, 0.0)


def test_an_answer_without_price_or_first_token_is_still_an_answer() -> None:
    """A whole answer has no TTFT, and before the load test nothing has a price."""
    got = recorded(replace(ANSWER, ttft=None, tpot=None, cost_usd=None))
    assert (got.count("ok"), got.count("priced"), got.count("unusable")) == (1, 0, 0)


@pytest.mark.parametrize(("d", "name"), [(0.1234, "pair.123"), (-1.0, "pair.-1000"), (0.0, "pair.0")])
def test_a_pair_is_kept_to_a_thousandth(d: float, name: str) -> None:
    """Differences of scores are an integer histogram on the candidate."""
    ledger = Ledger()
    ledger.pair(0, "", d)
    assert {f"0|candidate||{name}": 1} == ledger.drain()


@pytest.mark.parametrize("d", [math.nan, 1.5, -math.inf])
def test_a_pair_out_of_range_has_failed(d: float) -> None:
    """A score that cannot be is a failed pair, never a small difference."""
    ledger = Ledger()
    ledger.pair(0, "", d)
    assert ledger.drain() == {"0|candidate||pairs_failed": 1}


def test_drain_empties_the_page() -> None:
    """What was flushed is not flushed again."""
    ledger = Ledger()
    ledger.assigned(1, Arm.BASELINE, "a")
    ledger.count(1, Arm.BASELINE, "a", "assigned", by=2)
    assert ledger.drain() == {"1|baseline|a|assigned": 3}
    assert ledger.drain() == {}


def test_a_slice_may_hold_any_character() -> None:
    """A bar in a slice's name does not shift the fields."""
    ledger = Ledger()
    ledger.assigned(1, "candidate", "a|b")
    assert list(parse(as_text(ledger.drain()))) == [(1, "candidate", "a|b")]


@pytest.mark.parametrize(
    "field", [{"nonsense": "1"}, {"x|a|b|done": "1"}, {"1|a|b|done": "1.5"}, {"1|a||sum.cost": "?"}]
)
def test_a_field_nobody_writes_is_one_line(field: dict[str, str]) -> None:
    """A broken sum is said, not guessed."""
    with pytest.raises(TallyError, match="delete the field") as caught:
        parse(field)
    assert "\n" not in str(caught.value)


def test_a_sum_that_is_not_finite_stays_visible() -> None:
    """NaN in the store reaches the guardrail, which then knows nothing."""
    (got,) = parse({"1|candidate||sum.cost": "nan"}).values()
    assert math.isnan(got.total("sum.cost"))


@given(st.floats(1e-6, 1e6))
def test_a_bucket_holds_its_duration(duration: float) -> None:
    """A bucket's upper end is at most 2 % above what it holds, but at the ends of the scale."""
    b = bucket(duration)
    assert 0 <= b < TOP
    if 0 < b < TOP - 1:
        assert tally.seconds(b - 1) * (1 - 1e-9) <= duration <= tally.seconds(b) * (1 + 1e-9)


outcomes = st.builds(
    Outcome,
    arm=st.sampled_from(list(Arm)),
    result=st.sampled_from(list(Result)),
    slice=st.sampled_from(["", "a"]),
    stage=st.integers(0, 2),
    e2e=st.floats(0, 100),
    ttft=st.none() | st.floats(0, 10),
    tpot=st.none() | st.floats(0, 1),
    prompt_tokens=st.integers(0, 5000),
    completion_tokens=st.integers(0, 5000),
    finish_reason=st.sampled_from(["stop", "length"]),
    cost_usd=st.none() | st.floats(0, 0.05),
    cold=st.booleans(),
    stall=st.none() | st.floats(0, 10),
    flaws=st.lists(st.sampled_from(["refusal", "malformed", "repetition"]), unique=True).map(tuple),
    cached_tokens=st.integers(0, 5000),
)


@given(st.lists(outcomes, max_size=12), st.data())
def test_any_order_and_any_split_into_flushes_give_the_same_bits(given_: list[Outcome], data: st.DataObject) -> None:
    """Workers, flushes and merges may come in any order: dollars included, to the last bit."""
    shuffled = data.draw(st.permutations(given_))
    cut = data.draw(st.integers(0, len(given_)))
    apart = recorded(*shuffled[:cut]) + recorded(*shuffled[cut:])
    whole = recorded(*given_)
    assert dict(whole.counts) == dict(apart.counts)
    assert dict(whole.sums) == dict(apart.sums)


def plainly(given_: list[Outcome]) -> dict[str, float]:
    """The same sums as `Tally` describes them: name by name, dollars as doubles on their grids."""
    sums: dict[str, float] = defaultdict(float)

    def add(outcome: Outcome, name: str, amount: float = 1) -> None:
        sums[f"{outcome.stage}|{outcome.arm}|{outcome.slice}|{name}"] += amount

    for one in given_:
        x, y = round((one.cost_usd or 0) * 2**40) / 2**40, one.prompt_tokens + one.completion_tokens
        done, good = one.result in (Result.OK, Result.ERROR, Result.TIMEOUT), one.result is Result.OK
        late, warm = one.result is Result.TIMEOUT, not one.cold
        add(one, one.result.value)
        add(one, "busy_ms", done * round(one.e2e * 1000))
        add(one, "cold", good and one.cold)
        add(one, "cached_tokens", good * one.cached_tokens)
        for flaw in one.flaws:
            add(one, flaw, good)
        add(one, "done", done)
        add(one, "empty", good and not one.completion_tokens)
        add(one, "truncated", good and one.finish_reason == "length")
        add(one, "prompt_tokens", good * one.prompt_tokens)
        add(one, "completion_tokens", good * one.completion_tokens)
        add(one, f"e2e.{TOP if late else bucket(one.e2e)}", good or late)
        first = warm and (late or (good and one.ttft is not None))
        add(one, f"ttft.{TOP if one.ttft is None else bucket(one.ttft)}", first)
        for name, value in (("tpot", one.tpot), ("stall", one.stall)):
            add(one, f"{name}.{bucket(value or 0)}", warm and good and value is not None)
            add(one, f"{name}.{TOP}", warm and late and one.ttft is not None)
        told = warm and good and (one.prompt_tokens > 0 or one.cost_usd is not None)
        add(one, "lengths", told)
        add(one, "sum.length", told * one.completion_tokens)
        add(one, "sum.length2", told * one.completion_tokens**2)
        priced = warm and good and one.cost_usd is not None
        add(one, "priced", priced)
        add(one, "sum.cost", priced * x)
        add(one, "sum.cost2", priced * round(x * x * 2**60) / 2**60)
        add(one, "sum.tokens", priced * y)
        add(one, "sum.tokens2", priced * y * y)
        add(one, "sum.cost_tokens", priced * x * y)
    return {name: amount for name, amount in sums.items() if amount}


@given(st.lists(outcomes, max_size=12))
def test_a_page_is_what_adding_name_by_name_gives(given_: list[Outcome]) -> None:
    """The shortcuts of the hot path change no number, to the last bit."""
    ledger = Ledger()
    for outcome in given_:
        ledger.record(outcome)
    assert ledger.drain() == plainly(given_)


@pytest.mark.skipif(sys.gettrace() is not None, reason="a tracer is what would be timed")
def test_a_record_takes_under_five_microseconds() -> None:
    """The gateway can afford evidence on every request (processor time, the best of five)."""
    ledger = Ledger()
    taken = timeit.repeat(lambda: ledger.record(ANSWER), timer=time.process_time, number=1000, repeat=5)
    assert min(taken) / 1000 < 5e-6


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("1|candidate||done", "9" * 30),
        ("1|candidate||sum.cost", "1e300"),
        ("1|candidate||sum.cost", "inf"),
        ("1|candidate||ttft.x", "1"),
        ("1|candidate||ttft.1001", "1"),
        ("1|candidate||ttft@x.n", "1"),
        ("1|candidate||ttft@5.q", "1"),
        ("1|candidate||ttft@1000000000000.n", "1"),
    ],
)
def test_what_no_worker_can_have_added_up_is_refused(name: str, text: str) -> None:
    """A number beyond the store's, or a place that no histogram and no block has: one line, and the field's name."""
    with pytest.raises(TallyError, match="delete the field") as caught:
        parse({name: text})
    assert name in str(caught.value)
