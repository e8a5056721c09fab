"""The results as a page: what was counted, in tables, with bounds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from statistics import median

from scipy.stats import beta

from bench.guardrails.cases import EQUAL, FEW, HALF, REQUESTS, WORSE, Case

TARGETS: Mapping[str, tuple[float, float]] = {
    "error 100 %": (4, 6),
    "error +5 pp": (101, 363),
    "error +1 pp": (1866, 3004),
    "cost x1.15": (407, 647),
    "quality -0.03": (541, 556),
    "quality -0.1": (217, 218),
    "TTFT x1.2, 6 h reference": (294, 669),
    "TTFT x1.5, 6 h reference": (156, 311),
    "TTFT x2, 6 h reference": (129, 285),
    "TTFT x5 on 10 % of requests, 6 h reference": (438, 692),
    "TPOT x1.1, 6 h reference": (276, 726),
    "TPOT x1.25, 6 h reference": (160, 504),
    "TPOT x1.5, 6 h reference": (142, 472),
    "TTFT x1.2": (3734, inf),
    "TTFT x1.5": (1854, inf),
    "TTFT x2": (895, 4030),
    "TTFT x5 on 10 % of requests": (651, 1150),
    "TPOT x1.1": (2761, inf),
    "TPOT x1.25": (1679, 8992),
    "TPOT x1.5": (828, 4431),
}


@dataclass(frozen=True, slots=True)
class Count:
    """What became of a case's runs: how many there were, and of those rolled back the candidate's requests, and by."""

    runs: int
    requests: tuple[int, ...]
    by: Mapping[str, int]

    @property
    def hits(self) -> int:
        """How many were rolled back."""
        return len(self.requests)

    @property
    def median(self) -> float:
        """The candidate's requests until rollback; infinite if fewer than half came to one."""
        return median([*self.requests, *[inf] * (self.runs - self.hits)])


def counted(told: Sequence[tuple[int, str]]) -> Count:
    """Count runs by (the candidate's requests, what rolled back)."""
    failed = [one for one in told if one[1]]
    by = Counter(name for _, name in failed)
    return Count(len(told), tuple(sorted(requests for requests, _ in failed)), dict(by.most_common()))


def upper(hits: int, runs: int) -> float:
    """Return the one-sided 95 % upper bound of a rate (Clopper and Pearson, 1934)."""
    return 1.0 if hits == runs else float(beta.ppf(0.95, hits + 1, runs - hits))


def middle(requests: float) -> str:
    """Return a median, or that there is none."""
    return f"{requests:,.0f}" if requests < inf else f"not in {REQUESTS:,}"


def equal_table(counts: Mapping[str, Count]) -> str:
    """Return the table of equal arms: rolled back, of how many, and the bound."""
    lines = ["| equal arms | share 50 % | bound | share 5 % | bound | by |", "|---|---:|---:|---:|---:|---|"]
    for name, row in _rows(EQUAL, counts).items():
        by = Counter[str]()
        for count in row.values():
            by.update(count.by)
        cells = [_bounded(row.get(share)) for share in (HALF, FEW)]
        told = ", ".join(f"{guard} {times}" for guard, times in by.most_common()) or "none"
        lines.append(f"| {name} | {' | '.join(cells)} | {told} |")
    return "\n".join(lines)


def worse_table(counts: Mapping[str, Count]) -> str:
    """Return the table of harm: median candidate requests to rollback, beside what a first design reached."""
    lines = ["| worse | share 5 % | first design | share 50 % | first design | by |", "|---|---:|---:|---:|---:|---|"]
    for name, row in _rows(WORSE, counts).items():
        cells = []
        for share, target in zip((FEW, HALF), TARGETS.get(name, (inf, inf)), strict=True):
            count = row.get(share)
            cells += ["" if count is None else middle(count.median), middle(target)]
        by = Counter[str]()
        for count in row.values():
            by.update(count.by)
        told = ", ".join(f"{guard} {times}" for guard, times in by.most_common(2)) or "none"
        lines.append(f"| {name} | {' | '.join(cells)} | {told} |")
    return "\n".join(lines)


def _bounded(count: Count | None) -> str:
    return " | " if count is None else f"{count.hits} of {count.runs:,} | {upper(count.hits, count.runs):.2%}"


def _rows(cases: Sequence[Case], counts: Mapping[str, Count]) -> dict[str, dict[float, Count]]:
    """Return counts by a case's name and share, in the order of the cases."""
    found: dict[str, dict[float, Count]] = {}
    for case in cases:
        if case.key in counts:
            found.setdefault(case.name + (", 6 h reference" if case.reference else ""), {})[case.share] = counts[
                case.key
            ]
    return found
