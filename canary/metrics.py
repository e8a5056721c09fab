"""The control plane's own metrics: read from the store when asked for, so that any replica tells the same."""

from __future__ import annotations

import json
import time
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from canary.assess import DOWN
from canary.core.finding import Verdict
from canary.core.state import Phase
from canary.errors import LinnetError
from canary.status import glance
from canary.storage.store import Store, StoreError

_LATENCY = ["model", "latency"]
_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


class Metrics:
    """One registry; `observe_rollback` is the controller's, `render` the listener's."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._rollback = Histogram(
            "linnet_rollback_seconds",
            "From the breach to the decision, and to the last live worker's acknowledgement.",
            ["span"],
            buckets=_SECONDS,
            registry=self._registry,
        )

        self._notifications = Counter(
            "linnet_notifications_total",
            "Notifications and their tries, by what became of them.",
            ["result"],
            registry=self._registry,
        )

    def notified(self, result: str) -> None:
        """Count what became of a notification, or of one try."""
        self._notifications.labels(result).inc()

    def observe_rollback(self, span: str, seconds: float) -> None:
        """Count one rollback; `span` is "decision" or "acknowledged"."""
        self._rollback.labels(span).observe(max(0.0, seconds))

    async def render(self, store: Store) -> bytes:
        """Return the text that Prometheus scrapes; without the store, that it is down."""
        fresh = CollectorRegistry()
        up = Gauge("linnet_store_up", "1 if the store answers.", registry=fresh)
        try:
            await _fill(store, fresh)
            up.set(1)
        except StoreError:
            fresh = CollectorRegistry()
            Gauge("linnet_store_up", "1 if the store answers.", registry=fresh).set(0)
        return generate_latest(self._registry) + generate_latest(fresh)


class _Results(Collector):
    """Attempts that ended, as the store counts them."""

    def __init__(self, counts: dict[tuple[str, str], int]) -> None:
        self._counts = counts

    def collect(self) -> list[CounterMetricFamily]:
        family = CounterMetricFamily("linnet_releases", "Attempts that ended, by how.", labels=["model", "result"])
        for (model, result), count in self._counts.items():
            family.add_metric([model, result], count)
        return [family]


async def _fill(store: Store, registry: CollectorRegistry) -> None:
    gauges = _gauges(registry)
    for model in await store.models():
        try:
            _set(gauges, await glance(store, model, time.time()))
        except (LinnetError, json.JSONDecodeError, KeyError, TypeError, ValueError):
            continue  # a damaged state is told by the status itself; the other models' metrics go on
    registry.register(_Results(await store.results()))
    for name, engine in (await store.engines()).items():
        gauges["engine"].labels(name).set(engine.get("state") not in DOWN)


def _gauges(registry: CollectorRegistry) -> dict[str, Gauge]:
    rows = {
        "phase": ("linnet_release_phase", "1 for the phase the release is in.", ["model", "phase"]),
        "generation": ("linnet_release_generation", "Generation of the split.", ["model"]),
        "evidence": ("linnet_guardrail_evidence", "Natural log of the e-value.", ["model", "guardrail", "slice"]),
        "verdict": ("linnet_guardrail_verdict", "1 for the verdict.", ["model", "guardrail", "slice", "verdict"]),
        "cost": ("linnet_cost_usd_per_million_tokens", "USD a million completion tokens.", ["model", "arm", "kind"]),
        "reference": ("linnet_reference_seconds", "Blocks in which the baseline was compared with itself.", _LATENCY),
        "noise": ("linnet_reference_noise", "The most own noise of a replica, sd of the log, not excluded.", _LATENCY),
        "engine": ("linnet_engine_up", "1 unless the stack says that the engine cannot serve.", ["engine"]),
        "spend": ("linnet_release_spend_usd", "USD spent on the release, by part.", ["model", "part"]),
        "shadow": ("linnet_shadow_tokens", "Tokens the shadow asked for in the attempt.", ["model", "arm", "kind"]),
        "split": ("linnet_split_ratio", "Each arm's share of traffic, 0..1.", ["model", "arm", "kind"]),
    }
    return {key: Gauge(name, words, labels, registry=registry) for key, (name, words, labels) in rows.items()}


def _set(gauges: dict[str, Gauge], state: dict[str, Any]) -> None:
    model = state["model"]
    for phase in Phase:
        gauges["phase"].labels(model, phase.value).set(phase.value == state["phase"])
    gauges["generation"].labels(model).set(state["generation"])
    for kind in ("desired", "actual"):
        for arm, share in state[kind].items():
            if share is not None:
                gauges["split"].labels(model, arm, kind).set(share)
    for kind, arms in state["usd_per_million_tokens"].items():
        for arm, dollars in arms.items():
            gauges["cost"].labels(model, arm, kind).set(dollars)
    _set_spend(gauges, model, state)
    _set_references(gauges, model, state)
    for finding in state["guardrails"]:
        name = (model, finding["guardrail"], finding["slice"])
        if finding["evidence"] is not None:
            gauges["evidence"].labels(*name).set(finding["evidence"])
        for verdict in Verdict:
            gauges["verdict"].labels(*name, verdict.value).set(verdict.value == finding["verdict"])


def _set_spend(gauges: dict[str, Gauge], model: str, state: dict[str, Any]) -> None:
    for part, dollars in state["spend"].items():
        gauges["spend"].labels(model, part).set(dollars)
    for arm, used in state["shadow_tokens"].items():
        for kind, count in used.items():
            gauges["shadow"].labels(model, arm, kind).set(count)


def _set_references(gauges: dict[str, Gauge], model: str, state: dict[str, Any]) -> None:
    for latency, known in state["reference"].items():
        if known is not None:
            gauges["reference"].labels(model, latency).set(known["seconds"])
            gauges["noise"].labels(model, latency).set(known["largest"]["sd"])
