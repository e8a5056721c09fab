"""What a scraper would read of one worker's metrics."""

from __future__ import annotations

from pathlib import Path

from prometheus_client import CollectorRegistry

from canary.core.arms import Endpoint, Split
from gateway.record.metrics import Metrics
from gateway.record.page import Exposed
from gateway.split.splits import Route

BASE = Endpoint("engine-b", "b", ("http://127.0.0.1:1",))
CAND = Endpoint("engine-c", "c", ("http://127.0.0.1:2",))


def routed(*models: str, percent: float = 25) -> dict[str, Route]:
    """A release under way for each model."""
    return {model: Route(Split(model, 7, BASE, CAND, release="r", percent=percent)) for model in models}


def counting(*models: str) -> Metrics:
    """A worker that routes these models."""
    metrics = Metrics()
    metrics.routes(routed(*models))
    return metrics


def sample(metrics: Metrics, name: str, **labels: str) -> float | None:
    """One value of the page, None if it is not there."""
    registry = CollectorRegistry()
    registry.register(Exposed(lambda: metrics.snapshot().sums))
    return registry.get_sample_value(name, labels)


def files(folder: Path) -> list[str]:
    """What lies in a folder."""
    return sorted(path.name for path in folder.iterdir())
