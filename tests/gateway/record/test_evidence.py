from __future__ import annotations

import asyncio
import signal
import time
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from canary.core import watchdog
from canary.core.arms import Arm, Split
from canary.core.outcome import Outcome, Result
from canary.core.units import WAITING_MOST
from canary.storage.store import Store, StoreError
from gateway.record.evidence import AT_ONCE, Evidence
from gateway.record.metrics import Metrics
from gateway.split.splits import SplitFiles, Splits
from tests.gateway.conftest import acknowledged
from tests.gateway.rig import MODEL, House, Sim, gateway, publish, until
from tests.gateway.split.test_splits import BASE, CAND
from tests.support.valkey import Valkey

LIVE = Split("m", 5, BASE, CAND, release="r", attempt=1, stage=2, percent=50)
OK = Outcome(Arm.BASELINE, Result.OK, stage=2, e2e=1.0)
BAD = Outcome(Arm.CANDIDATE, Result.ERROR, stage=2)


def worker(store: Store, folder: Path) -> tuple[Evidence, Splits]:
    """One worker's evidence, with a release under way."""
    known = Splits([Split("m", 0, BASE)], SplitFiles(folder), "w", 60)
    known.offer(LIVE, 0, polled=True)
    return Evidence(store, known, "w", Metrics()), known


async def test_a_delta_whose_answer_was_lost_is_not_counted_twice(store: Store, tmp_path: Path):
    """The same numbered delta is sent again as it was; what came since waits for the next number."""
    evidence, _ = worker(store, tmp_path)
    evidence.record(LIVE, OK)
    flush = store.flush

    async def lossy(*args) -> bool:
        await flush(*args)
        raise StoreError("the answer was lost")

    store.flush = lossy  # the line breaks after the script has run
    with pytest.raises(StoreError):
        await evidence.write()
    evidence.record(LIVE, OK)
    store.flush = flush
    await evidence.write()
    assert (await store.tallies("m", "r", 1))["2|baseline||ok"] == "1"
    await evidence.write()
    assert (await store.tallies("m", "r", 1))["2|baseline||ok"] == "2"


async def test_a_request_of_an_attempt_that_is_over_is_counted_when_it_ends(store: Store, tmp_path: Path):
    """What was open for an attempt is thrown away at a flush; what ends later opens it again."""
    evidence, known = worker(store, tmp_path)
    evidence.record(LIVE, OK)
    later = replace(LIVE, generation=6, attempt=2)
    known.offer(later, 0, polled=True)
    await evidence.write()
    for split in (LIVE, replace(LIVE), later):
        evidence.record(split, OK)
        await evidence.write()
    assert (await store.tallies("m", "r", 1))["2|baseline||ok"] == "3"
    assert (await store.tallies("m", "r", 2))["2|baseline||ok"] == "1"


async def test_as_many_models_as_there_are_lose_nothing(store: Store, tmp_path: Path):
    """Each has its own sums between two flushes."""
    live = [replace(LIVE, model=f"m{number}") for number in range(200)]
    known = Splits([Split(split.model, 0, BASE) for split in live], SplitFiles(tmp_path), "w", 60)
    evidence = Evidence(store, known, "w", Metrics())
    for split in live:
        known.offer(split, 0, polled=True)
    for _ in range(2):
        for split in live:
            evidence.record(split, OK)
    await evidence.close()
    sums = [(await store.tallies(split.model, "r", 1))["2|baseline||ok"] for split in live]
    assert sums == ["2"] * 200


def test_memory_is_bounded_while_the_store_is_away(tmp_path: Path):
    """However many splits come and go, and nothing is written."""
    evidence, _ = worker(Store.connect("redis://127.0.0.1:1"), tmp_path)
    for attempt in range(1000):
        evidence.record(replace(LIVE, attempt=attempt), OK)
    assert max(len(evidence._ledgers), len(evidence._pages)) <= 66


async def test_many_attempts_take_turns(store: Store, tmp_path: Path):
    """One flush takes so many and no more, the longest waiting first; the last one leaves nothing behind."""
    models = [f"m{number}" for number in range(2 * AT_ONCE + 5)]
    known = Splits([Split(model, 0, BASE) for model in models], SplitFiles(tmp_path), "w", 60)
    splits = [replace(LIVE, model=model) for model in models]
    for split in splits:
        known.offer(split, 0, polled=True)
    evidence = Evidence(store, known, "w", Metrics())

    async def written() -> list[int]:
        return [len(await store.tallies(model, "r", 1)) > 0 for model in models]

    for split in splits:
        evidence.record(split, OK)
    await evidence.write()
    assert await written() == [number < AT_ONCE for number in range(len(models))]
    evidence.record(splits[0], OK)  # it has to wait for the others now
    await evidence.write()
    assert await written() == [number < 2 * AT_ONCE for number in range(len(models))]
    assert (await store.tallies("m0", "r", 1))["2|baseline||ok"] == "1"
    await evidence.close()
    assert all(await written())
    assert (await store.tallies("m0", "r", 1))["2|baseline||ok"] == "2"


async def test_sums_survive_a_store_that_is_away(valkey, tmp_path: Path):
    """Nothing is lost while it is dead, nothing doubled when it is back."""
    store = Store.connect(valkey.url)
    evidence, _ = worker(store, tmp_path)
    valkey.kill()
    for _ in range(3):
        evidence.record(LIVE, OK)
        with pytest.raises(StoreError):
            await evidence.write()
    valkey.start()
    await evidence.write()
    await evidence.write()
    assert (await store.tallies("m", "r", 1))["2|baseline||ok"] == "3"
    await store.close()


async def test_the_wire_trips_without_the_store_and_reports_when_it_can(valkey, tmp_path: Path):
    """Six failures running, a healthy baseline: this worker leaves the candidate at once."""
    store = Store.connect(valkey.url)
    evidence, known = worker(store, tmp_path)
    valkey.kill()
    for _ in range(6):
        evidence.record(LIVE, BAD)
        evidence.watch(LIVE, OK)
    assert known.route("m").split.candidate is None
    assert "6 of the candidate's last 6" in known.route("m").reduced
    with pytest.raises(StoreError):
        await evidence.write()
    valkey.start()
    await evidence.write()
    _, trips = await store.trips("0")
    assert [(trip.model, trip.release, trip.attempt, trip.stage) for trip in trips] == [("m", "r", 1, 2)]
    await store.close()


async def test_an_outage_of_both_arms_does_not_trip(store: Store, tmp_path: Path):
    """Then leaving the candidate would help nobody."""
    evidence, known = worker(store, tmp_path)
    for _ in range(20):
        evidence.record(LIVE, BAD)
        evidence.watch(LIVE, replace(OK, result=Result.ERROR))
    assert known.route("m").reduced == ""


async def test_a_dead_candidate_trips_within_a_few_requests(house: House, cand: Sim, store: Store, split: Split):
    """No client sees it: each request is answered, and soon none goes to the candidate first."""
    await publish(store, replace(split, generation=2, percent=100))
    await until(lambda: acknowledged(store, 2), "acknowledgement")
    cand.kill()
    for number in range(6):
        answer = await house.ask(headers={"x-linnet-session": str(number)})
        assert (answer.status_code, answer.headers["x-linnet-arm"]) == (200, "baseline")
    ready = (await house.http.get("/readyz")).json()
    assert "tripwire" in ready["baseline_only"][MODEL]
    _, trips = await store.trips("0")
    assert trips or (await store.trips("0"))[1]
    await publish(store, replace(split, generation=3, percent=100))
    await until(lambda: acknowledged(store, 3), "acknowledgement")
    assert (await house.http.get("/readyz")).json()["baseline_only"] == {}


class Waiting:
    """A request without a first byte."""

    def __init__(self) -> None:
        self.told = 0

    def hung(self) -> None:
        """The candidate was found broken."""
        self.told += 1


def hanging(evidence: Evidence, split: Split = LIVE) -> list[Waiting]:
    """A minute of a baseline that answers, and six requests that the candidate does not, at 50 s."""
    dog = evidence.watchdog(split, stream=True)
    for second in range(60):
        dog.sent(Arm.BASELINE, second, second, 100)
        dog.heard(Arm.BASELINE, second, second + 1.0)
    waiting = [Waiting() for _ in range(6)]
    for one in waiting:
        dog.sent(Arm.CANDIDATE, one, 50.0, 100)
    return waiting


async def test_a_candidate_that_hangs_is_left_and_its_requests_are_told(store: Store, tmp_path: Path):
    """Long before a limit passes: nobody is sent there any more, and who waits may be answered by the baseline."""
    evidence, known = worker(store, tmp_path)
    waiting = hanging(evidence)
    evidence.look(60.0)
    assert known.route("m").reduced == ""
    evidence.look(60.5)
    assert "wait for a first byte" in known.route("m").reduced
    assert [one.told for one in waiting] == [1] * 6
    evidence.look(61.0)
    assert [one.told for one in waiting] == [1] * 6
    await evidence.write()
    _, trips = await store.trips("0")
    assert [(trip.attempt, "6 of the candidate's last 6" in trip.reason) for trip in trips] == [(1, True)]


async def test_the_worker_looks_by_itself(store: Store, tmp_path: Path):
    """Each time it writes; also with the store away."""
    evidence, known = worker(Store.connect("redis://127.0.0.1:1/0"), tmp_path)
    now = time.monotonic()
    dog = evidence.watchdog(LIVE, stream=False)
    for second in range(60):
        dog.sent(Arm.BASELINE, second, now - 60 + second, 100)
        dog.heard(Arm.BASELINE, second, now - 59 + second)
        if second >= 40:
            dog.sent(Arm.CANDIDATE, Waiting(), now - 60 + second, 100)
    with pytest.raises(StoreError):
        await evidence.flush()
    assert known.route("m").split.candidate is None


async def test_an_attempt_that_is_over_is_not_looked_at(store: Store, tmp_path: Path):
    """What hangs of an older attempt says nothing about the one under way."""
    evidence, known = worker(store, tmp_path)
    waiting = hanging(evidence, replace(LIVE, attempt=0))
    evidence.look(65.0)
    assert (known.route("m").reduced, [one.told for one in waiting]) == ("", [0] * 6)


async def test_who_waits_for_a_candidate_that_fails_is_told_too(store: Store, tmp_path: Path):
    """It answers others with errors; those it has not answered need not wait for theirs."""
    evidence, _ = worker(store, tmp_path)
    one = Waiting()
    evidence.watchdog(LIVE, stream=False).sent(Arm.CANDIDATE, one, 0.0, 100)
    for _ in range(6):
        evidence.record(LIVE, BAD)
        evidence.watch(LIVE, OK)
    assert one.told == 1


def test_without_a_candidate_nobody_is_watched(store: Store, tmp_path: Path):
    """A request of a model without a release pays one comparison."""
    evidence, _ = worker(store, tmp_path)
    assert evidence.watchdog(Split("m", 0, BASE), stream=True) is None
    assert evidence.watchdog(replace(LIVE, candidate=None), stream=True) is None


async def test_a_worker_that_ends_leaves_nothing_behind(store: Store, tmp_path: Path):
    """A delta that could not be written before is followed by what came since."""
    evidence, _ = worker(store, tmp_path)
    evidence.record(LIVE, OK)
    flush = store.flush

    async def away(*_) -> bool:
        raise StoreError("away")

    store.flush = away
    with pytest.raises(StoreError):
        await evidence.write()
    evidence.record(LIVE, OK)
    store.flush = flush
    await evidence.close()
    assert (await store.tallies("m", "r", 1))["2|baseline||ok"] == "2"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A watchdog for which half a second is long."""
    monkeypatch.setattr(watchdog, "FLOOR_S", 0.5)


@pytest.mark.source
@pytest.mark.parametrize("stream", [True, False])
async def test_a_candidate_that_hangs_is_left_by_those_who_wait_for_it(
    stream: bool, impatient: None, house: House, cand: Sim, store: Store
):
    """It goes on accepting, its health stays good: in a moment the baseline answers everybody, and nobody fails."""
    for _ in range(watchdog.LEAST * 3):
        assert (await house.ask(max_tokens=1, stream=stream)).status_code == 200
    cand.behave(stall=True)
    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(_spread(house, number, stream=stream)) for number in range(40)]
    answers = [one.result() for one in asked]
    assert time.monotonic() - began < 4.0  # the limit is five
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.headers["x-linnet-arm"] for answer in answers} == {"baseline"}
    assert "wait for a first byte" in (await house.http.get("/readyz")).json()["baseline_only"][MODEL]
    await until(lambda: cand.running == 0, "the candidate need not go on")
    await until(lambda: timed_out(store), "counted as the candidate's")


async def _spread(house: House, number: int, *, stream: bool) -> httpx.Response:
    await asyncio.sleep(number / 20)
    return await house.ask(max_tokens=1, stream=stream, headers={"x-linnet-session": str(number)})


async def timed_out(store: Store) -> bool:
    """Tell whether at least six requests of the candidate are in the sums as its timeouts."""
    found = await store.tallies(MODEL, "r1", 1)
    return sum(int(n) for name, n in found.items() if name.endswith("|candidate||timeout")) >= 6


async def test_a_store_that_hangs_delays_nobody_and_everything_counts_once(
    split: Split, base: Sim, valkey: Valkey, tmp_path: Path
):
    """Stopped in the middle: what it read is done when it goes on, and what is sent again is known by its number."""
    store = Store.connect(valkey.url)
    await publish(store, split)
    async with gateway(tmp_path, Split(MODEL, 0, base.endpoint()), valkey.url) as house:
        await until(lambda: acknowledged(store, 1), "acknowledgement")
        valkey.process.send_signal(signal.SIGSTOP)
        took = []
        for _ in range(20):
            answer = await house.ask(max_tokens=1)
            took.append(answer.elapsed.total_seconds())
            assert answer.status_code == 200
            await asyncio.sleep(0.1)
        assert sorted(took)[18] < 0.25
        valkey.process.send_signal(signal.SIGCONT)
        await until(lambda: counted(store, 20), "everything counted")
        await asyncio.sleep(1.0)
        assert await counted(store, 20)
    await store.close()


async def counted(store: Store, requests: int) -> bool:
    """Tell whether so many requests of the release are in the sums, assigned and done."""
    found = await store.tallies(MODEL, "r1", 1)
    sums = {
        word: sum(int(n) for name, n in found.items() if name.endswith(f"|{word}")) for word in ("assigned", "done")
    }
    return sums == {"assigned": requests, "done": requests}


async def test_a_session_is_one_event_whichever_worker_it_meets(store: Store, tmp_path: Path):
    """Claims go with the delta, also with one that is sent again; what a worker knows outlives its flushes."""
    (one, _), (other, _) = worker(store, tmp_path), worker(store, tmp_path)
    other._worker = "v"
    flush, failed = store.flush, replace(BAD, unit=9)

    async def lossy(*args) -> bool:
        await flush(*args)
        raise StoreError("the answer was lost")

    one.record(LIVE, failed)
    store.flush = lossy
    with pytest.raises(StoreError):
        await one.write()
    store.flush = flush
    for evidence in (one, other, one):
        await evidence.write()
        evidence.record(LIVE, failed)
        await evidence.write()
    found = await store.tallies("m", "r", 1)
    assert (found["2|candidate||error"], found["2|candidate||failed_again"]) == ("4", "3")


async def test_the_wire_counts_requests_and_not_sessions(store: Store, tmp_path: Path):
    """One session that fails six times running has shown enough; what is evidence of it is one event."""
    evidence, known = worker(store, tmp_path)
    for _ in range(6):
        evidence.record(LIVE, replace(BAD, unit=9))
        evidence.watch(LIVE, OK)
    assert known.route("m").reduced != ""


async def test_many_claims_are_written_in_turns(store: Store, tmp_path: Path):
    """A store that was away for a while is not stopped by what has gathered."""
    models = ("a", "b")
    known = Splits([Split(model, 0, BASE) for model in models], SplitFiles(tmp_path), "w", 60)
    evidence = Evidence(store, known, "w", Metrics())
    for model in models:
        split = replace(LIVE, model=model)
        known.offer(split, 0, polled=True)
        for unit in range(1, WAITING_MOST + 1):
            evidence.ledger(split).assigned(2, Arm.BASELINE, "", unit)
    await evidence.write()
    assert [len(await store.tallies(model, "r", 1)) > 0 for model in models] == [True, False]
    await evidence.close()
    assert (await store.tallies("b", "r", 1))["2|baseline||assigned"] == str(WAITING_MOST)


TWO = replace(BASE, replicas=("http://127.0.0.1:1", "http://127.0.0.1:2"))


@pytest.mark.parametrize("split", [Split("m", 0, TWO), replace(LIVE, generation=6, baseline=TWO)])
async def test_a_baselines_replicas_are_compared_whatever_release_is_under_way(
    split: Split, store: Store, tmp_path: Path
):
    """With none, too; it is kept from one flush to the next beside the release's own sums."""
    known = Splits([Split("m", 0, TWO)], SplitFiles(tmp_path), "w", 60)
    known.offer(split, 0, polled=True)
    evidence = Evidence(store, known, "w", Metrics())
    answer = replace(OK, ttft=0.5, at=1_800_000_003.0, unit=9)
    pages = []
    for replica in (0, 1, 1):
        evidence.record(split, replace(answer, replica=replica))
        pages.append(evidence._page(split))
        await evidence.write()
    assert pages[0] is pages[1] is pages[2]
    found = await store.tallies("m", "", 0)
    assert {name: found[name] for name in found if name.endswith(".n")} == {
        "0|even||ttft@180000000.n": "1",
        "0|odd||ttft@180000000.n": "2",
    }
    assert await store.references() == {"m"}


async def test_a_baseline_of_one_replica_is_compared_with_nobody(store: Store, tmp_path: Path):
    """And without a release it leaves nothing at all."""
    known = Splits([Split("m", 0, BASE)], SplitFiles(tmp_path), "w", 60)
    evidence = Evidence(store, known, "w", Metrics())
    evidence.record(Split("m", 0, BASE), replace(OK, ttft=0.5, at=1_800_000_003.0, replica=0))
    await evidence.close()
    assert (evidence._pages, await store.references()) == ({}, frozenset())
