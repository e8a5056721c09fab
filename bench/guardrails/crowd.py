"""The family of guardrails over many runs at once: what `canary.core.guardrails.look` decides, a second a step.

Only the way to FAIL is here: no verdict but a rollback ends a run. Held to the product by a test: on the same sums the
same second, the same guardrail and the same evidence. Evidence is kept for all runs; whether an estimate lies beyond
its margin is asked only where the evidence would suffice if it did.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from bench.guardrails.bets import Bools, Floats, Ints, Pairs, log_sum
from bench.guardrails.heights import Tails, Timed, whole_buckets
from bench.guardrails.places import Beliefs, Places, without_reference
from bench.guardrails.streams import Scene, Second
from bench.guardrails.sums import RATES, Costs, GroupCosts, Rates
from bench.guardrails.wire import Wire
from canary.core.policy import Guard, Policy
from canary.core.signals import SIGNALS, Lag

TRIPWIRE = "tripwire"


@dataclass(frozen=True, slots=True)
class Judged:
    """What the family says of some runs: by (run, guardrail), ln(w E) and whether it counts; and their sum."""

    over: Floats
    counts: Bools
    total: Floats


class Crowd:
    """So many runs of one scene under one policy; `beliefs` by latency where a reference has spoken."""

    def __init__(self, policy: Policy, scene: Scene, runs: int, beliefs: Mapping[str, Beliefs] | None = None) -> None:
        self._guards, self._bar, planned = policy.guards, policy.log_bar, policy.stages
        self._locating = policy.locating
        weights = policy.weights()
        self._weights = np.log([weights[guard.name, ""] for guard in self._guards])
        self._planned, self._runs, self._shares = planned, runs, scene.shares
        self._stage_of = scene.stages()[::10]
        self._rates = Rates(runs, scene.shares, planned)
        self._costs = (Costs if scene.sessions is None else GroupCosts)(runs, len(scene.shares))
        self._pairs, self._wire = Pairs(runs), Wire(runs)
        self._tailed = self._by_latency()
        self._tails = {
            latency: Tails([(SIGNALS[g.name].tail, g.margin) for g in guards], runs, scene.shares, planned)  # type: ignore[misc]
            for latency, guards in self._tailed.items()
        }
        lags = {latency: self._lag(guards[0]) for latency, guards in self._tailed.items()}
        told = beliefs or {}
        self._places = {
            latency: Places(policy.noise[latency], lag.grace_s, told.get(latency) or without_reference(runs), planned)
            for latency, lag in lags.items()
        }
        self._ratios = self._costs.ratios()
        self._evidence: Floats = np.zeros((runs, len(self._guards)))
        self._stage = 0  # the present one
        self.requests: Ints = np.zeros(runs, np.int64)
        self.failed: dict[int, tuple[int, int, str]] = {}  # run -> second, the candidate's requests, what failed

    @property
    def running(self) -> Bools:
        """Which runs have not been rolled back."""
        found = np.ones(self._runs, bool)
        found[list(self.failed)] = False
        return found

    def take(self, second: Second) -> None:
        """Count a second, and look."""
        reports, self._stage = second.reports, second.stage
        before = self.requests
        self.requests = before + second.candidates
        for run, reported in self._wire.take(reports.run, reports.arm, reports.failed).items():
            self.failed.setdefault(run, (second.number, int(before[run]) + reported, TRIPWIRE))
        cells = (reports.run * len(self._shares) + reports.stage) * 2 + reports.arm
        self._rates.take(reports, cells)
        self._costs.take(reports, cells)
        self._ratios = self._costs.ratios()
        self._pairs.take(second.pair_runs, second.pairs)
        for latency in self._places:
            self._measure(latency, second)
        self._evidence = self._log_e()
        self._judge(second.number)

    def _measure(self, latency: str, second: Second) -> None:
        words, places = ("run", "arm", "stage", "block", latency), self._places[latency]
        timed = Timed(*(getattr(second.reports, word)[second.reports.timed] for word in words))
        shift = whole_buckets(places.shift)
        self._tails[latency].take(timed, shift, places.blocks > 0, second.number)
        places.clear(second.number - 1)
        places.take(2 * timed.run + timed.arm, timed.block, timed.bucket)
        places.close(second.number, self._stage_of)

    def _by_latency(self) -> dict[str, list[Guard]]:
        found: dict[str, list[Guard]] = {}
        for guard in self._guards:
            tail = SIGNALS[guard.name].tail
            if tail is not None:
                found.setdefault(tail.histogram, []).append(guard)
        return found

    def _log_e(self) -> Floats:
        """Return ln E by (run, guardrail), as if every estimate were beyond its margin."""
        return np.stack([self._log_e_of(guard) for guard in self._guards], axis=1)

    def _log_e_of(self, guard: Guard) -> Floats:
        if guard.name in RATES:
            return self._rates.log_e[guard.name]
        if guard.name in self._ratios:
            return self._ratios[guard.name].log_e(self._planned)
        if guard.name == "shadow_quality":
            return self._pairs.log_e
        as_whole, at_tail = self._parts(guard, np.arange(self._runs))
        return log_sum(np.stack([as_whole, at_tail], axis=-1))

    def _parts(self, guard: Guard, rows: Ints, proves: Bools | bool = True) -> tuple[Floats, Floats]:
        """Return the location's and the tail's part of a latency's evidence, in logs (`signals.read_latency`).

        `proves`: whether the tail's says anything against the candidate, by row.
        """
        lag = self._lag(guard)
        latency = lag.histogram
        places, number = self._places[latency], self._tailed[latency].index(guard)
        known, evidence = places.blocks[rows] > 0, self._tails[latency].log_e[number][rows]
        at_tail = np.where(proves, evidence, np.minimum(evidence, 0.0))
        part = math.log(lag.part) if lag.part else -math.inf
        as_whole = np.where(known, part + places.log_e[rows], -np.inf)
        return as_whole, at_tail + np.where(known, math.log1p(-lag.part), 0.0)

    def judged(self, rows: Ints) -> Judged:
        """Judge some runs as the product does."""
        read = [self._read(guard, number, rows) for number, guard in enumerate(self._guards)]
        over = np.stack([log_e for log_e, _ in read], axis=1) + self._weights
        counts = np.stack([beyond for _, beyond in read], axis=1)
        return Judged(over, counts, log_sum(np.where(counts, over, -np.inf)))

    def _read(self, guard: Guard, number: int, rows: Ints) -> tuple[Floats, Bools]:
        """Return a guardrail's ln E, and whether it is beyond its margin and trusted."""
        log_e = self._evidence[rows, number]
        if guard.name == "shadow_quality":
            return log_e, self._pairs.beyond(rows, guard.margin)
        known: Bools = np.all(self._rates.done[rows].sum(axis=1) > 0, axis=1)
        if guard.name in RATES:
            return log_e, known & self._rates.beyond(guard.name, rows, guard.margin, self._stage)
        if guard.name in self._ratios:
            return log_e, known & self._ratios[guard.name].beyond(rows, guard.margin, self._stage)
        return self._read_latency(guard, rows)

    def _read_latency(self, guard: Guard, rows: Ints) -> tuple[Floats, Bools]:
        lag = self._lag(guard)
        latency = lag.histogram
        most = math.log(lag.beyond(guard.margin)) * (1 + 1e-9)
        places, tails, number = self._places[latency], self._tails[latency], self._tailed[latency].index(guard)
        slower, noise = places.beyond(rows, most, self._stage) & (lag.part > 0), places.noise(rows)
        heavier = tails.beyond(number, rows, self._stage, noise)
        parts = np.stack(self._parts(guard, rows, heavier | (noise == 0)), axis=-1)
        which = np.stack([slower, heavier], axis=-1)
        beyond: Bools = np.any(which, axis=-1)
        return log_sum(np.where(which | ~beyond[:, None], parts, -np.inf)), beyond

    def _lag(self, guard: Guard) -> Lag:
        """Return how a latency's blocks close, and the part of the weight that their location has in the guardrail."""
        lag = SIGNALS[guard.name].lag
        if lag is None:
            raise ValueError(f"guardrail {guard.name} has a tail and no location")
        return lag if guard.name in self._locating else replace(lag, part=0.0)

    def _judge(self, second: int) -> None:
        """Roll back what has failed."""
        most = log_sum(self._evidence + self._weights)
        rows = np.flatnonzero((most >= self._bar - 1e-6) & self.running)
        if not rows.size:
            return
        judged = self.judged(rows)
        alone = judged.counts & (judged.over >= self._bar)
        largest = np.where(judged.counts, judged.over, -np.inf).argmax(axis=1)
        for place in np.flatnonzero((judged.total >= self._bar) | alone.any(axis=1)):
            alone[place, largest[place]] |= judged.total[place] >= self._bar
            name = self._guards[int(alone[place].argmax())].name
            self.failed[int(rows[place])] = (second, int(self.requests[rows[place]]), name)
