"""The metrics of all workers as one page, in the process that started them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

from gateway.record.series import TABLE, Kind, Labels, Numbers, Sums, add, lasting, merge
from gateway.record.snapshots import file_of, read


class Exposed(Collector):
    """Sums in the form that prometheus_client knows; `sums` is called once for each page."""

    def __init__(self, sums: Callable[[], Sums]) -> None:
        self._sums = sums

    def collect(self) -> Iterable[Family]:
        """Return every metric of the table, also those that have counted nothing."""
        sums = self._sums()
        return [_family(name, sums.get(name, {})) for name in TABLE]


class Page:
    """All workers summed. What a dead one counted stays; its gauges and its file go."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._dead: Sums = {}
        self._lock = threading.Lock()  # the page is made in a thread, workers die in the loop
        self._registry = CollectorRegistry()
        self._registry.register(Exposed(self.sums))

    def bury(self, pid: int) -> None:
        """Keep what a worker that has ended had counted."""
        with self._lock:
            path = file_of(self.folder, pid)
            last = read(path)
            if last is not None:
                self._dead = add(self._dead, lasting(last.sums))
            path.unlink(missing_ok=True)

    def sums(self) -> Sums:
        """Return what all workers together have counted."""
        with self._lock:
            living = [snapshot for path in self.folder.glob("*.json") if (snapshot := read(path)) is not None]
            return merge(living, self._dead)

    def render(self) -> bytes:
        """Return the text that Prometheus scrapes."""
        return generate_latest(self._registry)


def _family(name: str, rows: dict[Labels, Numbers]) -> Family:
    metric = TABLE[name]
    if metric.kind is Kind.HISTOGRAM:
        histogram = HistogramMetricFamily(name, metric.text, labels=metric.labels)
        for labels, (total, *counts) in sorted(rows.items()):
            histogram.add_metric(labels, _buckets(metric.bounds, counts), total)
        return histogram
    family = (CounterMetricFamily if metric.kind is Kind.COUNTER else GaugeMetricFamily)(
        name, metric.text, labels=metric.labels
    )
    for labels, (value,) in sorted(rows.items()):
        family.add_metric(labels, value)
    return family


def _buckets(bounds: Iterable[float], counts: Iterable[float]) -> list[tuple[str, float]]:
    """Return how many were at most each bound, the last one for all."""
    so_far, buckets = 0.0, []
    for bound, count in zip([*(str(float(bound)) for bound in bounds), "+Inf"], counts, strict=True):
        so_far += count
        buckets.append((bound, so_far))
    return buckets
