"""Which replica of a pool is asked (pure).

Least outstanding tokens of two drawn at random (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing",
2001): nearly as even as asking for the least of all, at a cost that does not grow with the pool, and workers that know
nothing of each other do not all run to the same replica.

A conversation stays on its replica by consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam, 2018): a
ring of points, each replica owning many; a key belongs to the first point at or after its hash whose owner is not
overloaded. A replica that joins or leaves moves only the keys it gains or gives up.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Final, Protocol, TypeVar
from weakref import WeakValueDictionary

_LEAST_WEIGHT: Final = 0.1
_HASHES: Final = 8  # 64 bytes each, that is 8 points: 64 points a replica
_POINT: Final = 8


class Place(Protocol):
    """What may be picked: a replica with `load` outstanding tokens, usable since `since` (monotonic seconds)."""

    @property
    def load(self) -> int:
        """Outstanding tokens."""

    @property
    def since(self) -> float:
        """When it became usable."""


P = TypeVar("P", bound=Place)


def weight(since: float, now: float, slow_start_s: float) -> float:
    """Return the part of its share that a replica takes: 0.1 when it has just become usable, 1 after `slow_start_s`."""
    age = now - since
    return 1.0 if age >= slow_start_s or not slow_start_s else max(_LEAST_WEIGHT, age / slow_start_s)


def of_two(places: Sequence[P], tokens: int, now: float, slow_start_s: float, chance: Callable[[], float]) -> P:
    """Return the one of two random places that `tokens` more would leave the less loaded; `chance` draws from [0, 1).

    `places` must not be empty. The two differ if there are two.
    """
    count = len(places)
    if count == 1:
        return places[0]
    first = int(chance() * count)
    second = int(chance() * (count - 1))
    one, other = places[first], places[second + (second >= first)]
    burden = (one.load + tokens) / weight(one.since, now, slow_start_s)
    return one if burden <= (other.load + tokens) / weight(other.since, now, slow_start_s) else other


def limit(total: int, tokens: int, count: int, bound: float, floor: int) -> float:
    """Return the load below which one of `count` places may take `tokens` more, `total` being the load of all.

    With requests that count 1 and no floor it is the paper's capacity: no place exceeds ceil(bound * mean). With tokens
    a place may exceed the bound by its last request. The `floor` is a load that no place minds. Some place is always
    below it, because the mean is.
    """
    return max(bound * (total + tokens) / count, float(floor))


class Ring:
    """The points of some replicas, by their names; built when the set changes, searched at each pick."""

    __slots__ = ("__weakref__", "_owners", "_points")

    def __init__(self, names: Sequence[str]) -> None:
        points = sorted((point, index) for index, name in enumerate(names) for point in _points(name))
        self._points = array("Q", (point for point, _ in points))
        self._owners = array("I", (index for _, index in points))

    def first(self, key: str, fits: Callable[[int], bool]) -> int | None:
        """Return the index of the first name at or after the key's hash that `fits`, None if none does."""
        owners = self._owners
        start = bisect_left(self._points, _hash(key))
        for position in range(start, start + len(owners)):
            owner = owners[position % len(owners)]
            if fits(owner):
                return owner
        return None


class Rings:
    """One ring for all arms with the same replicas, for as long as one of them holds it: a ring takes milliseconds."""

    def __init__(self) -> None:
        self._rings: WeakValueDictionary[tuple[str, ...], Ring] = WeakValueDictionary()

    def of(self, names: Sequence[str]) -> Ring:
        """Return the ring of these names."""
        key = tuple(names)
        ring = self._rings.get(key)
        if ring is None:
            ring = self._rings[key] = Ring(key)
        return ring


def _hash(key: str) -> int:
    """Return a point for a key; it is the same in every worker."""
    return int.from_bytes(blake2b(key.encode("utf-8", "surrogatepass"), digest_size=_POINT).digest(), "big")


def _points(name: str) -> list[int]:
    raw = b"".join(blake2b(name.encode(), salt=bytes([part])).digest() for part in range(_HASHES))
    return [int.from_bytes(raw[at : at + _POINT], "big") for at in range(0, len(raw), _POINT)]
