"""What a worker counts between two flushes: plain counters, emptied into deltas that the store only adds up."""

from __future__ import annotations

from typing import Final

from canary.core.arms import Arm
from canary.core.cell import Cell
from canary.core.outcome import Outcome, Result
from canary.core.tally import CONTROL, HALVES, PAIR, Amount, Key
from canary.core.units import AGAIN, ASSIGNED, TIMED, WAITING_MOST, Claim, Units, kinds_of, offset_of

_BASELINE: Final = Arm.BASELINE  # an Enum looks its members up in Python; every request would pay for it
_OK: Final = Result.OK
_TIMEOUT: Final = Result.TIMEOUT


class Ledger:
    """One worker's sums of an attempt since the last flush. Not thread-safe: one event loop owns it.

    What it remembers of units outlives a flush.
    """

    def __init__(self) -> None:
        self._cells: dict[Key, Cell] = {}
        self._claims: list[Claim] = []
        self._units = Units()

    def assigned(
        self,
        stage: int,
        arm: str,
        slice: str,  # noqa: A002 - the word of the glossary
        unit: int = 0,
        *,
        control: bool = False,
    ) -> None:
        """Count one request at the moment its arm was drawn."""
        cell = self._cell(stage, arm, slice)
        cell.counts[ASSIGNED] += 1
        if control:
            self._cell(stage, CONTROL, slice).counts[ASSIGNED] += 1
        if unit:
            self._once(cell, (stage, arm, slice), unit, ASSIGNED, None)

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
        if not outcome.evidence:
            return
        cell = self._cell(outcome.stage, outcome.arm, outcome.slice)
        cell.add(outcome)
        if outcome.control:
            self._cell(outcome.stage, CONTROL, outcome.slice).add_load(outcome)
        if outcome.unit:
            key = outcome.stage, outcome.arm, outcome.slice
            for kind in kinds_of(outcome):
                self._once(cell, key, outcome.unit, kind, outcome)

    def refer(self, outcome: Outcome) -> None:
        """Add an outcome's latency to its half of the baseline's replicas, which are compared with each other.

        Each request counts, also a unit's later ones: the halves are not what chance divides units between.
        """
        usual = outcome.arm is _BASELINE and outcome.evidence and not outcome.control
        if usual and outcome.replica >= 0 and (outcome.result is _OK or outcome.result is _TIMEOUT):
            self._cell(0, HALVES[outcome.replica % 2], "").time(outcome)

    def drain(self) -> dict[str, Amount]:
        """Return all sums since the last drain as "{stage}|{arm}|{slice}|{name}" -> amount, and start afresh."""
        cells, self._cells = self._cells, {}
        drained: dict[str, Amount] = {}
        for key, cell in cells.items():
            fields = cell.block_fields() if key[1] in HALVES else cell.fields()
            for word, amount in fields:
                name = _name(key, word)
                drained[name] = drained.get(name, 0) + amount
        return drained

    def claims(self) -> tuple[Claim, ...]:
        """Return what has been claimed since the last time; to be written in one step with what `drain` returns."""
        claims, self._claims = self._claims, []
        return tuple(claims)

    def _once(self, cell: Cell, key: Key, unit: int, kind: str, outcome: Outcome | None) -> None:
        """Count an event of a unit as one that it had before, or leave it to the store to find out."""
        offset, timed = offset_of(unit, kind), kind == TIMED
        if self._units.known(offset) or len(self._claims) >= WAITING_MOST:  # too many: no evidence rather than twice
            if not timed:
                cell.counts[kind + AGAIN] += 1
            return
        self._units.remember(offset)
        fresh = _latencies(key, outcome) if timed and outcome is not None else {}
        self._claims.append(Claim(offset, fresh, {} if timed else {_name(key, kind + AGAIN): 1}))

    def _cell(self, stage: int, arm: str, slice_: str) -> Cell:
        key = stage, arm, slice_
        cell = self._cells.get(key)
        if cell is None:
            cell = self._cells[key] = Cell()
        return cell


def _latencies(key: Key, outcome: Outcome) -> dict[str, int]:
    """Return the fields of one request's latencies, under its arm and under the control if that answered."""
    cell = Cell()
    cell.time(outcome)
    keys = [key, (key[0], CONTROL, key[2])] if outcome.control else [key]
    return {_name(at, word): int(amount) for word, amount in cell.fields() for at in keys}


def _name(key: Key, word: str) -> str:
    return f"{key[0]}|{key[1]}|{key[2]}|{word}"
