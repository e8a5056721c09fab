from __future__ import annotations

import asyncio
import time
import timeit
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from canary.core.arms import Endpoint, Split
from canary.storage.store import Store
from gateway.pool.options import PoolOptions
from gateway.split.catalogue import Catalogue
from gateway.split.splits import SplitFiles, Splits
from tests.gateway.conftest import acknowledged
from tests.gateway.rig import LIMITS, MODEL, House, Sim, gateway, publish, until

BASE = Endpoint("base", "base", ("http://127.0.0.1:1",))
CAND = Endpoint("cand", "cand", ("http://127.0.0.1:2",))
STATIC = Split("m", 0, BASE)
LIVE = Split("m", 5, BASE, CAND, release="r", attempt=1, percent=50)


def splits(folder: Path, stale_s: float = 60) -> Splits:
    """Splits with a static baseline."""
    return Splits([STATIC], SplitFiles(folder), "w", stale_s)


def test_a_static_baseline_serves_until_a_split_comes(tmp_path: Path):
    """The file of models is enough to serve."""
    known = splits(tmp_path)
    assert known.route("m").split == STATIC
    assert known.route("other") is None
    assert known.offer(LIVE, 0, polled=False)
    assert known.route("m").split == LIVE


@settings(deadline=None)  # the machine is shared; a slow example is no failure
@given(st.lists(st.integers(0, 50), min_size=1))
def test_pushes_in_any_order_leave_the_newest(generations: list[int]):
    """A late push never takes a worker back."""
    known = Splits([STATIC], SplitFiles(Path("/dev/null")), "w", 60)
    for generation in generations:
        known.offer(replace(LIVE, generation=generation), 0, polled=False)
    assert known.route("m").split.generation == max(generations)


OTHER = replace(STATIC, model="n")
MOVED = replace(STATIC, baseline=replace(BASE, replicas=("http://127.0.0.1:9",)))
CATALOGUES = st.builds(
    lambda models: Catalogue(tuple({model.model: model for model in models}.values())),
    st.lists(st.sampled_from([STATIC, OTHER, MOVED]), min_size=1, max_size=2),
)


@settings(deadline=None)
@given(st.lists(CATALOGUES | st.integers(1, 9), min_size=1))
def test_after_any_story_the_file_says_which_models_there_are(story: list[Catalogue | int]):
    """Files and splits in any order: served is what the last file names, by the newest split while it was named."""
    known = Splits([STATIC], SplitFiles(Path("/dev/null")), "w", 60)
    listed, newest = Catalogue((STATIC,)), None
    for event in story:
        if isinstance(event, Catalogue):
            listed = event
            known.list(event, 0)
        elif known.offer(replace(LIVE, generation=event), 0, polled=False):
            newest = event
        if known.route("m") is None:
            newest = None
    static = {split.model: split for split in listed.models}
    assert set(known.routes) == set(known.models) == set(static)
    if "m" in static:
        followed = known.route("m").split
        assert followed == static["m"] if newest is None else followed.generation == newest


def test_the_file_moves_a_model_until_the_store_speaks(tmp_path: Path):
    """New replicas hold at once, and say nothing any more about a model that has a release."""
    known = splits(tmp_path)
    known.list(Catalogue((MOVED, OTHER), {"n": PoolOptions(slots=2)}), 0)
    assert known.route("m").split == MOVED
    assert known.route("n").pool.slots == 2
    known.offer(LIVE, 0, polled=True)
    known.list(Catalogue((STATIC,), {"m": PoolOptions(slots=3)}), 0)
    assert known.route("m").split == LIVE
    assert known.route("m").pool.slots == 3


def test_a_model_that_comes_back_starts_from_what_was_known_of_it(tmp_path: Path):
    """Taken out and put in again: promoted it stays, and its candidate waits for the store's word."""
    known = splits(tmp_path)
    promoted = replace(LIVE, baseline=CAND, candidate=BASE)
    known.offer(promoted, 0, polled=True)
    known.list(Catalogue((OTHER,)), 0)
    assert not known.offer(replace(promoted, generation=6), 0, polled=True)
    assert known.route("m") is None
    known.list(Catalogue((STATIC, OTHER)), 0)
    assert known.route("m").split.baseline == CAND
    assert "not confirmed" in known.route("m").reduced


def test_a_route_is_made_anew_only_when_it_changes(tmp_path: Path):
    """A look a second over a thousand models leaves the requests their routes, and the metrics their peace."""
    known = splits(tmp_path)
    known.offer(LIVE, 0, polled=True)
    for now in (1, 2, 70, 71):
        route, changes = known.route("m"), known.changes
        known.look(now)
        assert (known.route("m") is route, known.changes == changes) == ((True, True) if now != 70 else (False, False))


def test_a_route_is_found_as_fast_among_a_thousand(tmp_path: Path):
    """A dictionary: what a request pays does not grow with the models."""
    few, many = (
        splits(tmp_path),
        Splits([replace(STATIC, model=f"m{i}") for i in range(1000)], SplitFiles(tmp_path), "w", 60),
    )

    def cost(known: Splits, model: str) -> float:
        return min(timeit.repeat(lambda: known.route(model), number=2000, repeat=7))

    assert cost(many, "m999") < 3 * cost(few, "m")


def test_an_older_split_is_believed_when_polls_repeat_it(tmp_path: Path):
    """A store restored from a copy is the truth after a while; a poll overtaken by a push is not."""
    known = splits(tmp_path)
    known.offer(LIVE, 0, polled=False)
    older = replace(LIVE, generation=2)
    assert [known.offer(older, 0, polled=True) for _ in range(3)] == [False, False, True]
    assert known.route("m").split.generation == 2


def test_a_split_nobody_confirms_goes_to_the_baseline(tmp_path: Path):
    """After the stated time, and back as soon as the store speaks again."""
    known = splits(tmp_path)
    known.offer(LIVE, 0, polled=True)
    known.look(60)
    assert known.route("m").split.percent == 50
    known.look(61)
    assert known.route("m").split.candidate is None
    assert "60 s" in known.route("m").reduced
    known.offer(LIVE, 62, polled=True)
    assert known.route("m").split == LIVE


def test_the_last_split_outlives_the_process_as_its_baseline(tmp_path: Path):
    """A promoted model stays promoted with the store dead; an unconfirmed candidate gets nothing."""
    promoted = replace(LIVE, baseline=CAND, candidate=BASE)
    splits(tmp_path).offer(promoted, 0, polled=True)
    again = splits(tmp_path)
    assert again.route("m").split.baseline == CAND
    assert again.route("m").split.candidate is None
    again.offer(LIVE, 0, polled=True)
    assert again.route("m").split == LIVE


def test_a_store_that_never_had_a_split_voids_a_kept_one(tmp_path: Path):
    """Kept from another life of the store: the file of models holds. A store that forgets changes nothing at once."""
    splits(tmp_path).offer(replace(LIVE, baseline=CAND), 0, polled=True)
    again = splits(tmp_path)
    again.absent("m", 0)
    assert again.route("m").split == STATIC
    again.offer(LIVE, 0, polled=True)
    again.absent("m", 1)
    assert again.route("m").split == LIVE


@pytest.mark.source
def test_a_damaged_file_or_split_changes_nothing(tmp_path: Path):
    """What cannot be routed by is refused; the last one holds."""
    known = splits(tmp_path)
    known.offer(LIVE, 0, polled=True)
    for bad in (
        replace(LIVE, generation=6, percent=101),
        replace(LIVE, generation=6, percent="50"),
        replace(LIVE, generation="6"),
        replace(LIVE, generation=6, baseline=replace(BASE, replicas=(7,))),
        replace(LIVE, generation=6, percent=float("nan")),
        replace(LIVE, generation=6, baseline=replace(BASE, replicas=())),
        replace(LIVE, generation=6, candidate=replace(CAND, replicas=("file:///etc/passwd",))),
    ):
        assert not known.offer(bad, 0, polled=True)
    assert known.route("m").split == LIVE
    (tmp_path / "gateway" / "m.json").write_text("{")
    assert splits(tmp_path).route("m").split == STATIC


def test_a_tripped_attempt_stays_off_until_a_newer_generation(tmp_path: Path):
    """The same split told again does not switch it on."""
    known = splits(tmp_path)
    known.offer(LIVE, 0, polled=True)
    known.trip(replace(LIVE, attempt=0), "another attempt", 0)
    assert known.route("m").reduced == ""
    known.trip(LIVE, "broken", 0)
    known.offer(LIVE, 1, polled=True)
    assert known.route("m").split.percent == 0
    known.offer(replace(LIVE, generation=6), 2, polled=False)
    assert known.route("m").split.percent == 50


async def test_units_stick_and_only_move_with_the_share(house: House, store: Store, split: Split):
    """Through the whole gateway: a growing share moves sessions to the candidate, never back."""

    async def arms() -> list[str]:
        answers = [await house.ask(headers={"x-linnet-session": f"s{i}"}, max_tokens=1) for i in range(30)]
        return [answer.headers["x-linnet-arm"] for answer in answers]

    seen = []
    for generation, percent in enumerate((10, 40, 70, 70, 0), start=2):
        await publish(store, replace(split, generation=generation, percent=percent))
        await until(lambda generation=generation: acknowledged(store, generation), "acknowledgement")
        seen.append(await arms())
    for before, after in pairwise(seen[:4]):
        assert all(new == "candidate" for old, new in zip(before, after, strict=True) if old == "candidate")
    assert seen[2] == seen[3]
    assert 0 < seen[0].count("candidate") < seen[2].count("candidate") < 30
    assert seen[4].count("candidate") == 0


@pytest.fixture
async def two(split: Split, base: Sim, store: Store, valkey_url: str, tmp_path: Path) -> AsyncIterator[list[House]]:
    """Two workers that follow the same store."""
    await publish(store, split)
    static = Split(MODEL, 0, base.endpoint())
    async with gateway(tmp_path, static, valkey_url, "w1") as one, gateway(tmp_path, static, valkey_url, "w2") as other:
        await until(lambda: both(store, 1), "acknowledgements")
        yield [one, other]


async def both(store: Store, generation: int) -> bool:
    """Tell whether both workers have said that they route by a generation."""
    acks = await store.acks(MODEL)
    return {worker for worker, (found, _) in acks.items() if found == generation} == {"w1", "w2"}


async def test_a_push_reaches_all_workers_within_50_ms(two: list[House], store: Store, split: Split):
    """From the publication to the last worker's acknowledgement; the median, because the machine is shared."""
    await until(lambda: listening(store, 2), "both listen")
    took = []
    for generation in range(2, 22):
        began = time.perf_counter()
        await publish(store, replace(split, generation=generation))
        while not await both(store, generation):  # noqa: ASYNC110 - the store is asked, nobody tells
            await asyncio.sleep(0.001)
        took.append(time.perf_counter() - began)
    assert sorted(took)[len(took) // 2] < 0.05


async def listening(store: Store, workers: int) -> bool:
    """Tell whether so many hear what is published."""
    return dict(await store._redis.pubsub_numsub("linnet:splits"))["linnet:splits"] == workers


async def test_a_lost_push_is_found_by_the_poll(two: list[House], store: Store, split: Split):
    """Written without a word on the channel, known to all workers and acknowledged by them within two polls."""
    await store._redis.set(f"linnet:{MODEL}:split", replace(split, generation=9, percent=0).to_json())
    await until(lambda: both(store, 9), "acknowledgements", seconds=3)
    for house in two:
        answer = await house.ask()
        assert (answer.headers["x-linnet-arm"], answer.headers["x-linnet-generation"]) == ("baseline", "9")


async def test_with_the_store_dead_the_last_split_serves_and_then_its_baseline(
    split: Split, base: Sim, cand: Sim, valkey, tmp_path: Path
):
    """No request fails or waits; the candidate is left after the stated time; the store's return heals it."""
    store = Store.connect(valkey.url)
    await publish(store, replace(split, percent=100))
    limits = replace(LIMITS, stale_s=1.5)
    async with gateway(tmp_path, Split(MODEL, 0, base.endpoint()), valkey.url, limits=limits) as house:
        await until(lambda: acknowledged(store, 1), "acknowledgement")
        valkey.kill()
        answer = await house.ask()
        assert (answer.status_code, answer.headers["x-linnet-arm"]) == (200, "candidate")
        assert answer.elapsed.total_seconds() < 0.5

        async def on(arm: str) -> bool:
            answer = await house.ask(max_tokens=1)
            assert answer.status_code == 200
            return answer.headers["x-linnet-arm"] == arm

        await until(lambda: on("baseline"), "baseline only", seconds=5)
        valkey.start()
        await until(lambda: on("candidate"), "healed", seconds=6)
    await store.close()


def test_a_control_is_reduced_with_the_candidate_and_must_be_reachable(tmp_path: Path):
    """Who goes back to the baseline goes to its own replicas; a control that cannot be asked is no split."""
    known, control = splits(tmp_path), replace(BASE, engine="control", replicas=("http://127.0.0.1:3",))
    live = replace(LIVE, control=control)
    assert known.offer(live, 0, polled=True)
    assert known.route("m").split.control == control
    known.trip(live, "broken", 0)
    assert known.route("m").split.control is None
    assert not known.offer(replace(live, generation=9, control=replace(control, replicas=())), 0, polled=True)
    bad = replace(live, generation=9, control=replace(control, replicas=("127.0.0.1:3",)))
    assert not known.offer(bad, 0, polled=True)
