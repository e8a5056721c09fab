"""The gateway's metrics, with the contract's names. Labels come from configuration; each child is looked up once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from canary.core.arms import Arm
from canary.core.outcome import Outcome
from gateway.split.splits import Route

_FAST = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0)
_TOKEN = (0.001, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.06, 0.1, 0.2, 0.5, 1.0)
_FIRST = (0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
_WHOLE = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 120.0, 300.0, 600.0)
_PART = tuple(part / 10 for part in range(11))
OTHER = "other"  # whatever a client chose

GaugeMode = Literal["livesum", "livemin", "mostrecent"]


class _ArmChildren:
    """The children of one (model, arm)."""

    __slots__ = ("completion", "cost", "prompt", "results", "seconds", "tpot", "ttft")

    def __init__(self, metrics: Metrics, model: str, arm: str) -> None:
        self.results: dict[str, Counter] = {}
        self.seconds = metrics.request_seconds.labels(model, arm)
        self.ttft = metrics.ttft_seconds.labels(model, arm)
        self.tpot = metrics.tpot_seconds.labels(model, arm)
        self.prompt = metrics.tokens.labels(model, arm, "prompt")
        self.completion = metrics.tokens.labels(model, arm, "completion")
        self.cost = metrics.cost.labels(model, arm)


class Metrics:
    """Everything one worker counts; `registry` belongs to the process, not to the module."""

    def __init__(self, registry: CollectorRegistry) -> None:
        arm = ("model", "arm")

        def histogram(name: str, text: str, labels: tuple[str, ...], buckets: tuple[float, ...]) -> Histogram:
            return Histogram(name, text, labels, buckets=buckets, registry=registry)

        def counter(name: str, text: str, labels: tuple[str, ...]) -> Counter:
            return Counter(name, text, labels, registry=registry)

        def gauge(name: str, text: str, labels: tuple[str, ...], mode: GaugeMode) -> Gauge:
            return Gauge(name, text, labels, registry=registry, multiprocess_mode=mode)

        self.requests = counter("linnet_requests_total", "Requests by how they ended.", (*arm, "outcome"))
        self.request_seconds = histogram("linnet_request_seconds", "Whole time of good answers.", arm, _WHOLE)
        self.ttft_seconds = histogram("linnet_ttft_seconds", "Time to the first content chunk.", arm, _FIRST)
        self.tpot_seconds = histogram("linnet_tpot_seconds", "Time per further output token.", arm, _TOKEN)
        self.overhead = histogram(
            "linnet_overhead_seconds", "The gateway's own time before the engine is asked.", ("model",), _FAST
        )
        self.tokens = counter("linnet_tokens_total", "Tokens by kind.", (*arm, "kind"))
        self.cost = counter("linnet_cost_usd_total", "Calibrated cost of good answers.", arm)
        self.fail_overs = counter("linnet_fail_overs_total", "Failed candidates the baseline answered for.", ("model",))
        self.pairs = counter("linnet_shadow_pairs_total", "Shadow pairs by result.", ("model", "result"))
        self.attempted = counter("linnet_shadow_attempted_total", "Sampled requests: mirrored + dropped.", ("model",))
        self.dropped = counter("linnet_shadow_dropped_total", "Mirrors not run, by reason.", ("model", "reason"))
        self.agreement = histogram("linnet_shadow_agreement", "Agreement of answers.", ("model", "kind"), _PART)
        self.trips = counter("linnet_trips_total", "Tripwires that fired.", ("model",))
        self.split = gauge("linnet_split_ratio", "Share of traffic by arm.", (*arm, "kind"), "mostrecent")
        self.generation = gauge("linnet_release_generation", "The split's generation (oldest).", ("model",), "livemin")
        self.connections = gauge("linnet_upstream_connections", "Open connections to engines.", (), "livesum")
        self.in_flight = gauge("linnet_requests_in_flight", "Requests being answered.", (), "livesum")
        self.store = gauge("linnet_store_up", "1 if the store answers every worker.", (), "livemin")
        self._arms: dict[tuple[str, Arm], _ArmChildren] = {}
        self._overheads: dict[str, Histogram] = {}

    def observe(self, model: str, outcome: Outcome) -> None:
        """Count one outcome, forced ones too."""
        children = self._arms.get((model, outcome.arm))
        if children is None:
            children = self._arms[model, outcome.arm] = _ArmChildren(self, model, outcome.arm.value)
        result = children.results.get(outcome.result)
        if result is None:
            child = self.requests.labels(model, outcome.arm.value, outcome.result.value)
            result = children.results[outcome.result] = child
        result.inc()
        children.prompt.inc(outcome.prompt_tokens)
        children.completion.inc(outcome.completion_tokens)
        if outcome.ttft is not None:
            children.ttft.observe(outcome.ttft)
        if outcome.tpot is not None:
            children.tpot.observe(outcome.tpot)
        if outcome.result == "ok":
            children.seconds.observe(outcome.e2e)
            children.cost.inc(outcome.cost_usd or 0.0)

    def refused(self) -> None:
        """Count a request that reached no arm."""
        self.requests.labels(OTHER, "none", "refused").inc()

    def own_time(self, model: str, seconds: float) -> None:
        """Count the gateway's own part of a request."""
        child = self._overheads.get(model)
        if child is None:
            child = self._overheads[model] = self.overhead.labels(model)
        child.observe(seconds)

    def routes(self, routes: Mapping[str, Route]) -> None:
        """Show what is routed by."""
        for model, route in routes.items():
            share = route.split.percent / 100
            self.split.labels(model, Arm.CANDIDATE.value, "desired").set(share)
            self.split.labels(model, Arm.BASELINE.value, "desired").set(1 - share)
            self.generation.labels(model).set(route.split.generation)

    def store_up(self, *, up: bool) -> None:
        """Show whether the store answers."""
        self.store.set(int(up))
