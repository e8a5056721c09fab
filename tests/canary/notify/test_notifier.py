"""The notifier beside a real store and real receivers: nothing is lost, nobody waits, one leader sends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canary.metrics import Metrics
from canary.notify import notifier as module
from canary.notify.notifier import TRIES, Notifier, Progress, pause
from canary.storage import keys
from canary.storage.records import Change
from canary.storage.store import Lease, Store
from tests.canary.notify.receiver import Receiver, hang, receiver, status
from tests.canary.notify.test_target import spec
from tests.canary.world import World

SECRETS = {"LINNET_NOTIFY_SECRET": "s3cret"}


class Leader:
    """Who leads, as a test wants it."""

    def __init__(self, lease: Lease | None) -> None:
        self.lease = lease

    def __call__(self) -> Lease | None:
        """Return the lease, None on standby."""
        return self.lease


@pytest.fixture
async def leader(store: Store) -> Leader:
    """The lease of the only controller."""
    return Leader(await store.lead("c1", None, 60_000))


async def at_once(_seconds: float) -> None:
    """Let no time pass between two tries."""
    await asyncio.sleep(0)


@asynccontextmanager
async def notifying(
    store: Store, lease: Callable[[], Lease | None], sleep: Callable[[float], Awaitable[None]] = at_once
) -> AsyncIterator[Metrics]:
    """Run a notifier until the block ends; it is cancelled as a killed process is: with no last word."""
    metrics = Metrics()
    one = Notifier(store, lease, metrics, environment=SECRETS, sleep=sleep, timeout=0.5)
    task = asyncio.ensure_future(one.run())
    try:
        yield metrics
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def counted(metrics: Metrics, store: Store) -> dict[str, float]:
    """Return linnet_notifications_total by result."""
    lines = (await metrics.render(store)).decode().splitlines()
    found = (line.split() for line in lines if line.startswith("linnet_notifications_total{"))
    return {name.split('"')[1]: float(value) for name, value in found}


async def place(store: Store, *receivers: Receiver, events: str = "", form: str = "json") -> World:
    """Start a release whose spec names the receivers."""
    more = f", events: [{events}]" if events else ""
    said = (f"{{url: '{one.url}', secret_env: LINNET_NOTIFY_SECRET, form: {form}{more}}}" for one in receivers)
    world = World(store)
    await world.engines()
    await world.start(spec(*said))
    return world


async def settled(store: Store) -> None:
    """Wait until everything in the audit has been seen to, and that is kept."""
    last = (await store.audit())[-1]["id"]
    async with asyncio.timeout(5):
        while await store.notified() != last:  # noqa: ASYNC110 - a test polls
            await asyncio.sleep(0.01)


async def test_receivers_hear_what_they_asked_for_in_order(store: Store, leader: Leader) -> None:
    """One hears of everything, one of rollbacks alone."""
    async with receiver() as all_of_it, receiver() as rollbacks, notifying(store, leader) as metrics:
        world = await place(store, all_of_it)
        await world.say("abort")
        both = f"{spec(hook(all_of_it), hook(rollbacks, 'rollback'))}"
        await world.start(both.replace("release: r1", "release: r2"))
        await world.say("rollback")
        await settled(store)
        assert [body["what"] for body in all_of_it.bodies()] == ["start", "abort", "start", "rollback"]
        assert [body["events"] for body in rollbacks.bodies()] == [["phase", "rollback"]]
        assert await counted(metrics, store) == {"sent": 5.0}


def hook(one: Receiver, events: str = "phase") -> str:
    """Return a receiver as the spec has it."""
    return f"{{url: '{one.url}', secret_env: LINNET_NOTIFY_SECRET, events: [{events}]}}"


async def test_a_receiver_that_fails_gets_the_same_message_again(store: Store, leader: Leader) -> None:
    """The same id, and the next message only after it."""
    async with receiver(status(500), status(429), hang, status(200)) as one, notifying(store, leader) as metrics:
        world = await place(store, one)
        await world.say("abort")
        await one.until(5)
        await settled(store)
        assert [body["what"] for body in one.bodies()] == ["start"] * 4 + ["abort"]
        assert len(set(one.ids())) == 2
        assert await counted(metrics, store) == {"retried": 3.0, "sent": 2.0}


async def test_it_gives_up_in_the_end_and_goes_on(store: Store, leader: Leader) -> None:
    """After the last try, and at once where no other try will do."""
    answers = [*[status(503)] * TRIES, status(410), status(200)]
    async with receiver(*answers) as one, notifying(store, leader) as metrics:
        world = await place(store, one)
        await world.say("abort")
        await world.say("retry")
        await settled(store)
        assert [body["what"] for body in one.bodies()] == ["start"] * TRIES + ["abort", "retry"]
        assert await counted(metrics, store) == {"retried": TRIES - 1.0, "failed": 1.0, "rejected": 1.0, "sent": 1.0}


async def test_a_dead_receiver_holds_up_nobody_else(store: Store, leader: Leader) -> None:
    """Neither the other receiver nor a command; and the position waits for it."""
    async with receiver(hang) as dead, receiver() as well, notifying(store, leader, asyncio.sleep):
        world = await place(store, dead, well)
        began = time.monotonic()
        await world.say("rollback")
        assert time.monotonic() - began < 2
        await well.until(2)
        assert await store.notified() < (await store.audit())[0]["id"]


async def test_what_a_killed_process_had_sent_but_not_noted_is_sent_again(store: Store, leader: Leader) -> None:
    """Killed between the receiver's hearing and the answer: the next one sends it under the same id."""
    async with receiver(hang, status(200)) as one:
        async with notifying(store, leader, asyncio.sleep):
            await place(store, one)
            await one.until(1)
        async with notifying(store, leader):
            await settled(store)
        assert len(one.heard) == 2
        assert len(set(one.ids())) == 1


async def test_what_was_noted_is_not_sent_again(store: Store, leader: Leader) -> None:
    """A restart is nobody's news; what happened meanwhile is."""
    async with receiver() as one:
        async with notifying(store, leader):
            world = await place(store, one)
            await settled(store)
        await world.say("abort")
        async with notifying(store, leader):
            await settled(store)
        assert [body["what"] for body in one.bodies()] == ["start", "abort"]


async def test_of_two_controllers_the_leader_sends(store: Store, leader: Leader) -> None:
    """The standby says nothing; it goes on where the other stopped."""
    standby = Leader(None)
    async with receiver() as one, notifying(store, leader) as first, notifying(store, standby) as second:
        world = await place(store, one)
        await settled(store)
        assert leader.lease is not None
        await store.resign(leader.lease)
        leader.lease, standby.lease = None, await store.lead("c2", None, 60_000)
        await world.say("abort")
        await settled(store)
        assert [body["what"] for body in one.bodies()] == ["start", "abort"]
        assert (await counted(first, store), await counted(second, store)) == ({"sent": 1.0}, {"sent": 1.0})


async def test_a_leader_that_woke_up_late_notes_nothing(store: Store, leader: Leader) -> None:
    """Its position is fenced off, as its decisions are; a message it sends twice has the same id."""
    async with receiver() as one:
        stale = leader.lease
        assert stale is not None
        await store.resign(stale)
        now = await store.lead("c2", None, 60_000)
        async with notifying(store, lambda: stale):
            await place(store, one)
            await one.until(1)
            await asyncio.sleep(0.7)
            assert await store.notified() == ""
        async with notifying(store, lambda: now):
            await settled(store)
        assert len(set(one.ids())) == 1


async def test_too_many_that_wait_push_the_oldest_out(store: Store, leader: Leader, monkeypatch) -> None:
    """The newest are kept, and those that were dropped are counted."""
    monkeypatch.setattr(module, "QUEUE", 3)
    gate = asyncio.Event()

    async def later(out: asyncio.StreamWriter) -> None:
        await gate.wait()
        await status(200)(out)

    async with receiver(later) as one, notifying(store, leader) as metrics:
        world = await place(store, one)
        await one.until(1)
        for verb in ("abort", "retry") * 3:
            await world.say(verb)
        async with asyncio.timeout(5):
            while (await counted(metrics, store)).get("dropped") != 3.0:  # noqa: ASYNC110 - a test polls
                await asyncio.sleep(0.01)
        gate.set()
        await settled(store)
        assert [body["what"] for body in one.bodies()][-3:] == ["retry", "abort", "retry"]
        assert await store.notified() == (await store.audit())[-1]["id"]


async def test_old_news_is_none(store: Store, leader: Leader) -> None:
    """A store that never notified is not read from its beginning."""
    async with receiver() as one:
        await store._redis.xadd(
            keys.AUDIT, {"model": "m", "release": "r0", "what": "start", "before": "", "after": "draft 0 %"}, id="5-0"
        )
        async with notifying(store, leader):
            await place(store, one)
            await settled(store)
        assert [body["release"] for body in one.bodies()] == ["r1"]


async def test_a_spec_that_cannot_be_read_names_nobody(store: Store, leader: Leader) -> None:
    """The others go on."""
    async with receiver() as one, notifying(store, leader):
        entry = {"model": "x", "release": "r", "what": "start", "before": "", "after": "draft 0 %"}
        for model, text in (("x", "nonsense"), ("y", '{"spec": "model: y"}'), ("z", "[]")):
            await store.commit(Change(model, "", text, {**entry, "model": model}))
        await place(store, one)
        await settled(store)
        assert [body["model"] for body in one.bodies()] == ["m"]


async def test_a_lost_store_is_waited_for(valkey) -> None:
    """Killed and started again: what happened then is sent."""
    store = Store.connect(valkey.url)
    lease = await store.lead("c1", None, 60_000)
    async with receiver() as one, notifying(store, lambda: lease):
        world = await place(store, one)
        await settled(store)
        valkey.kill()
        await asyncio.sleep(0.6)
        valkey.start()
        await world.say("abort")
        await one.until(2, 10)
        await settled(store)
        assert [body["what"] for body in one.bodies()] == ["start", "abort"]
    await store.close()


async def test_a_hanging_receiver_delays_no_rollback(store: Store) -> None:
    """From a tripwire to the split that workers are told, with the notifier beside the controller."""
    async with receiver(hang) as one:
        world = await place(store, one)
        await world.step()
        lease = Lease("c1", 1)
        async with notifying(store, lambda: lease, asyncio.sleep):
            await one.until(1)
            trip = await world.trip()
            began = time.monotonic()
            await world.controller.tripped(trip)
            assert time.monotonic() - began < 2
            assert (await world.release()).phase == "rolled_back"


def test_all_tries_together_take_ten_minutes_at_most() -> None:
    """Whatever chance says; and each wait is longer than the one before."""
    longest = [pause(tries, 0.0) for tries in range(1, TRIES)]
    shortest = [pause(tries, 0.999) for tries in range(1, TRIES)]
    assert sum(longest) + TRIES * 5 <= 600
    assert all(later >= 0.99 * earlier for later, earlier in zip(shortest[1:], longest, strict=False))


@given(st.lists(st.integers(0, 3), max_size=8), st.randoms(use_true_random=False))
def test_the_position_is_the_end_of_what_is_wholly_done(sizes: list[int], chance) -> None:
    """In whatever order messages are done."""
    progress = Progress("0")
    left = {str(number): size for number, size in enumerate(sizes, 1)}
    for entry, size in left.items():
        progress.begin(entry, size)
    todo = [entry for entry, size in left.items() for _ in range(size)]
    chance.shuffle(todo)
    for entry in ["", *todo]:
        if entry:
            progress.done(entry)
            left[entry] -= 1
        done = next((number for number, size in enumerate(left.values()) if size), len(left))
        assert progress.position == str(done)
