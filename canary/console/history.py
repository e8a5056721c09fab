"""What the audit tells: its entries, and the attempts of a release with their ends. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.markup import escape
from rich.table import Table

from canary.console import figures
from canary.console.place import place, real

DEPTH = 10_000  # audit entries read for the history
ENDS = ("promoted", "rolled_back", "aborted", "superseded")
Entry = Mapping[str, Any]


@dataclass(slots=True)
class Attempt:
    """One attempt of a release, from its first entry to its last."""

    release: str
    attempt: int
    started_ms: float
    ended_ms: float | None = None
    result: str = ""
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def attempts(entries: Iterable[Entry]) -> list[Attempt]:
    """Fold audit entries, oldest first, into attempts."""
    found: dict[tuple[str, int], Attempt] = {}
    for entry in entries:
        name, number, at = entry.get("release"), real(entry.get("attempt")), real(entry.get("unix_ms"))
        if not name or number is None or at is None:
            continue
        _note(found.setdefault((name, int(number)), Attempt(name, int(number), at)), entry, at)
    return list(found.values())


def _note(attempt: Attempt, entry: Entry, at: float) -> None:
    phase = place(entry.get("after")).phase
    if phase in ENDS and phase != attempt.result:
        attempt.result, attempt.ended_ms, attempt.reason = phase, at, str(entry.get("why") or "")


def table(rows: Sequence[Attempt]) -> Table:
    """Draw attempts, one a line."""
    drawn = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for name in ("release", "attempt", "started (UTC)", "lasted", "result"):
        drawn.add_column(name, no_wrap=True)
    drawn.add_column("why", overflow="fold")
    for row in rows:
        lasted = figures.seconds(None if row.ended_ms is None else (row.ended_ms - row.started_ms) / 1000)
        started = figures.moment(row.started_ms, "%m-%d %H:%M:%S")
        words = (row.release, str(row.attempt), started, lasted, row.result or "under way", row.reason)
        drawn.add_row(*map(escape, words))
    return drawn


def entries(rows: Sequence[Entry]) -> Table:
    """Draw audit entries: number, when, which model, who, what and where it led, why."""
    drawn = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for name in ("seq", "when (UTC)", "model", "who", "what", "gen"):
        drawn.add_column(name, no_wrap=True)
    drawn.add_column("why", overflow="fold")
    for row in rows:
        drawn.add_row(*(escape(word) for word in _row(row)))
    return drawn


def _row(row: Entry) -> tuple[str, ...]:
    plain = (str(row.get(name) or "") for name in ("seq", "model", "who", "generation", "why"))
    seq, model, who, generation, why = plain
    return seq, figures.moment(real(row.get("unix_ms")), "%m-%d %H:%M:%S"), model, who, _way(row), generation, why


def _way(row: Entry) -> str:
    """Name the change with the place before and after it, once if it stayed."""
    what, before, after = str(row.get("what") or ""), place(row.get("before")), place(row.get("after"))
    if not after.phase:
        return what
    led = f"{after.phase} {figures.percent(after.percent)}"
    if before.phase and before != after:
        led = f"{before.phase} {figures.percent(before.percent)} → {led}"
    return led if what == after.phase else f"{what}: {led}"
