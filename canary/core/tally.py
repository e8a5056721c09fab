"""Evidence that adds up: what a worker counts, and what the control plane reads back.

A `Ledger` is one worker's open page: plain counters, emptied by `drain` into numbered flushes that the store only
increments. `parse` turns the store's sums into one `Tally` per (stage, arm, slice). Tallies merge with `+` in any order
and any grouping, so workers, windows, restarts and replays never change a decision.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from canary.core.arms import Arm
from canary.core.outcome import FAILURES, Outcome, Result

GROWTH = 1.02  # each bucket reaches 2 % further than the one before
LOWEST = 1e-4  # seconds; bucket 0 holds everything up to here
TOP = 1000  # 40,000 s and whatever never came: timeouts
HISTOGRAMS = ("ttft", "tpot", "e2e")
PAIR = "pair."
_LOG_GROWTH = math.log(GROWTH)
_NAMES = {name: tuple(f"{name}.{bucket}" for bucket in range(TOP + 1)) for name in HISTOGRAMS}

# Dollars are kept on a binary grid, so that doubles add up to the same bits in any order: exact up to 8,000 USD.
_COST_GRID, _COST2_GRID = 2.0**40, 2.0**60
_COST_MOST = 1e6  # USD; no request costs a million, and its square would leave the grid
_GRIDS = {"sum.cost": _COST_GRID, "sum.cost_tokens": _COST_GRID, "sum.cost2": _COST2_GRID}

_WORDS = {result: result.value for result in Result}
_DONE = frozenset({Result.OK, *FAILURES})

Key = tuple[int, str, str]
Cell = dict[str, int | float]


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
    return min(TOP - 1, math.ceil(math.log(seconds / LOWEST) / _LOG_GROWTH))


def seconds(bucket_number: float) -> float:
    """Return the upper end of a bucket in seconds."""
    return LOWEST * math.exp(_LOG_GROWTH * bucket_number)


class Ledger:
    """One worker's sums since the last flush. Not thread-safe: one event loop owns it."""

    def __init__(self) -> None:
        self._cells: dict[Key, Cell] = {}

    def assigned(self, stage: int, arm: str, slice: str) -> None:  # noqa: A002 - the word of the glossary
        """Count one request at the moment its arm was drawn."""
        self.count(stage, arm, slice, "assigned")

    def count(self, stage: int, arm: str, slice: str, name: str, by: int = 1) -> None:  # noqa: A002
        """Add `by` to a named count."""
        cell = self._cell(stage, arm, slice)
        cell[name] = cell.get(name, 0) + by

    def pair(self, stage: int, slice: str, d: float) -> None:  # noqa: A002
        """Add one shadow pair, d = score of the candidate - score of the baseline, -1..1; else it counts as failed."""
        usable = -1 <= d <= 1  # NaN is not
        name = f"{PAIR}{round(1000 * d)}" if usable else "pairs_failed"
        self.count(stage, Arm.CANDIDATE, slice, name)

    def record(self, outcome: Outcome) -> None:
        """Add one request's outcome under its own slice. Outcomes that are no evidence leave no trace."""
        if not outcome.evidence:
            return
        cell = self._cell(outcome.stage, outcome.arm, outcome.slice)
        result = outcome.result
        _add(cell, _WORDS[result])
        if result in _DONE:
            _add(cell, "done")
        if result is Result.OK:
            _add_answer(cell, outcome)
            _add_amounts(cell, outcome)
        elif result is Result.TIMEOUT:
            _add_overdue(cell, outcome)

    def drain(self) -> dict[str, int | float]:
        """Return everything since the last drain as "{stage}|{arm}|{slice}|{name}" -> amount, and start afresh."""
        cells, self._cells = self._cells, {}
        return {
            f"{stage}|{arm}|{slice_}|{name}": amount
            for (stage, arm, slice_), cell in cells.items()
            for name, amount in cell.items()
        }

    def _cell(self, stage: int, arm: str, slice_: str) -> Cell:
        key = (stage, str(arm), slice_)
        cell = self._cells.get(key)
        if cell is None:
            cell = self._cells[key] = {}
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


def _add(cell: Cell, name: str) -> None:
    cell[name] = cell.get(name, 0) + 1


def _add_answer(cell: Cell, outcome: Outcome) -> None:
    if outcome.completion_tokens == 0:
        _add(cell, "empty")
    if outcome.finish_reason == "length":
        _add(cell, "truncated")
    _add_measured(cell, "e2e", outcome.e2e)
    if outcome.ttft is not None:
        _add_measured(cell, "ttft", outcome.ttft)
    if outcome.tpot is not None:
        _add_measured(cell, "tpot", outcome.tpot)


def _add_measured(cell: Cell, name: str, value: float) -> None:
    """Count a duration in its bucket, or as one that is no duration."""
    _add(cell, _NAMES[name][bucket(value)] if 0 <= value < math.inf else "unusable")


def _add_overdue(cell: Cell, outcome: Outcome) -> None:
    """What never came is longer than anything seen: leaving it out would make a hanging arm look fast."""
    _add(cell, _NAMES["e2e"][TOP])
    if outcome.ttft is None:
        _add(cell, _NAMES["ttft"][TOP])
    else:
        _add_measured(cell, "ttft", outcome.ttft)
        _add(cell, _NAMES["tpot"][TOP])


def _add_amounts(cell: Cell, outcome: Outcome) -> None:
    prompt, completion, cost = outcome.prompt_tokens, outcome.completion_tokens, outcome.cost_usd
    cell["prompt_tokens"] = cell.get("prompt_tokens", 0) + prompt
    cell["completion_tokens"] = cell.get("completion_tokens", 0) + completion
    if cost is None:
        return
    if not 0 <= cost < _COST_MOST:
        cell["unusable"] = cell.get("unusable", 0) + 1
        return
    get = cell.get
    x, y = round(cost * _COST_GRID) / _COST_GRID, prompt + completion
    cell["priced"] = get("priced", 0) + 1
    cell["sum.cost"] = get("sum.cost", 0.0) + x
    cell["sum.cost2"] = get("sum.cost2", 0.0) + round(x * x * _COST2_GRID) / _COST2_GRID
    cell["sum.tokens"] = get("sum.tokens", 0.0) + y
    cell["sum.tokens2"] = get("sum.tokens2", 0.0) + y * y
    cell["sum.cost_tokens"] = get("sum.cost_tokens", 0.0) + x * y


def _snap(name: str, amount: float) -> float:
    """Move an amount to the nearest point of its grid; the store's decimal arithmetic strays from it by less."""
    grid = _GRIDS.get(name)
    return amount if grid is None or not math.isfinite(amount) else round(amount * grid) / grid
