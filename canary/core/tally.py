"""Evidence that adds up: what a worker counts, and what the control plane reads back.

A `Ledger` is one worker's open page: plain counters, emptied by `drain` into numbered flushes that the store only
increments. `parse` turns the store's sums into one `Tally` per (stage, arm, slice). Tallies merge with `+` in any order
and any grouping, so workers, windows, restarts and replays never change a decision.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache, reduce
from math import ceil, isfinite, log
from operator import add
from typing import Any, Final, TypeVar

GROWTH: Final = 1.02  # each bucket reaches 2 % further than the one before
LOWEST: Final = 1e-4  # seconds; bucket 0 holds everything up to here
TOP: Final = 1000  # 40,000 s and whatever never came: timeouts
HISTOGRAMS: Final = ("ttft", "tpot", "e2e", "stall")
PAIR: Final = "pair."
CONTROL: Final = "control"  # in an arm's place: what the baseline's control answered
HALVES: Final = ("even", "odd")  # in an arm's place: the baseline's replicas, by their numbers
GROUPS: Final = 64  # of units, by the low bits of their numbers
BLOCK_S: Final = 10.0
BLOCK_WORDS: Final = ("n", "k", "kk")
_LOG_GROWTH: Final = math.log(GROWTH)

# Dollars are kept on a binary grid, so that doubles add up to the same bits in any order: exact up to 8,000 USD.
COST_GRID: Final = 2**40
COST2_GRID: Final = 2**60
GROUP_COST_GRID: Final = 2**30  # a group's dollars are whole numbers of steps
SQUARES: Final = 2**20  # how many squares of the one grid's step are a step of the other
SUM_MOST: Final = float(1 << 63)  # of any sum: the store's whole numbers end there too
_BLOCK_DIGITS: Final = 12
_NOTHING: Final[Mapping[int, int]] = {}
COST_MOST: Final = 1e6  # USD; no request costs a million, and its square would leave the grid
_GRIDS: Final = {"sum.cost": COST_GRID, "sum.cost_tokens": COST_GRID, "sum.cost2": COST2_GRID}

T = TypeVar("T")
Key = tuple[int, str, str]
Amount = int | float
Cells = dict[str, dict[int, int]]  # a histogram's name -> where -> how many


class TallyError(ValueError):
    """The store holds a field that no worker writes."""


class Tally:
    """Sums over the requests of one arm in one stage and slice.

    Every request (`counts`, whole numbers): `assigned` at the draw; `done` = `ok` + `error` + `timeout`, reports that
    are evidence; `client_error`, `cancelled`, which are none; `empty`, `truncated`, `refusal`, `malformed`,
    `repetition` answers among the ok; `cold`, the ok ones that came while the arms warmed up; `prompt_tokens`, of which
    `cached_tokens`, and `completion_tokens`; `busy_ms`, the whole milliseconds of the done ones; `unusable`
    measurements (NaN, infinite, negative, huge); `e2e.B` by log bucket; `pair.D` by 1000 times the difference of
    scores; `pairs_failed`. What the shadow asked of an arm, answers and scores, is spend and no evidence:
    `shadow_prompt_tokens`, `shadow_completion_tokens`.

    Later events of the same unit in the attempt: `assigned_again`, `done_again`, `failed_again` (errors and timeouts),
    `empty_again`, `truncated_again`, `refusal_again`, `malformed_again`, `repetition_again`. See `events`.

    Warm requests, of a unit only the first that is timed: histograms `ttft.B`, `tpot.B`, `stall.B` by log bucket; of
    those whose arm was drawn in the 10 s from 10 N (Unix seconds) `ttft@N.n`, `ttft@N.k` and `ttft@N.kk`, how many they
    are and the sums of their buckets and of those squared, and `tpot@N` likewise.

    Warm ok answers: of the `priced` ones with cost x in USD and y = prompt + completion tokens, `sum.cost` = x and
    `sum.tokens` = y; of the `lengths` ones whose completion tokens z the engine told, `sum.length` = z. Of those that
    belong to no unit also `sum.cost2` = x^2, `sum.tokens2` = y^2, `sum.cost_tokens` = x y, `sum.length2` = z^2; of the
    others, by group G of units, `answers_of.G`, `cost_of.G` (x in steps of 2**-30 USD), `tokens_of.G`, `lengths_of.G`
    and `length_of.G`.

    In an arm's place `control` has its part of the baseline (`assigned`, `done`, `busy_ms`, `prompt_tokens`,
    `cached_tokens`, latencies), `even` and `odd` the blocks of the baseline's replicas.
    """

    __slots__ = ("_cells", "_last", "_ordered", "_parts", "_told", "counts", "sound", "sums")

    def __init__(self, counts: Mapping[str, int] | None = None, sums: Mapping[str, float] | None = None) -> None:
        """Take amounts by name; they are `sound` if no whole number is negative and each sum is finite."""
        plain, cells = _sorted_out(counts or {})
        self.counts: Mapping[str, int] = plain
        self.sums: Mapping[str, float] = sums or {}
        self.sound = min((counts or {"": 0}).values()) >= 0 and all(map(isfinite, self.sums.values()))
        self._cells = cells
        self._parts: tuple[Tally, Tally] | None = None  # what it is the sum of; their histograms are added when asked
        self._ordered: dict[str, Mapping[int, int]] = {}
        self._last: tuple[Tally, Tally] | None = None  # what was added to it last, and the sum
        self._told: dict[Callable[[Tally], Any], Any] = {}

    def __add__(self, other: Tally) -> Tally:
        if self._last is None or self._last[0] is not other:
            self._last = other, _sum(self, other)
        return self._last[1]  # of a stage that is over nothing changes from look to look

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tally):
            return False
        same = all(self.histogram(name) == other.histogram(name) for name in self._names() | other._names())
        return same and self.counts == other.counts and self.sums == other.sums

    def __hash__(self) -> int:
        return hash((len(self.counts), len(self.sums)))

    def __repr__(self) -> str:
        return f"Tally({self.counts}, {self.sums}, { {name: self.histogram(name) for name in sorted(self._names())} })"

    def count(self, name: str, *names: str) -> int:
        """Return the sum of the named counts; a name never seen counts 0."""
        found = self.counts.get(name, 0)
        for more in names:
            found += self.counts.get(more, 0)
        return found

    def events(self, *names: str, again: str) -> int:
        """Return how many events were the first of their kind of who stands behind them: the counts less `again`."""
        return self.count(*names) - self.count(again)

    def total(self, name: str) -> float:
        """Return the named float sum; 0.0 if never seen."""
        return self.sums.get(name, 0.0)

    def histogram(self, name: str) -> Mapping[int, int]:
        """Return one histogram: bucket (`pair`: 1000 d, `cost_of`: group) to a count above zero, in ascending order."""
        found = self._ordered.get(name)
        if found is None:
            found = self._ordered[name] = self._in_order(name)
        return found

    def _in_order(self, name: str) -> Mapping[int, int]:
        if self._parts:
            one, other = self._parts
            return _added(one.histogram(name), other.histogram(name))
        return {at: n for at, n in sorted(self._cells.get(name, _NOTHING).items()) if n > 0}

    def told(self, read: Callable[[Tally], T]) -> T:
        """Return what a pure function reads in it, and keep it: a tally never changes."""
        if read not in self._told:
            self._told[read] = read(self)
        return self._told[read]  # type: ignore[no-any-return]

    def _names(self) -> set[str]:
        return set(self._cells).union(*(part._names() for part in self._parts or ()))  # noqa: SLF001 - its own kind

    def blocks(self, name: str) -> Mapping[int, tuple[int, int, int]]:
        """Return (n, sum of buckets, sum of buckets squared) of a latency by block of assignment time, in order."""
        n, k, kk = (self.histogram(f"{name}@{word}") for word in BLOCK_WORDS)
        return {at: (n.get(at, 0), k.get(at, 0), kk.get(at, 0)) for at in sorted({*n, *k, *kk})}


def _sorted_out(counts: Mapping[str, int]) -> tuple[dict[str, int], Cells]:
    """Return plain counts, and each histogram's cells by its name; a word of a latency's blocks is "latency@word"."""
    plain: dict[str, int] = {}
    cells: Cells = {}
    for key, number in counts.items():
        name, dot, place = key.partition(".")
        if not dot:
            plain[key] = number
            continue
        latency, at, block = name.partition("@")
        name, place = (f"{latency}@{place}", block) if at else (name, place)
        cells.setdefault(name, {})[int(place)] = number
    return plain, cells


def merged(tallies: Iterable[Tally]) -> Tally:
    """Return the sum of any number of tallies; none give the empty tally."""
    parts = tuple(tallies)
    return reduce(add, parts) if parts else Tally()


def _sum(one: Tally, other: Tally) -> Tally:
    counts, sums = dict(one.counts), dict(one.sums)
    for name, number in other.counts.items():
        counts[name] = counts.get(name, 0) + number
    for name, amount in other.sums.items():
        sums[name] = sums.get(name, 0.0) + amount
    whole = Tally(counts, sums)
    whole.sound = one.sound and other.sound
    whole._parts = one, other  # noqa: SLF001 - its own kind
    return whole


def _added(one: Mapping[int, int], other: Mapping[int, int]) -> Mapping[int, int]:
    """Return the sum of two histograms, in order."""
    if not (one and other):
        return one or other
    found = dict(one)
    for at, n in other.items():
        found[at] = found.get(at, 0) + n
    return found if len(found) == len(one) else dict(sorted(found.items()))


def bucket(seconds: float) -> int:
    """Return the log bucket of a duration in seconds: 0..TOP-1, bucket b ending at LOWEST * GROWTH**b."""
    if seconds <= LOWEST:
        return 0
    found = ceil(log(seconds / LOWEST) / _LOG_GROWTH)
    return found if found < TOP else TOP - 1


def seconds(bucket_number: float) -> float:
    """Return the upper end of a bucket in seconds."""
    return LOWEST * math.exp(_LOG_GROWTH * bucket_number)


def parse(fields: Mapping[str, str]) -> dict[Key, Tally]:
    """Read the store's sums back into tallies by (stage, arm, slice). Raises TallyError on a field nobody writes."""
    return Reader().read(fields)


class Reader:
    """Reads the store's sums again and again: what has not changed since the last time is the same tally."""

    def __init__(self) -> None:
        self._texts: dict[Key, dict[str, str]] = {}
        self._tallies: dict[Key, Tally] = {}

    def read(self, fields: Mapping[str, str]) -> dict[Key, Tally]:
        """Return tallies by (stage, arm, slice), in order. Raises TallyError on a field nobody writes."""
        texts: dict[Key, dict[str, str]] = {}
        for name, text in fields.items():
            key, word = _parse_name(name)
            texts.setdefault(key, {})[word] = text
        same = {key for key, words in texts.items() if self._texts.get(key) == words}
        self._tallies = {key: self._tallies[key] if key in same else _tally(key, texts[key]) for key in sorted(texts)}
        self._texts = texts
        return dict(self._tallies)


def _tally(key: Key, words: Mapping[str, str]) -> Tally:
    counts: dict[str, int] = {}
    sums: dict[str, float] = {}
    for word, text in words.items():
        try:
            amount = _amount(word, text)
        except ValueError as error:
            name = "|".join((*map(str, key), word))
            raise TallyError(f"tally field {name!r}: {text!r} is no number; delete the field") from error
        if isinstance(amount, float):
            sums[word] = _snap(word, amount)
        else:
            counts[word] = amount
    return Tally(counts, sums)


def blocks_before(fields: Iterable[str], unix_s: float) -> list[str]:
    """Return the names of a store's fields that belong to blocks which began before a time."""
    return [name for name in fields if "@" in (word := name.rpartition("|")[2]) and _began(word) < unix_s]


def _began(word: str) -> float:
    number = word.partition("@")[2].partition(".")[0]
    return int(number) * BLOCK_S if number.isdigit() else math.inf


@lru_cache(maxsize=1 << 16)  # the same names every second
def _parse_name(name: str) -> tuple[Key, str]:
    try:
        stage, arm, rest = name.split("|", 2)
        slice_, word = rest.rsplit("|", 1)
        _check(word)
        return (int(stage), arm, slice_), word
    except ValueError as error:
        raise TallyError(f"tally field {name!r} is not 'stage|arm|slice|name'; delete the field") from error


def _amount(word: str, text: str) -> Amount:
    amount = float(text) if word.startswith("sum.") else int(text)
    if abs(amount) > SUM_MOST:
        raise ValueError(text)
    return amount


def _check(word: str) -> None:
    """Raise ValueError on the name of a place that no histogram and no block has."""
    name, dot, place = word.partition(".")
    if not dot or name == "sum":
        return
    _, at, block = name.partition("@")
    if at and (place not in BLOCK_WORDS or not 0 < len(block) <= _BLOCK_DIGITS):
        raise ValueError(word)
    if not at and abs(int(place)) > TOP:
        raise ValueError(word)
    int(block or 0)


def _snap(name: str, amount: float) -> float:
    """Move an amount to the nearest point of its grid; the store's decimal arithmetic strays from it by less."""
    grid = _GRIDS.get(name)
    return amount if grid is None or not math.isfinite(amount) else round(amount * grid) / grid
