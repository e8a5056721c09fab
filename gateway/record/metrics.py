"""What one worker counts: plain sums in memory, written down elsewhere (`snapshots.py`).

Every hook is a few list updates. A label is looked up once and must be known: a model or an engine that is routed to,
or a word of the table. Whatever else arrives, counts as "other", so nothing a client chooses can become a label.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Collection, Mapping
from typing import Final

from canary.core.arms import Arm, Split
from canary.core.outcome import Outcome, Result
from gateway.record.series import OTHER, TABLE, WORDS, Labels, Numbers, Snapshot, Sums
from gateway.split.splits import Route

_WHOLE: Final = TABLE["linnet_request_seconds"].bounds
_FIRST: Final = TABLE["linnet_ttft_seconds"].bounds
_TOKEN: Final = TABLE["linnet_tpot_seconds"].bounds
_OWN: Final = TABLE["linnet_overhead_seconds"].bounds
_PART: Final = TABLE["linnet_shadow_agreement"].bounds
_OK: Final = Result.OK  # an Enum looks its members up in Python; every request would pay for it


def _observe(numbers: Numbers, bounds: tuple[float, ...], value: float) -> None:
    numbers[0] += value
    numbers[bisect_left(bounds, value) + 1] += 1


class _ArmSeries:
    """The series of one (model, arm)."""

    __slots__ = ("completion", "cost", "prompt", "results", "seconds", "tpot", "ttft")

    def __init__(self, metrics: Metrics, model: str, arm: str) -> None:
        of = metrics.series
        self.results = {result: of("linnet_requests_total", model, arm, result.value) for result in Result}
        self.seconds = of("linnet_request_seconds", model, arm)
        self.ttft = of("linnet_ttft_seconds", model, arm)
        self.tpot = of("linnet_tpot_seconds", model, arm)
        self.prompt = of("linnet_tokens_total", model, arm, "prompt")
        self.completion = of("linnet_tokens_total", model, arm, "completion")
        self.cost = of("linnet_cost_usd_total", model, arm)


class Metrics:
    """Everything one worker counts. `in_flight` is the caller's to raise and lower."""

    def __init__(self) -> None:
        self.in_flight = 0
        self._sums: Sums = {name: {} for name in TABLE}
        self._names: dict[str, Collection[str]] = {**WORDS, "model": (), "engine": ()}
        self._arms: dict[tuple[str, str], _ArmSeries] = {}
        self._overheads: dict[str, Numbers] = {}
        self._shown: dict[str, Split] = {}
        for name, metric in TABLE.items():
            if not metric.labels:
                self.series(name)

    def series(self, name: str, *labels: str) -> Numbers:
        """Return the numbers of one series, to be changed in place."""
        known = tuple(self._known(label, value) for label, value in zip(TABLE[name].labels, labels, strict=True))
        return self._sums[name].setdefault(known, TABLE[name].fresh())

    def snapshot(self) -> Snapshot:
        """Return the sums as they are now. The numbers are shared: read them before the next request."""
        self._set("linnet_requests_in_flight", self.in_flight)
        return Snapshot(time.time(), self._sums)

    def observe(self, model: str, outcome: Outcome) -> None:
        """Count one outcome, forced ones too."""
        arm = self._arms.get((model, outcome.arm)) or self._arm(model, outcome.arm)
        arm.results[outcome.result][0] += 1
        arm.prompt[0] += outcome.prompt_tokens
        arm.completion[0] += outcome.completion_tokens
        if outcome.ttft is not None:
            _observe(arm.ttft, _FIRST, outcome.ttft)
        if outcome.tpot is not None:
            _observe(arm.tpot, _TOKEN, outcome.tpot)
        if outcome.result is _OK:
            _observe(arm.seconds, _WHOLE, outcome.e2e)
            arm.cost[0] += outcome.cost_usd or 0.0

    def own_time(self, model: str, seconds: float) -> None:
        """Count the gateway's own part of a request."""
        numbers = self._overheads.get(model)
        if numbers is None:
            numbers = self.series("linnet_overhead_seconds", model)
            if self._known("model", model) == model:
                self._overheads[model] = numbers
        _observe(numbers, _OWN, seconds)

    def refused(self) -> None:
        """Count a request that reached no arm."""
        self._count("linnet_requests_total", OTHER, "none", "refused")

    def fail_over(self, model: str) -> None:
        """Count a failed candidate that the baseline answers for."""
        self._count("linnet_fail_overs_total", model)

    def retry(self, model: str) -> None:
        """Count a request that another replica is asked."""
        self._count("linnet_retries_total", model)

    def shed(self, model: str, reason: str) -> None:
        """Count a request turned away for want of room."""
        self._count("linnet_shed_total", model, reason)

    def quota_refused(self, kind: str) -> None:
        """Count a request beyond its key's limits, by its error's type ("requests", "tokens", "insufficient_quota")."""
        self._count("linnet_quota_refused_total", kind)

    def quota_alone(self, alone: bool) -> None:
        """Show whether this worker enforces its share of every key's limits, because the store is lost."""
        self._set("linnet_quota_alone", int(alone))

    def trip(self, model: str) -> None:
        """Count a tripwire that fired."""
        self._count("linnet_trips_total", model)

    def mirror_attempted(self, model: str) -> None:
        """Count a sampled request."""
        self._count("linnet_shadow_attempted_total", model)

    def mirror_dropped(self, model: str, reason: str) -> None:
        """Count a mirror that is not run."""
        self._count("linnet_shadow_dropped_total", model, reason)

    def pair(self, model: str, result: str) -> None:
        """Count a shadow pair by what became of it."""
        self._count("linnet_shadow_pairs_total", model, result)

    def agreement(self, model: str, kind: str, value: float) -> None:
        """Count how far two answers agree, 0..1."""
        _observe(self.series("linnet_shadow_agreement", model, kind), _PART, value)

    def log_dropped(self, lines: int) -> None:
        """Show how many lines of the access log were dropped until now."""
        self._set("linnet_log_dropped_total", lines)

    def queued(self, model: str, arm: str, waiting: int) -> None:
        """Show how many requests wait for a slot of an arm."""
        self._set("linnet_admission_queue", waiting, model, arm)

    def connections(self, count: int) -> None:
        """Show how many connections to engines are open."""
        self._set("linnet_upstream_connections", count)

    def engine_up(self, engine: str, *, up: bool) -> None:
        """Show whether requests can be sent to an engine."""
        self._set("linnet_engine_up", int(up), engine)

    def store_up(self, *, up: bool) -> None:
        """Show whether the store answers."""
        self._set("linnet_store_up", int(up))

    def routes(self, routes: Mapping[str, Route]) -> None:
        """Show what is routed by: the names in it, and no others, become labels."""
        arms = [arm for route in routes.values() for arm in (route.split.baseline, route.split.candidate) if arm]
        self._names["model"] = routes
        self._names["engine"] = engines = {arm.engine for arm in arms}
        self._forget("linnet_split_ratio", routes)
        self._forget("linnet_release_generation", routes)
        self._forget("linnet_admission_queue", routes)
        self._forget("linnet_engine_up", engines)
        for model, route in routes.items():
            if route.split is not self._shown.get(model):  # with many models, few change
                share = route.split.percent / 100
                self._set("linnet_split_ratio", share, model, Arm.CANDIDATE.value, "desired")
                self._set("linnet_split_ratio", 1 - share, model, Arm.BASELINE.value, "desired")
                self._set("linnet_release_generation", route.split.generation, model)
        self._shown = {model: route.split for model, route in routes.items()}

    def _known(self, label: str, value: str) -> str:
        return value if value in self._names[label] else OTHER

    def _count(self, name: str, *labels: str) -> None:
        self.series(name, *labels)[0] += 1

    def _set(self, name: str, value: float, *labels: str) -> None:
        self.series(name, *labels)[0] = value

    def _forget(self, name: str, kept: Collection[str]) -> None:
        """Drop the gauges of what is no longer there; the first label names it."""
        rows = self._sums[name]
        gone: list[Labels] = [labels for labels in rows if labels[0] not in kept]
        for labels in gone:
            del rows[labels]

    def _arm(self, model: str, arm: str) -> _ArmSeries:
        """Look the series of a (model, arm) up; an unknown model's are not kept under its name."""
        key = self._known("model", model), arm
        if key not in self._arms:
            self._arms[key] = _ArmSeries(self, *key)
        return self._arms[key]
