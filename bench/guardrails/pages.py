"""The results as a page: what was counted, in tables, with bounds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from statistics import median

from scipy.stats import beta

from bench.guardrails.cases import BESIDE, EQUAL, FEW, HALF, LATELY, REQUESTS, WORSE, Case
from bench.guardrails.peers import OURS, PEERS

_PAGE = """# The guardrails over made-up traffic

{made}. Made by `python -m bench.guardrails`: 20 requests a second where nothing else is said, looked at every second,
up to {requests:,} of the candidate (1,200 s in the ramps), nine guardrails at their default margins, alpha 1 %, the
workers' tripwire in it. The plan has as many shares as the case, and the bake.
Thousands of runs are told side by side; a test holds them to the product: the same evidence each second, the same
rollback.

## Equal arms

Rolled back, of runs, and the one-sided 95 % upper bound of the rate (Clopper and Pearson, 1934). Own noise: an
Ornstein-Uhlenbeck process of one machine's log latency, 18 % of TTFT and 10 % of TPOT, the candidate's or both arms'.
What is marked *outside* is noise that the guardrails do not claim to withstand.

{equal}

## Worse candidates

The median of the candidate's requests until rollback. No machine has noise of its own here; the guardrails cannot
know that without a reference, and a reference of six hours tells them. Errors, cost and quality need none.

{worse}

## Harm that begins with the last share of a ramp

The same, of the candidate's requests since then: after 400 s at 5 % and 400 s at 25 % with load x1.65, both quiet, at
50 % with load x2.5. Quiet stages neither have to be won back nor hide what comes after them.

{lately}

## Other methods on the same traffic

Our reading of each, once a minute (`bench/guardrails/peers.py` says which); none of these products was run. Rolled
back by {requests:,} requests of the candidate, and for a worse one the median of its requests until then; share 50 %
/ 5 %. A run lasts 17 minutes at 50 % and 2 h 47 min at 5 %, and limits on failed checks are counted over all of it.
Linnet without a reference, which is why it is slow with latency: what is quicker there mistakes a noisy machine for it.

{beside}

## The traffic

- TTFT 0.3 s, TPOT 20 ms, lognormal (sd 0.5 and 0.2) around a load that both arms share (sd 0.3 of log TTFT, two
  minutes); 0.5 % errors, 0.5 % empty, 2 % truncated; cost lognormal (sd 0.5); 20 to 199 tokens.
- One pair of shadow scores for each request of the candidate at either share, differences with sd 0.15.
- Sticky sessions: eight requests on average, ten seconds apart (a minute in the ramp), each with a level of cost
  (sd 0.5) and TTFT (sd 0.3) of its own; one in twenty has all errors. Late reports: 10 % of all and 40 % of slow
  requests, up to a minute.
- A reference compares two of the baseline's replicas for six hours, quiet ones or, where noise of half an hour is the
  case, as noisy.

Not in it: candidates that hang (the watchdog), several workers with a tripwire each, restarts of the control plane,
harm that begins within a stage, slices, a control alongside, warm-up, real engines.
"""


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
        by = sum((Counter(count.by) for count in row.values()), Counter[str]())
        cells = [_bounded(row.get(share)) for share in (HALF, FEW)]
        lines.append(f"| {name} | {' | '.join(cells)} | {_who(by)} |")
    return "\n".join(lines)


def worse_table(counts: Mapping[str, Count]) -> str:
    """Return the table of harm: the median of the candidate's requests until rollback."""
    lines = ["| worse | share 5 % | share 50 % | runs | by |", "|---|---:|---:|---:|---|"]
    for name, row in _rows(WORSE, counts).items():
        cells = ["" if share not in row else middle(row[share].median) for share in (FEW, HALF)]
        by = sum((Counter(count.by) for count in row.values()), Counter[str]())
        lines.append(f"| {name} | {' | '.join(cells)} | {max(c.runs for c in row.values())} | {_who(by, 2)} |")
    return "\n".join(lines)


def lately_table(counts: Mapping[str, Count]) -> str:
    """Return the table of harm that begins late: the median of the candidate's requests since then."""
    lines = ["| worse | requests | runs | by |", "|---|---:|---:|---|"]
    for name, row in _rows(LATELY, counts).items():
        lines += [f"| {name} | {middle(c.median)} | {c.runs} | {_who(Counter(c.by), 2)} |" for c in row.values()]
    return "\n".join(lines)


def beside_table(counts: Mapping[str, Count]) -> str:
    """Return the table of methods: a line a method, a column a case, 50 % and 5 % in it."""
    names = list(dict.fromkeys(case.name for case in BESIDE))
    equal = {case.name for case in EQUAL}
    lines = [f"| share 50 % / 5 % | {' | '.join(names)} |", f"|---|{'---:|' * len(names)}"]
    for peer in (*PEERS, OURS):
        cells = []
        for name in names:
            of = [
                counts.get(f"{case.key} | {peer}")
                for share in (HALF, FEW)
                for case in BESIDE
                if (case.name, case.share) == (name, share)
            ]
            cells.append(" / ".join("" if count is None else _short(count, equal=name in equal) for count in of))
        lines.append(f"| {peer} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _who(by: Counter[str], most: int | None = None) -> str:
    return ", ".join(f"{guard} {times}" for guard, times in by.most_common(most)) or "none"


def _short(count: Count, *, equal: bool) -> str:
    if equal:
        return f"{count.hits / count.runs:.1%}"
    return f"{count.median:,.0f}" if count.median < inf else "none"


def page(counts: Mapping[str, Count], made: str) -> str:
    """Return the results as a page; `made` is the day of the newest."""
    tables = {
        "equal": equal_table(counts),
        "worse": worse_table(counts),
        "lately": lately_table(counts),
        "beside": beside_table(counts),
    }
    return _PAGE.format(made=made, requests=REQUESTS, **tables)


def _bounded(count: Count | None) -> str:
    return " | " if count is None else f"{count.hits} of {count.runs:,} | {upper(count.hits, count.runs):.2%}"


def _rows(cases: Sequence[Case], counts: Mapping[str, Count]) -> dict[str, dict[float, Count]]:
    """Return counts by a case's name and share, in the order of the cases."""
    found: dict[str, dict[float, Count]] = {}
    for case in cases:
        if case.key in counts:
            found.setdefault(case.title, {})[case.share] = counts[case.key]
    return found
