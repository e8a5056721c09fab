"""What one worker counts for one arm in one stage and slice: plain numbers, named only when they are written down."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from typing import Final

from canary.core.outcome import FAILURES, Outcome, Result
from canary.core.tally import (
    BLOCK_S,
    BLOCK_WORDS,
    COST2_GRID,
    COST_GRID,
    COST_MOST,
    GROUP_COST_GRID,
    GROUPS,
    HISTOGRAMS,
    SQUARES,
    TOP,
    Amount,
    bucket,
)

_BLOCKED: Final = ("ttft", "tpot")
_BUSY_MOST: Final = 1e6  # seconds; no request takes eleven days, and a damaged clock must not end all sums
# An Enum looks its members up in Python; every request would pay for it.
_OK: Final = Result.OK
_TIMEOUT: Final = Result.TIMEOUT


class Cell:
    """Sums of one stage, arm and slice, which get their names in `fields`.

    What every answer raises has an attribute, the rest is in `counts` by name. Dollars are whole steps of their grids.
    """

    __slots__ = (
        "blocks",
        "busy_ms",
        "cached_tokens",
        "completion_tokens",
        "cost",
        "cost2",
        "cost_tokens",
        "counts",
        "e2e",
        "failed",
        "length",
        "length2",
        "lengths",
        "ok",
        "priced",
        "prompt_tokens",
        "stall",
        "tokens",
        "tokens2",
        "tpot",
        "ttft",
    )

    def __init__(self) -> None:
        self.counts: defaultdict[str, int] = defaultdict(int)
        self.blocks: dict[int, list[int]] = {}  # by number: for each latency of _BLOCKED the sums of BLOCK_WORDS
        self.e2e: defaultdict[int, int] = defaultdict(int)
        self.ttft: defaultdict[int, int] = defaultdict(int)
        self.tpot: defaultdict[int, int] = defaultdict(int)
        self.stall: defaultdict[int, int] = defaultdict(int)
        self.ok = self.failed = self.busy_ms = 0
        self.prompt_tokens = self.completion_tokens = self.cached_tokens = 0
        self.priced = self.tokens = self.tokens2 = self.cost = self.cost2 = self.cost_tokens = 0
        self.lengths = self.length = self.length2 = 0

    def add(self, outcome: Outcome) -> None:
        """Add one outcome; of a unit's latencies nothing, which are for `time` if it is the unit's first."""
        result = outcome.result
        if result is _OK:
            self._add_answer(outcome)
        else:
            self.counts[result.value] += 1
            if result not in FAILURES:
                return
            self.failed += 1
            if result is _TIMEOUT:
                self.e2e[TOP] += 1
        self._occupy(outcome.e2e)
        if outcome.unit == 0:
            self.time(outcome)

    def add_load(self, outcome: Outcome) -> None:
        """Add how an outcome loaded who answered it, and how long it took: what a control is there to compare."""
        if outcome.result is _OK:
            self.prompt_tokens += outcome.prompt_tokens
            self.cached_tokens += outcome.cached_tokens
            self._measure(self.e2e, outcome.e2e)
        elif outcome.result is _TIMEOUT:
            self.e2e[TOP] += 1
        elif outcome.result not in FAILURES:
            return
        self.counts["done"] += 1
        self._occupy(outcome.e2e)
        if outcome.unit == 0:
            self.time(outcome)

    def time(self, outcome: Outcome) -> None:
        """Add an outcome's latencies, unless it came while the arms warmed up.

        What never came is longer than anything seen: leaving it out would make a hanging arm look fast.
        """
        if outcome.cold:
            return
        ttft = tpot = -1
        if outcome.result is _OK:
            if outcome.ttft is not None:
                ttft = self._measure(self.ttft, outcome.ttft)
            if outcome.tpot is not None:
                tpot = self._measure(self.tpot, outcome.tpot)
            if outcome.stall is not None:
                self._measure(self.stall, outcome.stall)
        elif outcome.result is not _TIMEOUT:
            return
        elif outcome.ttft is None:
            ttft = TOP
            self.ttft[TOP] += 1
        else:
            ttft, tpot = self._measure(self.ttft, outcome.ttft), TOP
            self.tpot[TOP] += 1
            self.stall[TOP] += 1
        self._in_block(outcome.at, ttft, tpot)

    def fields(self) -> Iterator[tuple[str, Amount]]:
        """Give every amount but zeros its name in the store; a name may come twice."""
        for name, count in self.counts.items():
            if count:
                yield name, count
        for name in HISTOGRAMS:
            for number, count in getattr(self, name).items():
                yield f"{name}.{number}", count
        yield from self.block_fields()
        for name, amount in self._amounts().items():
            if amount:
                yield name, amount

    def block_fields(self) -> Iterator[tuple[str, int]]:
        """Give the sums of the blocks their names in the store."""
        for number, sums in self.blocks.items():
            for place, name in enumerate(_BLOCKED):
                own = sums[3 * place : 3 * place + 3]
                if own[0]:
                    for word, amount in zip(BLOCK_WORDS, own, strict=True):
                        yield f"{name}@{number}.{word}", amount

    def _amounts(self) -> dict[str, Amount]:
        return {
            "ok": self.ok,
            "done": self.ok + self.failed,
            "busy_ms": self.busy_ms,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "cached_tokens": self.cached_tokens,
            "priced": self.priced,
            "lengths": self.lengths,
            "sum.cost": self.cost / COST_GRID,
            "sum.cost2": self.cost2 / COST2_GRID,
            "sum.tokens": float(self.tokens),
            "sum.tokens2": float(self.tokens2),
            "sum.cost_tokens": self.cost_tokens / COST_GRID,
            "sum.length": float(self.length),
            "sum.length2": float(self.length2),
        }

    def _add_answer(self, outcome: Outcome) -> None:
        self.ok += 1
        self.prompt_tokens += outcome.prompt_tokens
        self.completion_tokens += outcome.completion_tokens
        self.cached_tokens += outcome.cached_tokens
        if outcome.completion_tokens == 0:
            self.counts["empty"] += 1
        if outcome.finish_reason == "length":
            self.counts["truncated"] += 1
        for flaw in outcome.flaws:
            self.counts[flaw] += 1
        self._measure(self.e2e, outcome.e2e)
        if outcome.cold:
            self.counts["cold"] += 1
            return
        cost = outcome.cost_usd
        # Only usage tells how long an answer was, and a prompt is never without a token there.
        if cost is not None or outcome.prompt_tokens:
            self._extend(outcome.completion_tokens, outcome.unit)
        if cost is not None:
            self._charge(cost, outcome.prompt_tokens + outcome.completion_tokens, outcome.unit)

    def _occupy(self, e2e: float) -> None:
        """Add the time that a finished request was in hand."""
        if 0 <= e2e < _BUSY_MOST:
            self.busy_ms += round(e2e * 1000)

    def _measure(self, histogram: defaultdict[int, int], value: float) -> int:
        """Count a duration in its bucket, and return that; or count it as one that is no duration, and return -1."""
        if not 0 <= value < math.inf:
            self.counts["unusable"] += 1
            return -1
        found = bucket(value)
        histogram[found] += 1
        return found

    def _in_block(self, at: float, ttft: int, tpot: int) -> None:
        """Count buckets in their block; -1 is no duration, and a request of no known time is in no block."""
        if at <= 0 or (ttft < 0 and tpot < 0):
            return
        number = int(at // BLOCK_S)
        sums = self.blocks.get(number)
        if sums is None:
            sums = self.blocks[number] = [0, 0, 0, 0, 0, 0]
        if ttft >= 0:
            sums[0] += 1
            sums[1] += ttft
            sums[2] += ttft * ttft
        if tpot >= 0:
            sums[3] += 1
            sums[4] += tpot
            sums[5] += tpot * tpot

    def _extend(self, length: int, unit: int) -> None:
        """Add how long an answer was; the requests of a unit are alike, so its squares say nothing of the spread."""
        self.lengths += 1
        self.length += length
        if unit == 0:
            self.length2 += length * length
        else:
            group = unit % GROUPS
            self.counts[f"lengths_of.{group}"] += 1
            self.counts[f"length_of.{group}"] += length

    def _charge(self, cost: float, tokens: int, unit: int) -> None:
        """Add what an answer cost, or count it as one whose cost is none."""
        if not 0 <= cost < COST_MOST:
            self.counts["unusable"] += 1
            return
        steps = round(cost * COST_GRID)
        self.priced += 1
        self.tokens += tokens
        self.cost += steps
        if unit == 0:
            self.tokens2 += tokens * tokens
            self.cost2 += round(steps * steps / SQUARES)
            self.cost_tokens += steps * tokens
        else:
            group = unit % GROUPS
            self.counts[f"answers_of.{group}"] += 1
            self.counts[f"tokens_of.{group}"] += tokens
            self.counts[f"cost_of.{group}"] += round(cost * GROUP_COST_GRID)
