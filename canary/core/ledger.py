"""What a worker counts between two flushes: plain counters, emptied into deltas that the store only adds up."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from typing import Final

from canary.core.arms import Arm
from canary.core.outcome import FAILURES, Outcome, Result
from canary.core.tally import (
    BLOCK_S,
    BLOCK_WORDS,
    COST2_GRID,
    COST_GRID,
    COST_MOST,
    HISTOGRAMS,
    PAIR,
    SQUARES,
    TOP,
    Amount,
    Key,
    bucket,
)

# An Enum looks its members up in Python; every request would pay for it.
_OK: Final = Result.OK
_TIMEOUT: Final = Result.TIMEOUT


class Cell:
    """What one worker counted for one stage, arm and slice: plain numbers, which get their names in `fields`.

    What every answer raises has an attribute, the rest is in `counts` by name. Dollars are whole steps of their grids.
    """

    __slots__ = (
        "blocks",
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
        self.blocks: dict[tuple[str, int], list[int]] = {}
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
        for (name, block), sums in self.blocks.items():
            for word, number in zip(BLOCK_WORDS, sums, strict=True):
                yield f"{name}@{block}.{word}", number
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
            "sum.cost": self.cost / COST_GRID,
            "sum.cost2": self.cost2 / COST2_GRID,
            "sum.tokens": float(self.tokens),
            "sum.tokens2": float(self.tokens2),
            "sum.cost_tokens": self.cost_tokens / COST_GRID,
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
            self._in_block("ttft", outcome.at, self._measure(self.ttft, outcome.ttft))
        if outcome.tpot is not None:
            self._in_block("tpot", outcome.at, self._measure(self.tpot, outcome.tpot))
        if outcome.cost_usd is not None:
            self._charge(outcome.cost_usd, outcome.prompt_tokens + outcome.completion_tokens)

    def _add_overdue(self, outcome: Outcome) -> None:
        """What never came is longer than anything seen: leaving it out would make a hanging arm look fast."""
        self.e2e[TOP] += 1
        if outcome.ttft is None:
            self.ttft[TOP] += 1
            self._in_block("ttft", outcome.at, TOP)
        else:
            self._in_block("ttft", outcome.at, self._measure(self.ttft, outcome.ttft))
            self.tpot[TOP] += 1
            self._in_block("tpot", outcome.at, TOP)

    def _measure(self, histogram: defaultdict[int, int], value: float) -> int:
        """Count a duration in its bucket, and return that; or count it as one that is no duration, and return -1."""
        if not 0 <= value < math.inf:
            self.counts["unusable"] += 1
            return -1
        found = bucket(value)
        histogram[found] += 1
        return found

    def _in_block(self, name: str, at: float, found: int) -> None:
        """Count a bucket in its block; a request of no known time, or without a duration, is in none."""
        if at <= 0 or found < 0:
            return
        key = name, int(at // BLOCK_S)
        sums = self.blocks.get(key)
        if sums is None:
            sums = self.blocks[key] = [0, 0, 0]
        sums[0] += 1
        sums[1] += found
        sums[2] += found * found

    def _charge(self, cost: float, tokens: int) -> None:
        """Add what an answer cost, or count it as one whose cost is none."""
        if not 0 <= cost < COST_MOST:
            self.counts["unusable"] += 1
            return
        steps = round(cost * COST_GRID)
        self.priced += 1
        self.tokens += tokens
        self.tokens2 += tokens * tokens
        self.cost += steps
        self.cost2 += round(steps * steps / SQUARES)
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
