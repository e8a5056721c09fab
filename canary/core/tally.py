"""Evidence that adds up: what a worker counts, and what the control plane reads back.

A `Ledger` is one worker's open page: plain counters, emptied by `drain` into numbered flushes that the store only
increments. `parse` turns the store's sums into one `Tally` per (stage, arm, slice). Tallies merge with `+` in any order
and any grouping, so workers, windows, restarts and replays never change a decision.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from math import ceil, log
from typing import Final

from canary.core.arms import Arm
from canary.core.outcome import FAILURES, Outcome, Result

GROWTH: Final = 1.02  # each bucket reaches 2 % further than the one before
LOWEST: Final = 1e-4  # seconds; bucket 0 holds everything up to here
TOP: Final = 1000  # 40,000 s and whatever never came: timeouts
HISTOGRAMS: Final = ("ttft", "tpot", "e2e")
PAIR: Final = "pair."
_LOG_GROWTH: Final = math.log(GROWTH)

# Dollars are kept on a binary grid, so that doubles add up to the same bits in any order: exact up to 8,000 USD.
_COST_GRID: Final = 2**40
_COST2_GRID: Final = 2**60
_SQUARES: Final = 2**20  # how many squares of the one grid's step are a step of the other
_COST_MOST: Final = 1e6  # USD; no request costs a million, and its square would leave the grid
_GRIDS: Final = {"sum.cost": _COST_GRID, "sum.cost_tokens": _COST_GRID, "sum.cost2": _COST2_GRID}

# An Enum looks its members up in Python; every request would pay for it.
_OK: Final = Result.OK
_TIMEOUT: Final = Result.TIMEOUT

Key = tuple[int, str, str]
Amount = int | float


class TallyError(ValueError):
    """The store holds a field that no worker writes."""


@dataclass(frozen=True, slots=True)
class Tally:
    """Sums over the requests of one arm in one stage and slice.

    `counts` (whole numbers): `assigned` at the draw; `done` = `ok` + `error` + `timeout`, reports that are evidence;
    `client_error`, `cancelled`, which are none; `empty`, `truncated` answers among the ok; `prompt_tokens`,
    `completion_tokens`; `priced`, the requests in the sums; `unusable` measurements (NaN, infinite, negative, huge);
    histograms `ttft.B`, `tpot.B`, `e2e.B` by log bucket; `pair.D` by 1000 times the difference of scores;
    `pairs_failed`. `sums`: over priced requests with cost x in USD and y = prompt + completion tokens, `sum.cost` = x,
    `sum.cost2` = x^2, `sum.tokens` = y, `sum.tokens2` = y^2, `sum.cost_tokens` = x y.
    """

    counts: Mapping[str, int] = field(default_factory=dict)
    sums: Mapping[str, float] = field(default_factory=dict)

    def __add__(self, other: Tally) -> Tally:
        return merged((self, other))

    def count(self, *names: str) -> int:
        """Return the sum of the named counts; a name never seen counts 0."""
        return sum(self.counts.get(name, 0) for name in names)

    def total(self, name: str) -> float:
        """Return the named float sum; 0.0 if never seen."""
        return self.sums.get(name, 0.0)

    def histogram(self, name: str) -> dict[int, int]:
        """Return one histogram: bucket (or, for `pair`, 1000 d) to a count above zero, in ascending order."""
        prefix = name + "."
        cells = ((int(key[len(prefix) :]), n) for key, n in self.counts.items() if key.startswith(prefix))
        return dict(sorted((bucket, n) for bucket, n in cells if n > 0))


def merged(tallies: Iterable[Tally]) -> Tally:
    """Return the sum of any number of tallies; none give the empty tally."""
    counts: dict[str, int] = {}
    sums: dict[str, float] = {}
    for tally in tallies:
        for name, number in tally.counts.items():
            counts[name] = counts.get(name, 0) + number
        for name, amount in tally.sums.items():
            sums[name] = sums.get(name, 0.0) + amount
    return Tally(counts, sums)


def bucket(seconds: float) -> int:
    """Return the log bucket of a duration in seconds: 0..TOP-1, bucket b ending at LOWEST * GROWTH**b."""
    if seconds <= LOWEST:
        return 0
    found = ceil(log(seconds / LOWEST) / _LOG_GROWTH)
    return found if found < TOP else TOP - 1


def seconds(bucket_number: float) -> float:
    """Return the upper end of a bucket in seconds."""
    return LOWEST * math.exp(_LOG_GROWTH * bucket_number)


class Cell:
    """What one worker counted for one stage, arm and slice: plain numbers, which get their names in `fields`.

    What every answer raises has an attribute, the rest is in `counts` by name. Dollars are whole steps of their grids.
    """

    __slots__ = (
        "completion_tokens",
        "cost",
        "cost2",
        "cost_tokens",
        "counts",
        "e2e",
        "failed",
        "ok",
        "priced",
        "prompt_tokens",
        "tokens",
        "tokens2",
        "tpot",
        "ttft",
    )

    def __init__(self) -> None:
        self.counts: defaultdict[str, int] = defaultdict(int)
        self.e2e: defaultdict[int, int] = defaultdict(int)
        self.ttft: defaultdict[int, int] = defaultdict(int)
        self.tpot: defaultdict[int, int] = defaultdict(int)
        self.ok = self.failed = self.prompt_tokens = self.completion_tokens = 0
        self.priced = self.tokens = self.tokens2 = self.cost = self.cost2 = self.cost_tokens = 0

    def add(self, outcome: Outcome) -> None:
        """Add one outcome."""
        result = outcome.result
        if result is _OK:
            self._add_answer(outcome)
            return
        self.counts[result.value] += 1
        self.failed += result in FAILURES
        if result is _TIMEOUT:
            self._add_overdue(outcome)

    def fields(self) -> Iterator[tuple[str, Amount]]:
        """Give every amount but zeros its name in the store; a name may come twice."""
        yield from self.counts.items()
        for name in HISTOGRAMS:
            for number, count in getattr(self, name).items():
                yield f"{name}.{number}", count
        for name, amount in self._amounts().items():
            if amount:
                yield name, amount

    def _amounts(self) -> dict[str, Amount]:
        return {
            "ok": self.ok,
            "done": self.ok + self.failed,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "priced": self.priced,
            "sum.cost": self.cost / _COST_GRID,
            "sum.cost2": self.cost2 / _COST2_GRID,
            "sum.tokens": float(self.tokens),
            "sum.tokens2": float(self.tokens2),
            "sum.cost_tokens": self.cost_tokens / _COST_GRID,
        }

    def _add_answer(self, outcome: Outcome) -> None:
        self.ok += 1
        self.prompt_tokens += outcome.prompt_tokens
        self.completion_tokens += outcome.completion_tokens
        if outcome.completion_tokens == 0:
            self.counts["empty"] += 1
        if outcome.finish_reason == "length":
            self.counts["truncated"] += 1
        self._measure(self.e2e, outcome.e2e)
        if outcome.ttft is not None:
            self._measure(self.ttft, outcome.ttft)
        if outcome.tpot is not None:
            self._measure(self.tpot, outcome.tpot)
        if outcome.cost_usd is not None:
            self._charge(outcome.cost_usd, outcome.prompt_tokens + outcome.completion_tokens)

    def _add_overdue(self, outcome: Outcome) -> None:
        """What never came is longer than anything seen: leaving it out would make a hanging arm look fast."""
        self.e2e[TOP] += 1
        if outcome.ttft is None:
            self.ttft[TOP] += 1
        else:
            self._measure(self.ttft, outcome.ttft)
            self.tpot[TOP] += 1

    def _measure(self, histogram: defaultdict[int, int], value: float) -> None:
        """Count a duration in its bucket, or as one that is no duration."""
        if 0 <= value < math.inf:
            histogram[bucket(value)] += 1
        else:
            self.counts["unusable"] += 1

    def _charge(self, cost: float, tokens: int) -> None:
        """Add what an answer cost, or count it as one whose cost is none."""
        if not 0 <= cost < _COST_MOST:
            self.counts["unusable"] += 1
            return
        steps = round(cost * _COST_GRID)
        self.priced += 1
        self.tokens += tokens
        self.tokens2 += tokens * tokens
        self.cost += steps
        self.cost2 += round(steps * steps / _SQUARES)
        self.cost_tokens += steps * tokens


class Ledger:
    """One worker's sums since the last flush. Not thread-safe: one event loop owns it."""

    def __init__(self) -> None:
        self._cells: dict[Key, Cell] = {}

    def assigned(self, stage: int, arm: str, slice: str) -> None:  # noqa: A002 - the word of the glossary
        """Count one request at the moment its arm was drawn."""
        self._cell(stage, arm, slice).counts["assigned"] += 1

    def count(self, stage: int, arm: str, slice: str, name: str, by: int = 1) -> None:  # noqa: A002
        """Add `by` to a named count."""
        self._cell(stage, arm, slice).counts[name] += by

    def pair(self, stage: int, slice: str, d: float) -> None:  # noqa: A002
        """Add one shadow pair, d = score of the candidate - score of the baseline, -1..1; else it counts as failed."""
        usable = -1 <= d <= 1  # NaN is not
        name = f"{PAIR}{round(1000 * d)}" if usable else "pairs_failed"
        self.count(stage, Arm.CANDIDATE, slice, name)

    def record(self, outcome: Outcome) -> None:
        """Add one request's outcome under its own slice. Outcomes that are no evidence leave no trace."""
        if outcome.evidence:
            self._cell(outcome.stage, outcome.arm, outcome.slice).add(outcome)

    def drain(self) -> dict[str, Amount]:
        """Return everything since the last drain as "{stage}|{arm}|{slice}|{name}" -> amount, and start afresh."""
        cells, self._cells = self._cells, {}
        drained: dict[str, Amount] = {}
        for (stage, arm, slice_), cell in cells.items():
            for word, amount in cell.fields():
                name = f"{stage}|{arm}|{slice_}|{word}"
                drained[name] = drained.get(name, 0) + amount
        return drained

    def _cell(self, stage: int, arm: str, slice_: str) -> Cell:
        key = stage, arm, slice_
        cell = self._cells.get(key)
        if cell is None:
            cell = self._cells[key] = Cell()
        return cell


def parse(fields: Mapping[str, str]) -> dict[Key, Tally]:
    """Read the store's sums back into tallies by (stage, arm, slice). Raises TallyError on a field nobody writes."""
    counts: dict[Key, dict[str, int]] = {}
    sums: dict[Key, dict[str, float]] = {}
    for name, text in fields.items():
        key, word = _parse_name(name)
        try:
            if word.startswith("sum."):
                sums.setdefault(key, {})[word] = _snap(word, float(text))
            else:
                counts.setdefault(key, {})[word] = int(text)
        except ValueError as error:
            raise TallyError(f"tally field {name!r}: {text!r} is no number; delete the field") from error
    return {key: Tally(counts.get(key, {}), sums.get(key, {})) for key in sorted(counts.keys() | sums.keys())}


def _parse_name(name: str) -> tuple[Key, str]:
    try:
        stage, arm, rest = name.split("|", 2)
        slice_, word = rest.rsplit("|", 1)
        return (int(stage), arm, slice_), word
    except ValueError as error:
        raise TallyError(f"tally field {name!r} is not 'stage|arm|slice|name'; delete the field") from error


def _snap(name: str, amount: float) -> float:
    """Move an amount to the nearest point of its grid; the store's decimal arithmetic strays from it by less."""
    grid = _GRIDS.get(name)
    return amount if grid is None or not math.isfinite(amount) else round(amount * grid) / grid
