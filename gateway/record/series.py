"""What the metrics are, and how sums of several workers make one (pure).

A series is a list of numbers: [value], or for a histogram [sum of values, how many fell into each bucket..., above].
Lists add up number by number, so the sum of two workers is a worker that did both's work.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

OTHER: Final = "other"  # whatever a client chose

Numbers = list[float]
Labels = tuple[str, ...]
Sums = dict[str, dict[Labels, Numbers]]  # by metric and label values


class Kind(StrEnum):
    """What a metric means when there are several workers, and when one has died."""

    COUNTER = "counter"  # the sum, the dead ones' too
    HISTOGRAM = "histogram"  # the same
    TOTAL = "total"  # a gauge: the sum over the living
    LEAST = "least"  # a gauge: the lowest among the living
    LATEST = "latest"  # a gauge: whoever spoke last


LASTING: Final = frozenset({Kind.COUNTER, Kind.HISTOGRAM})


@dataclass(frozen=True, slots=True)
class Metric:
    """One row of the table. `bounds` are a histogram's upper bounds; the one above all is understood."""

    kind: Kind
    text: str
    labels: Labels = ()
    bounds: tuple[float, ...] = ()

    def fresh(self) -> Numbers:
        """Return a series that has counted nothing."""
        return [0] * (len(self.bounds) + 2 if self.bounds else 1)


_MODEL: Final = ("model",)
_ARM: Final = ("model", "arm")
_FAST: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0)
_TOKEN: Final = (0.001, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.06, 0.1, 0.2, 0.5, 1.0)
_FIRST: Final = (0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
_WHOLE: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 120.0, 300.0, 600.0)
_PART: Final = tuple(part / 10 for part in range(11))

TABLE: Mapping[str, Metric] = {
    "linnet_requests_total": Metric(Kind.COUNTER, "Requests by how they ended.", (*_ARM, "outcome")),
    "linnet_request_seconds": Metric(Kind.HISTOGRAM, "Whole time of good answers.", _ARM, _WHOLE),
    "linnet_ttft_seconds": Metric(Kind.HISTOGRAM, "Time to the first content chunk.", _ARM, _FIRST),
    "linnet_tpot_seconds": Metric(Kind.HISTOGRAM, "Time per further output token.", _ARM, _TOKEN),
    "linnet_overhead_seconds": Metric(
        Kind.HISTOGRAM, "The gateway's own time before the engine is asked.", _MODEL, _FAST
    ),
    "linnet_tokens_total": Metric(Kind.COUNTER, "Tokens by kind.", (*_ARM, "kind")),
    "linnet_cost_usd_total": Metric(Kind.COUNTER, "Calibrated cost of good answers.", _ARM),
    "linnet_fail_overs_total": Metric(Kind.COUNTER, "Failed candidates the baseline answered for.", _MODEL),
    "linnet_retries_total": Metric(Kind.COUNTER, "Requests that another replica was asked.", _MODEL),
    "linnet_shed_total": Metric(Kind.COUNTER, "Requests turned away unanswered, by reason.", (*_MODEL, "reason")),
    "linnet_quota_alone": Metric(Kind.TOTAL, "Workers that enforce their share of the keys' limits alone."),
    "linnet_quota_refused_total": Metric(Kind.COUNTER, "Requests beyond a key's limits.", ("kind",)),
    "linnet_trips_total": Metric(Kind.COUNTER, "Tripwires that fired.", _MODEL),
    "linnet_shadow_attempted_total": Metric(Kind.COUNTER, "Sampled requests: mirrored + dropped.", _MODEL),
    "linnet_shadow_pairs_total": Metric(Kind.COUNTER, "Shadow pairs by result.", (*_MODEL, "result")),
    "linnet_shadow_dropped_total": Metric(Kind.COUNTER, "Mirrors not run, by reason.", (*_MODEL, "reason")),
    "linnet_shadow_agreement": Metric(Kind.HISTOGRAM, "Agreement of answers.", (*_MODEL, "kind"), _PART),
    "linnet_log_dropped_total": Metric(Kind.COUNTER, "Lines of the access log that the disk did not take."),
    "linnet_split_ratio": Metric(Kind.LATEST, "Share of traffic by arm.", (*_ARM, "kind")),
    "linnet_release_generation": Metric(Kind.LEAST, "The split's generation (oldest).", _MODEL),
    "linnet_admission_queue": Metric(Kind.TOTAL, "Requests that wait for a slot.", _ARM),
    "linnet_requests_in_flight": Metric(Kind.TOTAL, "Requests being answered."),
    "linnet_upstream_connections": Metric(Kind.TOTAL, "Open connections to engines."),
    "linnet_engine_up": Metric(Kind.LEAST, "1 if every worker can send requests to the engine.", ("engine",)),
    "linnet_store_up": Metric(Kind.LEAST, "1 if the store answers every worker."),
}

# A label is a name from the configuration (model, engine) or one of these words; nothing else is ever a label.
WORDS: Mapping[str, frozenset[str]] = {
    "arm": frozenset({"baseline", "candidate", "none"}),
    "outcome": frozenset({"ok", "error", "timeout", "client_error", "cancelled", "refused"}),
    "kind": frozenset(
        {"prompt", "completion", "desired", "agree", "floor", "requests", "tokens", "insufficient_quota"}
    ),
    "result": frozenset({"scored", "unscored", "candidate_failed"}),
    "reason": frozenset({"full", "shed", "superseded", "queue_full", "deadline"}),
}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One worker's sums at one time (Unix seconds)."""

    at: float
    sums: Sums


def lasting(sums: Sums) -> Sums:
    """Return what a worker leaves behind when it dies: everything but its gauges."""
    return {name: rows for name, rows in sums.items() if TABLE[name].kind in LASTING}


def add(left: Sums, right: Sums) -> Sums:
    """Return the sum of what two workers counted."""
    both = {name: dict(rows) for name, rows in left.items()}
    for name, rows in right.items():
        into = both.setdefault(name, {})
        for labels, numbers in rows.items():
            into[labels] = [a + b for a, b in zip(into[labels], numbers, strict=True)] if labels in into else numbers
    return both


def merge(living: Iterable[Snapshot], dead: Sums) -> Sums:
    """Return all workers as one: `dead` is what those that are gone have left behind."""
    whole = dead
    gauges: Sums = {}
    for snapshot in sorted(living, key=lambda snapshot: snapshot.at):
        whole = add(whole, lasting(snapshot.sums))
        for name, rows in snapshot.sums.items():
            _hold(gauges, name, rows)
    return {**whole, **gauges}


def _hold(gauges: Sums, name: str, rows: Mapping[Labels, Numbers]) -> None:
    """Let one more worker have its say about a gauge; the newest comes last."""
    choose = _GAUGE.get(TABLE[name].kind)
    if choose is None:
        return
    into = gauges.setdefault(name, {})
    for labels, (value,) in rows.items():
        into[labels] = [choose(into[labels][0], value)] if labels in into else [value]


_GAUGE: Mapping[Kind, Callable[[float, float], float]] = {
    Kind.TOTAL: lambda before, value: before + value,
    Kind.LEAST: min,
    Kind.LATEST: lambda _, value: value,
}


def encode(name: str, rows: Iterable[tuple[Labels, Numbers]]) -> str:
    """Return some series of one metric as one line of JSON."""
    return json.dumps([name, [(*labels, *numbers) for labels, numbers in rows]], separators=(",", ":"))


def decode(lines: Iterable[str]) -> Sums:
    """Read back what `encode` wrote. Raises ValueError for anything else."""
    sums: Sums = {}
    for line in lines:
        name, rows = json.loads(line)
        metric = TABLE.get(name)
        if metric is None:
            raise ValueError(f"{name}: no such metric")
        width, into = len(metric.labels), sums.setdefault(name, {})
        for row in rows:
            if len(row) != width + len(metric.fresh()):
                raise ValueError(f"{name}: a series of another shape")
            into[tuple(row[:width])] = row[width:]
    return sums
