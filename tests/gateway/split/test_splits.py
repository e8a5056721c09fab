from __future__ import annotations

import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from canary.core.arms import Endpoint, Split
from canary.store import Store
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
    known = Splits([STATIC], SplitFiles(Path("/nonexistent/linnet")), "w", 60)
    for generation in generations:
        known.offer(replace(LIVE, generation=generation), 0, polled=False)
    assert known.route("m").split.generation == max(generations)


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


def test_a_damaged_file_or_split_changes_nothing(tmp_path: Path):
    """What cannot be routed by is refused; the last one holds."""
    known = splits(tmp_path)
    known.offer(LIVE, 0, polled=True)
    for bad in (
        replace(LIVE, generation=6, percent=101),
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


async def test_a_push_is_acknowledged_well_before_the_next_poll(house: House, store: Store, split: Split):
    """Pushed, not waited for."""
    await publish(store, replace(split, generation=2))
    started = time.monotonic()
    await until(lambda: acknowledged(store, 2), "acknowledgement")
    await publish(store, replace(split, generation=3))
    await until(lambda: acknowledged(store, 3), "acknowledgement")
    await publish(store, replace(split, generation=4))
    await until(lambda: acknowledged(store, 4), "acknowledgement")
    assert time.monotonic() - started < 1.0
    assert await store.workers(int(time.time() * 1000)) == ("w1",)


async def test_a_lost_push_is_found_by_the_poll(house: House, store: Store, split: Split):
    """Written without a word on the channel, known within two polls."""
    await store._redis.set(f"linnet:{MODEL}:split", replace(split, generation=9).to_json())
    await until(lambda: acknowledged(store, 9), "acknowledgement", seconds=3)


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
