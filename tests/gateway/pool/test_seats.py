from __future__ import annotations

from collections import Counter
from random import Random
from time import monotonic

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.pool.admission import Gate
from gateway.pool.balance import Rings
from gateway.pool.breaker import State
from gateway.pool.options import Balance, PoolOptions
from gateway.pool.replica import Replica
from gateway.pool.retry import RetryBudget
from gateway.pool.seats import Pool, Seat
from gateway.settings import Limits

URLS = tuple(f"http://engine-{number}:8000" for number in range(4))
AFFINITY = PoolOptions(balance=Balance.AFFINITY, load_floor=0)


class Hall:
    """Pools over shared replicas, at a time that a test sets."""

    def __init__(self, options: PoolOptions | None = None) -> None:
        self.options = options or PoolOptions()
        self.now = monotonic()
        self.replicas: dict[str, Replica] = {}
        self.pool = self.another()

    def another(self, urls: tuple[str, ...] = URLS) -> Pool:
        """One more arm."""
        chance = Random(5).random
        gate = Gate(self.options, lambda _, __: pytest.fail("nobody waits"), lambda: self.now, chance)
        pool = Pool("m", self.options, gate, RetryBudget(self.options, self.now), rings=Rings(), chance=chance)
        self.follow(urls, pool)
        return pool

    def replica(self, url: str) -> Replica:
        """A replica, the same for every arm."""
        return self.replicas.setdefault(url, Replica(url, Limits(), self.options))

    def follow(self, urls: tuple[str, ...], pool: Pool | None = None) -> None:
        """Name other replicas."""
        (pool or self.pool).follow(urls, self.replica, self.now)

    def pick(self, affinity: str = "", tokens: int = 1, pool: Pool | None = None) -> Seat:
        """Pick."""
        seat = (pool or self.pool).pick(tokens, affinity, self.now)
        assert seat is not None
        return seat

    def picked(self, times: int = 200) -> Counter[str]:
        """How often each replica is picked while nothing is outstanding."""
        return Counter(self.pick().replica.host for _ in range(times))

    def seat(self, number: int, pool: Pool | None = None) -> Seat:
        """One seat."""
        return (pool or self.pool)._known[URLS[number]]

    def trip(self, *numbers: int, pool: Pool | None = None) -> None:
        """Let requests fail on some seats."""
        for number in numbers:
            seat = self.seat(number, pool)
            for _ in range(self.options.failures):
                seat.breaker.failed(seat.breaker.epoch, self.now)
            assert seat.breaker.state is State.OPEN


@pytest.mark.source
@pytest.mark.parametrize("affinity", ["", "user:1"])
@pytest.mark.parametrize("balance", list(Balance))
def test_a_pick_looks_at_no_more_of_a_hundred_than_of_two(balance, affinity, monkeypatch: pytest.MonkeyPatch):
    """What it costs does not grow with the pool."""
    looks = []
    load = Seat.load.fget
    monkeypatch.setattr(Seat, "load", property(lambda seat: looks.append(seat) or load(seat)))
    hall = Hall(PoolOptions(balance=balance))
    hall.follow(tuple(f"http://replica-{number}:1" for number in range(100)))
    hall.pick(affinity)  # the first one looks at everybody
    looks.clear()
    for _ in range(50):
        hall.pick(affinity).take(1, hall.now)
    assert len(looks) <= 2 * 50


def test_nobody_is_picked_from_nobody():
    """An arm without replicas."""
    assert Hall().another(()).pick(1, "", 0) is None


def test_all_are_picked_where_all_are_equal():
    """Chance spreads what loads do not."""
    assert all(30 <= times <= 70 for times in Hall().picked().values())


def test_load_is_the_engines_whoever_caused_it():
    """Another arm's requests on the same engine count."""
    hall = Hall()
    other = hall.another(URLS[:1])
    seat = hall.pick(pool=other)
    seat.take(100, hall.now)
    assert "engine-0" not in hall.picked()
    seat.give(100)
    assert "engine-0" in hall.picked()


def test_a_failing_replica_is_left_alone_until_its_time_is_over():
    """Then one request goes there, and no other until that one has ended."""
    hall = Hall(PoolOptions(slow_start_s=0))
    hall.trip(0)
    assert "engine-0" not in hall.picked()
    hall.now += 1.3
    probe = hall.pick()
    assert probe is hall.seat(0)
    epoch = probe.take(1, hall.now)
    assert "engine-0" not in hall.picked()
    probe.breaker.succeeded(epoch, hall.now)
    probe.give(1)
    assert "engine-0" in hall.picked()


def test_a_replica_that_is_back_starts_slowly():
    """It is picked less often as long as there is any load."""
    hall = Hall(PoolOptions(slow_start_s=10))
    hall.trip(0)
    hall.now += 1.3
    probe = hall.pick()
    probe.breaker.succeeded(probe.take(1, hall.now), hall.now)
    probe.give(1)
    assert probe.since == hall.now
    for _ in range(400):
        hall.pick().take(1, hall.now)
    assert hall.seat(0).held <= 30


def test_where_all_fail_all_are_asked():
    """A failure common to all is not mended by asking none."""
    hall = Hall()
    hall.trip(0, 1, 2, 3)
    assert len(hall.picked()) == 4


def test_where_all_fail_those_that_are_down_are_asked_last():
    """The health checks found two of them gone."""
    hall = Hall()
    hall.trip(0, 1, 2, 3)
    for number in (0, 1):
        hall.replicas[URLS[number]].found(up=False)
    assert set(hall.picked()) == {"engine-2", "engine-3"}
    for number in (2, 3):
        hall.replicas[URLS[number]].found(up=False)
    assert len(hall.picked()) == 4


def test_a_replica_that_is_down_is_not_asked_and_comes_back_slowly():
    """As the health checks find it."""
    hall = Hall()
    replica = hall.replicas[URLS[0]]
    for number in (1, 2, 3):
        hall.seat(number).take(100, hall.now)
    replica.found(up=False)
    assert "engine-0" not in hall.picked()
    replica.found(up=True)
    assert hall.picked()["engine-0"] > 50
    hall.seat(0).take(11, hall.now)
    assert "engine-0" not in hall.picked()
    hall.now += hall.options.slow_start_s
    assert "engine-0" in hall.picked()


def test_one_arms_failures_are_not_the_other_arms():
    """A LoRA candidate that fails on every engine leaves the base alone; a refused connection concerns both."""
    hall = Hall()
    other = hall.another()
    hall.trip(0, 1, 2, pool=other)
    assert (hall.pick(pool=other), len(hall.picked())) == (hall.seat(3, other), 4)
    for watcher in hall.replicas[URLS[3]].watchers:
        watcher.unreachable(hall.now)
    assert "engine-3" not in hall.picked()


def test_after_a_refusal_a_passed_check_lets_one_request_try_at_once():
    """The engine was restarted: nobody waits for the breaker's time."""
    hall = Hall()
    replica = hall.replicas[URLS[0]]
    hall.seat(0).unreachable(hall.now)
    assert "engine-0" not in hall.picked()
    hall.seat(0).reachable(hall.now)
    assert hall.pick().replica is replica


def test_a_conversation_stays_where_it_is():
    """Whatever else is asked for, and in whichever order the replicas are listed."""
    hall = Hall(AFFINITY)
    homes = {f"user:{number}": hall.pick(f"user:{number}").replica for number in range(50)}
    assert len(set(homes.values())) == 4
    assert all(hall.pick(name).replica is home for name, home in homes.items())
    hall.follow(URLS[::-1])
    assert all(hall.pick(name).replica is home for name, home in homes.items())


def test_without_a_conversation_the_lighter_is_picked():
    """Affinity is for those who have one."""
    hall = Hall(AFFINITY)
    hall.seat(0).take(10, hall.now)
    assert "engine-0" not in hall.picked()


def test_a_conversation_moves_on_while_its_replica_is_overloaded():
    """To one and the same other replica, and back."""
    hall = Hall(AFFINITY)
    home = hall.pick("user:1")
    home.take(1000, hall.now)
    away = {hall.pick("user:1") for _ in range(20)}
    home.give(1000)
    assert (len(away), home in away, hall.pick("user:1")) == (1, False, home)


def test_a_load_below_the_floor_is_no_overload():
    """Two requests at once are no reason to lose a cached prefix."""
    hall = Hall(PoolOptions(balance=Balance.AFFINITY, load_floor=5000))
    home = hall.pick("user:1", 1000)
    home.take(4000, hall.now)
    assert hall.pick("user:1", 1000) is home
    home.take(1000, hall.now)
    assert hall.pick("user:1", 1000) is not home


def test_conversations_of_a_replica_that_fails_are_spread_and_come_back():
    """The others stay where they are."""
    hall = Hall(PoolOptions(balance=Balance.AFFINITY, slow_start_s=0))
    names = [f"user:{number}" for number in range(60)]
    before = {name: hall.pick(name) for name in names}
    hall.trip(0)
    away = {name: hall.pick(name) for name in names}
    assert {home for name, home in away.items() if before[name] is hall.seat(0)} == {hall.seat(n) for n in (1, 2, 3)}
    assert all(away[name] is home for name, home in before.items() if home is not hall.seat(0))
    hall.now += 2
    hall.seat(0).breaker.succeeded(hall.seat(0).breaker.begin(hall.now), hall.now)
    assert {name: hall.pick(name) for name in names} == before


def test_who_joins_starts_slowly_and_who_stays_is_known():
    """At the very beginning all are equal."""
    hall = Hall()
    hall.trip(1)
    kept = hall.seat(1)
    hall.follow((*URLS[1:], "http://engine-9:8000"))
    fresh = hall.pool._known["http://engine-9:8000"]
    assert (hall.seat(1), kept.breaker.state, hall.seat(2).since < 0, fresh.since) == (kept, State.OPEN, True, hall.now)
    assert set(hall.picked()) == {"engine-2", "engine-3"}
    hall.now += hall.options.slow_start_s
    kept.breaker.begin(hall.now)
    assert set(hall.picked()) == {"engine-2", "engine-3", "engine-9"}


def test_a_replica_that_is_named_again_is_another_one():
    """What was forgotten is gone, even if the very same list comes back."""
    hall = Hall()
    old = hall.seat(0)
    hall.pool.forget(URLS[1:])
    assert old not in hall.replicas[URLS[0]].watchers
    hall.follow(URLS)
    assert hall.seat(0) is not old


def test_other_options_hold_from_now_on():
    """For the gate, the budget and each breaker."""
    hall = Hall()
    hall.pool.obey(PoolOptions(failures=1, slots=1, balance=Balance.AFFINITY))
    hall.seat(0).breaker.failed(hall.seat(0).breaker.epoch, hall.now)
    hall.pool.gate.enter(lambda: None, lambda: None, hall.now)
    assert (hall.seat(0).breaker.state, hall.pool.gate.spare) == (State.OPEN, False)


def test_another_is_one_that_was_not_tried_and_a_good_one_first():
    """After a refused connection."""
    hall = Hall()
    hall.trip(1)
    hall.seat(2).take(5, hall.now)
    tried = [hall.seat(0)]
    for expected in (3, 2, 1):
        seat = hall.pool.other(tried, hall.now)
        assert seat is hall.seat(expected)
        tried.append(hall.seat(expected))
    assert hall.pool.other(tried, hall.now) is None


@pytest.mark.parametrize(("number", "up"), [(3, True), (4, False)])
def test_an_arm_is_up_while_one_replica_is(number: int, *, up: bool):
    """What is known to fail does not count."""
    hall = Hall()
    hall.trip(*range(number))
    assert hall.pool.up(hall.now) is up


def test_a_refused_replica_is_not_up_however_long_ago():
    """Nobody has seen it since."""
    hall = Hall()
    only = hall.another(URLS[:1])
    hall.replicas[URLS[0]].refused = True
    hall.seat(0, only).unreachable(hall.now)
    assert not only.up(hall.now + 1000)
    hall.replicas[URLS[0]].found(up=True)
    assert only.up(hall.now + 1000)


@given(
    st.booleans(),
    st.lists(st.tuples(st.sampled_from(["ask", "end", "break", "down", "up", "wait"]), st.integers(0, 30))),
)
def test_its_laws_hold_whatever_happens(affine: bool, acts: list[tuple[str, int]]):
    """Somebody is always picked; a replica known to be bad only as a probe or if all are; sums add up."""
    hall = Hall(PoolOptions(balance=Balance.AFFINITY if affine else Balance.LEAST_TOKENS, failures=1, load_floor=0))
    held: list[tuple[Seat, int, int]] = []
    for act, number in acts:
        if act == "ask":
            well = [seat for seat in hall.pool._seats if seat.closed]
            seat = hall.pick(f"user:{number}" if number % 2 else "", number + 1)
            assert seat.closed or seat.breaker.due(hall.now) or not well
            held.append((seat, number + 1, seat.take(number + 1, hall.now)))
        elif act in {"end", "break"} and held:
            seat, tokens, epoch = held.pop(number % len(held))
            (seat.breaker.succeeded if act == "end" else seat.breaker.failed)(epoch, hall.now)
            seat.give(tokens)
        elif act in {"down", "up"}:
            hall.replicas[URLS[number % 4]].found(up=act == "up")
        elif act == "wait":
            hall.now += number / 10
        assert hall.pool.held == sum(tokens for _, tokens, _ in held) == sum(seat.load for seat in hall.pool._seats)
        probes = Counter(seat for seat, _, epoch in held if epoch == seat.breaker.epoch)
        assert all(
            probes[seat] <= 1 for seat in probes if seat.breaker.state is State.PROBING and seat.pool.up(hall.now)
        )


def test_a_seat_knows_where_its_replica_stands():
    """As the replicas were named last."""
    hall = Hall()
    assert [hall.seat(number).index for number in range(4)] == [0, 1, 2, 3]
    hall.follow((URLS[2], URLS[0]))
    assert [hall.seat(number).index for number in (0, 2)] == [1, 0]
