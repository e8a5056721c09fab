"""The flush against a real Valkey: one event a unit and kind, whoever reports it, in whatever order."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field, replace
from itertools import count

from hypothesis import given, settings
from hypothesis import strategies as st

from canary.core.arms import Arm
from canary.core.ledger import Ledger
from canary.core.outcome import Outcome, Result
from canary.core.tally import Key, Tally, merged, parse
from canary.core.units import Claim
from canary.storage import keys
from canary.storage.store import Batch, Store
from tests.support.valkey import Valkey

FRESH = count()
KINDS = ("assigned", "done", "failed", "empty", "truncated", "refusal", "malformed", "repetition")


@dataclass
class Worker:
    """One process: a ledger, and the numbers of its deltas."""

    name: str
    ledger: Ledger = field(default_factory=Ledger)
    seq: int = 0

    async def flush(self, store: Store, release: str, *, replayed: bool) -> None:
        """Write what has gathered, and once more if the answer was lost."""
        self.seq += 1
        batch = Batch("m", release, 1, self.ledger.drain(), self.ledger.claims())
        assert await store.flush(self.name, self.seq, [batch])
        assert not (replayed and await store.flush(self.name, self.seq, [batch]))


@dataclass(frozen=True)
class Told:
    """Who reports a request, and what that worker does next."""

    worker: int
    then: str


outcomes = st.builds(
    Outcome,
    arm=st.just(Arm.BASELINE),
    result=st.sampled_from(list(Result)),
    ttft=st.none() | st.sampled_from([0.1, 0.2, 0.9]),
    tpot=st.none() | st.just(0.02),
    stall=st.none() | st.just(0.5),
    completion_tokens=st.integers(0, 2),
    finish_reason=st.sampled_from(["stop", "length"]),
    cost_usd=st.none() | st.just(1e-4),
    cold=st.booleans(),
    control=st.booleans(),
    at=st.just(1_800_000_003.0),
    unit=st.integers(0, 4),
    flaws=st.lists(st.sampled_from(["refusal", "malformed", "repetition"]), unique=True).map(tuple),
)
told = st.builds(Told, st.integers(0, 2), st.sampled_from(["", "flush", "replay", "restart"]))


def placed(outcome: Outcome) -> Outcome:
    """A unit has one place; several of them stay in the baseline."""
    arm = Arm.CANDIDATE if outcome.unit % 2 else Arm.BASELINE
    control = outcome.control and arm is Arm.BASELINE
    return replace(outcome, arm=arm, control=control, slice="a" if outcome.unit > 2 else "", stage=outcome.unit // 2)


def summed(valkey: Valkey, reports: list[tuple[Outcome, Told]]) -> dict[Key, Tally]:
    """What is in the store after these reports, in this order."""
    return asyncio.run(_summed(valkey.url, reports))


async def _summed(url: str, reports: list[tuple[Outcome, Told]]) -> dict[Key, Tally]:
    store, release, names = Store.connect(url), f"r{next(FRESH)}", (f"w{next(FRESH)}" for _ in count())
    workers = defaultdict(lambda: Worker(next(names)))
    for outcome, way in reports:
        worker = workers[way.worker]
        worker.ledger.assigned(outcome.stage, outcome.arm, outcome.slice, outcome.unit, control=outcome.control)
        worker.ledger.record(outcome)
        if way.then:
            await worker.flush(store, release, replayed=way.then == "replay")
        if way.then == "restart":
            del workers[way.worker]
    for worker in workers.values():
        await worker.flush(store, release, replayed=False)
    found = parse(await store.tallies("m", release, 1))
    await store.close()
    return found


def events(outcome: Outcome) -> set[str]:
    """The kinds of events that a request is, as the words of the sums have them."""
    done, ok = outcome.result in (Result.OK, Result.ERROR, Result.TIMEOUT), outcome.result is Result.OK
    kinds = {
        "assigned": True,
        "done": done,
        "failed": done and not ok,
        "empty": ok and outcome.completion_tokens == 0,
        "truncated": ok and outcome.finish_reason == "length",
    } | dict.fromkeys(outcome.flaws, ok)
    return {kind for kind, is_one in kinds.items() if is_one}


@settings(max_examples=60, deadline=None)
@given(reports=st.lists(st.tuples(outcomes.map(placed), told), max_size=20))
def test_a_unit_is_one_event_of_a_kind_however_its_requests_are_reported(
    reports: list[tuple[Outcome, Told]], valkey_session: Valkey
):
    """Three workers, replays, restarts: each arm has as many events as it has units, and requests without one."""
    sums = summed(valkey_session, reports)
    for arm in Arm:
        mine = [outcome for outcome, _ in reports if outcome.arm is arm]
        whole = merged(tally for (_, name, _), tally in sums.items() if name == arm.value)
        for kind in KINDS:
            words = ("error", "timeout") if kind == "failed" else (kind,)
            having = [outcome.unit for outcome in mine if kind in events(outcome)]
            assert whole.count(*words) == len(having)
            assert whole.events(*words, again=f"{kind}_again") == len(set(having) - {0}) + having.count(0)
        first = [outcome for outcome in mine if "done" in events(outcome)]
        most = len({outcome.unit for outcome in first} - {0}) + sum(not outcome.unit for outcome in first)
        assert sum(whole.histogram("ttft").values()) <= most


@settings(max_examples=60, deadline=None)
@given(data=st.data(), alike=st.lists(outcomes.map(placed), max_size=5, unique_by=lambda one: one.unit))
def test_any_order_on_any_workers_leaves_the_same_sums(
    data: st.DataObject, alike: list[Outcome], valkey_session: Valkey
):
    """Of units whose requests are all alike: every field, to the last bit."""
    asked = [outcome for outcome in alike for _ in range(data.draw(st.integers(1, 4)))]
    one = summed(valkey_session, [(outcome, Told(0, "")) for outcome in asked])
    ways = data.draw(st.lists(told, min_size=len(asked), max_size=len(asked)))
    other = summed(valkey_session, list(zip(data.draw(st.permutations(asked)), ways, strict=True)))
    assert {key: (dict(tally.counts), dict(tally.sums)) for key, tally in other.items()} == {
        key: (dict(tally.counts), dict(tally.sums)) for key, tally in one.items()
    }


async def test_a_claim_adds_the_one_or_the_other(store: Store):
    """Whoever comes first has the bit; a replay changes nothing, another attempt has bits of its own."""
    claim = Claim(2**26 - 1, {"1|b||é@1.n": 2, "1|b||x": 3}, {"1|b||again": 1})
    batch = Batch("m", "r", 1, {"1|b||ok": 1}, (claim,))
    assert await store.flush("w", 1, [batch])
    assert not await store.flush("w", 1, [batch])
    assert await store.tallies("m", "r", 1) == {"1|b||ok": "1", "1|b||é@1.n": "2", "1|b||x": "3"}
    assert await store.flush("v", 1, [batch, replace(batch, attempt=2)])
    assert (await store.tallies("m", "r", 1))["1|b||again"] == "1"
    assert "1|b||again" not in await store.tallies("m", "r", 2)
    assert await store._redis.ttl(keys.units("m", "r", 1)) > 0


async def test_a_batch_without_claims_makes_no_bitmap(store: Store):
    """Eight megabytes are for those who need them."""
    await store.flush("w", 1, [Batch("m", "r", 1, {"1|b||ok": 1})])
    assert not await store._redis.exists(keys.units("m", "r", 1))


async def test_a_reference_is_named_and_does_not_grow_for_ever(store: Store):
    """Nobody may be there to take it in."""
    fields = {f"0|even||ttft@{number}.n": 1 for number in range(20_000)}
    assert await store.references() == frozenset()
    await store.flush("w", 1, [Batch("m", "", 0, fields), Batch("n", "r", 1, {"1|b||ok": 1})])
    await store.flush("w", 2, [Batch("m", "", 0, {"0|even||ttft@20000.n": 1}), Batch("n", "r", 1, {"1|b||ok": 1})])
    assert await store.references() == {"m"}
    assert len(await store.tallies("m", "", 0)) == 20_000
    assert await store.tallies("n", "r", 1) == {"1|b||ok": "2"}
    await store.forget("m", "", 0, list(fields))
    await store.flush("w", 3, [Batch("m", "", 0, {"0|even||ttft@20000.n": 1})])
    assert await store.tallies("m", "", 0) == {"0|even||ttft@20000.n": "1"}
