from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import ceil
from random import Random
from weakref import ref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.pool.balance import Ring, Rings, limit, of_two, weight

LONG_AGO = -1e9
NAMES = st.lists(st.integers(0, 999).map("http://engine-{}:8000".format), min_size=2, max_size=12, unique=True)
KEYS = [f"conversation:{number}" for number in range(300)]


@dataclass
class Spot:
    """A replica as the balance sees it."""

    load: int = 0
    since: float = LONG_AGO


def homes(names: list[str]) -> list[str]:
    """Where each key belongs while nobody is overloaded."""
    ring = Ring(names)
    return [names[ring.first(key, lambda _: True) or 0] for key in KEYS]


def test_the_lighter_of_two_is_picked():
    """With two places both are drawn, so the lighter one always wins."""
    heavy, light = Spot(100), Spot(10)
    assert all(of_two([heavy, light], 5, 0, 10, Random(seed).random) is light for seed in range(50))


def test_one_place_is_picked_without_chance():
    """A pool of one has no choice."""
    only = Spot(5)
    assert of_two([only], 1, 0, 10, lambda: 0.999) is only


@given(st.integers(2, 100), st.integers(0, 2**32))
def test_two_choices_keep_loads_close(count: int, seed: int):
    """Equal requests differ by a few at most between the fullest and the mean, however many replicas there are."""
    spots, chance = [Spot() for _ in range(count)], Random(seed)
    for _ in range(20 * count):
        of_two(spots, 1, 0, 10, chance.random).load += 1
    assert max(spot.load for spot in spots) <= 20 + 8


def test_any_pair_may_be_drawn_and_never_one_place_twice():
    """The heaviest never wins against another, so drawing one place twice would show."""
    spots, chance = [Spot(load) for load in (9, 1, 2, 3)], Random(7)
    drawn = Counter(of_two(spots, 0, 0, 10, chance.random).load for _ in range(2000))
    assert (drawn[9], set(drawn)) == (0, {1, 2, 3})


@pytest.mark.parametrize(("age", "part"), [(0, 0.1), (1, 0.1), (5, 0.5), (10, 1), (11, 1)])
def test_a_fresh_replica_grows_into_its_share(age: float, part: float):
    """A tenth at first, all of it after the slow start."""
    assert weight(100, 100 + age, 10) == pytest.approx(part)


def test_no_slow_start_is_full_weight_at_once():
    """Zero seconds mean no slow start."""
    assert [weight(100, now, 0) for now in (99, 100)] == [1, 1]


def test_a_fresh_replica_takes_few_requests_of_a_steady_load():
    """At a tenth of the weight it is picked while the others have ten times its load."""
    spots, chance = [Spot(), Spot(), Spot(since=0)], Random(3)
    for _ in range(2100):
        of_two(spots, 1, 1, 10, chance.random).load += 1
    assert 80 <= spots[2].load <= 120


@given(NAMES)
def test_a_replica_that_leaves_moves_only_its_own_keys(names: list[str]):
    """And when it comes back it gets exactly those again."""
    gone, before = names[0], homes(names)
    after = homes(names[1:])
    assert all(old in {new, gone} for old, new in zip(before, after, strict=True))


@given(NAMES, st.randoms())
def test_the_ring_does_not_depend_on_the_order_of_names(names: list[str], chance: Random):
    """Workers that list the replicas differently agree."""
    shuffled = list(names)
    chance.shuffle(shuffled)
    assert homes(names) == homes(shuffled)


@given(NAMES, st.lists(st.integers(0, 2000), max_size=300))
def test_no_place_exceeds_the_bound(names: list[str], arrivals: list[int]):
    """The paper's law for requests that count one: at most ceil(c * m / n) at every moment."""
    ring, loads = Ring(names), [0] * len(names)
    for total, key in enumerate(arrivals):
        most = limit(total, 1, len(names), 1.25, 0)
        place = ring.first(str(key), lambda index, most=most: loads[index] < most)
        assert place is not None
        loads[place] += 1
        assert max(loads) <= ceil(1.25 * (total + 1) / len(names))


@given(NAMES, st.lists(st.tuples(st.integers(0, 50), st.integers(1, 4000), st.booleans()), max_size=200))
def test_tokens_exceed_the_bound_by_their_own_request_at_most(names: list[str], arrivals: list[tuple[int, int, bool]]):
    """With requests of any size, some of which end, a place is always found."""
    ring, loads, held = Ring(names), [0] * len(names), []
    for key, tokens, ends in arrivals:
        if ends and held:
            index, size = held.pop(0)
            loads[index] -= size
        most = limit(sum(loads), tokens, len(names), 1.25, 500)
        place = ring.first(str(key), lambda index, most=most: loads[index] < most)
        assert place is not None
        loads[place] += tokens
        held.append((place, tokens))
        assert loads[place] < most + tokens


def test_keys_spread_over_the_ring():
    """64 points a replica keep the shares within a factor of two or so."""
    counts = Counter(homes([f"http://engine-{number}:8000" for number in range(4)]))
    assert (len(counts), min(counts.values()) > 30, max(counts.values()) < 150) == (4, True, True)


def test_arms_with_the_same_replicas_share_a_ring_while_one_holds_it():
    """A thousand adapters on the same engines need one; when the last is gone, so is the ring."""
    rings = Rings()
    held = rings.of(["a", "b"])
    assert rings.of(("a", "b")) is held
    assert rings.of(("a", "c")) is not held
    gone = ref(held)
    del held
    assert gone() is None


def test_nobody_fits():
    """The caller is told, and decides."""
    assert Ring(["a", "b"]).first("key", lambda _: False) is None


def test_points_are_the_same_everywhere():
    """A restart must not move a conversation: these are values, not properties of one process."""
    names = ["http://a:1", "http://b:1", "http://c:1"]
    ring = Ring(names)
    assert [ring.first(f"user:{number}", lambda _: True) for number in range(8)] == [0, 0, 0, 2, 0, 1, 1, 0]
