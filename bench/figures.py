"""From samples to the table (pure)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Sample:
    """One target in one round: CPU ms a whole answer, CPU s per 10^6 content chunks, TTFT p50 added to direct's, ms."""

    whole_ms: float
    chunks_s: float
    ttft_ms: float


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of the rounds, and their extremes."""

    middle: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Summarise at least one value."""
        return cls(median(values), min(values), max(values))

    def __str__(self) -> str:
        return f"{self.middle:.3g} ({self.least:.3g} to {self.most:.3g})"


_ROWS: tuple[tuple[str, Callable[[Sample], float]], ...] = (
    ("CPU ms a whole answer", lambda sample: sample.whole_ms),
    ("CPU s per 10^6 streamed chunks", lambda sample: sample.chunks_s),
    ("added TTFT p50, ms", lambda sample: sample.ttft_ms),
)


def ratio(ours: Sequence[float], peers: Sequence[float]) -> Spread | None:
    """Return ours / peer's of each round; None where a peer's figure is not above zero, which only noise makes."""
    if min(peers) <= 0:
        return None
    return Spread.of([mine / its for mine, its in zip(ours, peers, strict=True)])


def table(ours: Sequence[Sample], peers: Sequence[Sample]) -> str:
    """Return the table in Markdown: medians over the rounds, least to most in parentheses."""
    lines = ["| | Linnet | peer | ratio Linnet / peer |", "|---|---|---|---|"]
    for name, figure in _ROWS:
        mine, its = [figure(sample) for sample in ours], [figure(sample) for sample in peers]
        lines.append(f"| {name} | {Spread.of(mine)} | {Spread.of(its)} | {ratio(mine, its) or 'noise'} |")
    return "\n".join(lines)
