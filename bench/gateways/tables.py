"""From rows to tables (pure). A ratio is taken within its round, then the median over the rounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

Row = Mapping[str, float | str]
Raw = Mapping[str, Mapping[str, Sequence[Row]]]  # peer -> scenario -> one row a round
Figure = Callable[[str], float | None]
DIRECT, REFERENCE = "direct", "nginx"
_NONE = "-"


def figures(rows: Sequence[Row], key: str) -> dict[float, float]:
    """Return round -> value of the rounds that have one."""
    return {float(row.get("round", at)): float(row[key]) for at, row in enumerate(rows) if key in row}


@dataclass(frozen=True, slots=True)
class Results:
    """All samples of a run."""

    raw: Raw

    def middle(self, peer: str, scenario: str, key: str) -> float | None:
        """Return the median over the rounds; None without a value."""
        values = figures(self._rows(peer, scenario), key)
        return median(values.values()) if values else None

    def times(self, peer: str, scenario: str, key: str, other: str = REFERENCE) -> float | None:
        """Return the median of this peer's value over the other's in the same round."""
        ours, theirs = (figures(self._rows(name, scenario), key) for name in (peer, other))
        ratios = [ours[at] / theirs[at] for at in ours if theirs.get(at, 0.0) > 0]
        return median(ratios) if ratios else None

    def added(self, peer: str, scenario: str, key: str) -> float | None:
        """Return the median of what this peer adds to the engines asked directly, in the same round."""
        ours, theirs = (figures(self._rows(name, scenario), key) for name in (peer, DIRECT))
        more = [ours[at] - theirs[at] for at in ours if at in theirs]
        return median(more) if more and peer != DIRECT else None

    def added_times(self, peer: str, scenario: str, key: str) -> float | None:
        """Return what this peer adds over what the reference adds."""
        ours, theirs = self.added(peer, scenario, key), self.added(REFERENCE, scenario, key)
        return ours / theirs if ours is not None and theirs else None

    def most(self, peer: str, key: str) -> float | None:
        """Return the largest value over all scenarios and rounds."""
        values = [value for rows in self.raw.get(peer, {}).values() for value in figures(rows, key).values()]
        return max(values, default=None)

    def sum(self, peer: str, key: str) -> float | None:
        """Return the sum over all scenarios and rounds."""
        return sum(value for rows in self.raw.get(peer, {}).values() for value in figures(rows, key).values())

    def failures(self) -> list[str]:
        """Return one line for each scenario that failed, with its first reason."""
        return [
            f"{peer}, {scenario}: {told[0]}"
            for peer, scenarios in self.raw.items()
            for scenario, rows in scenarios.items()
            if (told := [str(row["failed"]) for row in rows if "failed" in row])
        ]

    def _rows(self, peer: str, scenario: str) -> Sequence[Row]:
        return self.raw.get(peer, {}).get(scenario, ())


def cpu_table(results: Results) -> str:
    """CPU of the proxy's processes, the figures that hold on a machine that is not quiet."""
    r, key = results, "cpu_us"
    columns: list[tuple[str, Figure]] = [
        ("whole: µs a request (S1c64)", lambda p: r.middle(p, "S1c64", key) or None),
        ("x nginx", lambda p: r.times(p, "S1c64", key) or None),
        ("requests/s a core", lambda p: 1e6 / us if (us := r.middle(p, "S1c64", key)) else None),
        ("1 connection: µs (S1c1)", lambda p: r.middle(p, "S1c1", key) or None),
        ("16: µs (S1c16)", lambda p: r.middle(p, "S1c16", key) or None),
        ("100 streams: µs a chunk (S2)", lambda p: r.middle(p, "S2", key) or None),
        ("x nginx", lambda p: r.times(p, "S2", key) or None),
        ("10 streams: µs a chunk (S2c10)", lambda p: r.middle(p, "S2c10", key) or None),
        ("x nginx", lambda p: r.times(p, "S2c10", key) or None),
        ("flat out: µs a chunk (S3)", lambda p: r.middle(p, "S3", key) or None),
        ("100 KB: µs a request (S4)", lambda p: r.middle(p, "S4", key) or None),
        ("x nginx", lambda p: r.times(p, "S4", key) or None),
        ("its store: µs a request (S1c64)", lambda p: r.middle(p, "S1c64", "beside_us") or None),
        ("RSS, MB", lambda p: r.most(p, "rss_mb") or None),
        ("processes", lambda p: r.most(p, "processes") or None),
        ("candidate's share", lambda p: r.middle(p, "S1c64", "candidate_share")),
    ]
    return markdown(results, columns)


def wall_table(results: Results) -> str:
    """What a client sees; a machine that others use shows here."""
    r = results
    columns: list[tuple[str, Figure]] = [
        ("S1c64 requests/s", lambda p: r.middle(p, "S1c64", "rps")),
        ("x nginx", lambda p: r.times(p, "S1c64", "rps")),
        ("S1c1 added p50, µs", lambda p: r.added(p, "S1c1", "p50_us")),
        ("added p99, µs", lambda p: r.added(p, "S1c1", "p99_us")),
        ("S2 added TTFT p50, µs", lambda p: r.added(p, "S2", "first_p50_us")),
        ("p99, µs", lambda p: r.added(p, "S2", "first_p99_us")),
        ("S2 added chunk delay p50, µs", lambda p: r.added(p, "S2", "way_p50_us")),
        ("x nginx", lambda p: r.added_times(p, "S2", "way_p50_us")),
        ("p99, µs", lambda p: r.added(p, "S2", "way_p99_us")),
        ("S3 chunks/s", lambda p: r.middle(p, "S3", "chunks_per_s")),
        ("S4 requests/s", lambda p: r.middle(p, "S4", "rps")),
        ("errors", lambda p: r.sum(p, "errors")),
        ("others' share of the proxy's core, at most", lambda p: r.most(p, "others_share") if p != DIRECT else None),
    ]
    return markdown(results, columns)


def goals(results: Results, peer: str) -> str:
    """What was asked of a gateway with everything on, beside what it does; in one run with nginx."""
    r = results
    rows: list[tuple[str, float | None, str, str]] = [
        ("CPU, whole answers (S1c64), x nginx", r.times(peer, "S1c64", "cpu_us"), "<= 1.8", "<= 4"),
        ("requests a core, x sglang-router", r.times("sglang-router", "S1c64", "cpu_us", peer), ">= 1.7", ">= 1"),
        ("requests a core, x vllm-router", r.times("vllm-router", "S1c64", "cpu_us", peer), ">= 1.7", ">= 1"),
        ("CPU a streamed chunk (S2), x nginx", r.times(peer, "S2", "cpu_us"), "<= 1.35", "<= 1.8"),
        ("CPU, 100 KB prompts (S4), x nginx", r.times(peer, "S4", "cpu_us"), "<= 2", "<= 4"),
        ("added TTFT p50 at 100 streams, ms", _thousandth(r.added(peer, "S2", "first_p50_us")), "<= 0.5", "<= 1"),
        ("added chunk delay p50 at 100 streams, x nginx", r.added_times(peer, "S2", "way_p50_us"), "<= 1.3", "<= 2"),
        ("resident memory of a worker, MB", r.most(peer, "rss_one_mb"), "<= 80", "<= 120"),
    ]
    lines = [f"| {name} | {shown(value)} | {goal} | {floor} |" for name, value, goal, floor in rows]
    return "\n".join([f"| | {peer} | goal | floor |", "|---|---:|---:|---:|", *lines])


def _thousandth(value: float | None) -> float | None:
    return None if value is None else value / 1000


def markdown(results: Results, columns: Sequence[tuple[str, Figure]]) -> str:
    """Return one row a peer."""
    head = f"| | {' | '.join(name for name, _ in columns)} |"
    rule = "|---" + "|---:" * len(columns) + "|"
    rows = [f"| {peer} | {' | '.join(shown(figure(peer)) for _, figure in columns)} |" for peer in results.raw]
    return "\n".join([head, rule, *rows])


def shown(value: float | None) -> str:
    """Return three digits that count, whole numbers from a thousand on."""
    if value is None:
        return _NONE
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
