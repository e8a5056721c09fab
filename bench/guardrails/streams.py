"""Made-up traffic for many runs at once, a second a step: what `canary.trials.simulate` tells one by one, and more.

Both arms share a load; a machine may have slow noise of its own; sessions stick to an arm; reports may come late.
All that a worker would count is in whole numbers: log buckets, steps of a dollar's grid, thousandths of a score.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from itertools import pairwise

import numpy as np

from bench.guardrails.bets import BASELINE, CANDIDATE, Bools, Floats, Ints
from bench.guardrails.sessions import Callers, Pool, Sessions, single
from canary.core.tally import BLOCK_S, COST_GRID, GROWTH, LOWEST, TOP
from canary.trials.simulate import Harm, World

LOG_GROWTH, _LOG_LOWEST = math.log(GROWTH), math.log(LOWEST)
_PROMPT = 100  # tokens
_ANSWER = (20, 200)


@dataclass(frozen=True, slots=True)
class Late:
    """Reports that come late: the part of all and of the slow requests, and the most seconds they take."""

    part: float = 0.1
    slow_part: float = 0.4
    seconds: int = 60


@dataclass(frozen=True, slots=True)
class Scene:
    """A world, and what `trials.simulate` does not tell: its harm may begin with a later stage, counted from 0."""

    world: World
    sessions: Sessions | None = None
    late: Late | None = None
    since: int = 0

    @property
    def shares(self) -> list[float]:
        """The candidate's share by stage."""
        return [step.share for step in self.world.steps]

    def harm(self, stage: int) -> Harm:
        """Return how the candidate is worse in a stage."""
        return self.world.harm if stage >= self.since else Harm()

    def stages(self) -> Ints:
        """Return the stage of each second, from 0; a stage lasts whole blocks."""
        lengths = [step.seconds for step in self.world.steps]
        if any(length % BLOCK_S for length in lengths):
            raise ValueError(f"stages of {lengths} s: each must last whole blocks of {BLOCK_S:g} s")
        return np.repeat(np.arange(len(lengths)), lengths)


@dataclass(slots=True)
class Reports:
    """Requests as they were reported, an array each, in ascending order of runs.

    `arm`: 1 for the candidate; `stage` and `block` are those of assignment. `failed`, `empty` and `truncated` are the
    request's own, `first_...` those that its unit had not had before; `unit` is 0 for a request that stands for itself.
    `timed`: its latencies count, in log buckets, as its unit's first; `priced`: its cost does, in steps of the grid,
    with `tokens` of prompt and answer.
    """

    run: Ints
    arm: Ints
    stage: Ints
    block: Ints
    failed: Bools
    empty: Bools
    truncated: Bools
    first_failed: Bools
    first_empty: Bools
    first_truncated: Bools
    timed: Bools
    ttft: Ints
    tpot: Ints
    priced: Bools
    cost: Ints
    tokens: Ints
    unit: Ints

    def at(self, places: Ints | slice | Bools) -> Reports:
        """Return some of them."""
        return Reports(*(getattr(self, field.name)[places] for field in fields(self)))

    @classmethod
    def joined(cls, parts: list[Reports]) -> Reports:
        """Return all of them, by run."""
        if len(parts) == 1:
            return parts[0]
        whole = cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))
        return whole.at(np.argsort(whole.run, kind="stable"))


@dataclass(frozen=True, slots=True)
class Second:
    """A second that is over: how many are, its stage, the candidate's requests by run, reports, and pairs of scores."""

    number: int
    stage: int
    candidates: Ints
    reports: Reports
    pair_runs: Ints
    pairs: Ints


def buckets(log_seconds: Floats) -> Ints:
    """Return `tally.bucket` of times given by their logarithm."""
    found = np.ceil((log_seconds - _LOG_LOWEST) / LOG_GROWTH)
    return np.clip(found, 0, TOP - 1).astype(np.int64)


class Drift:
    """Stationary Ornstein-Uhlenbeck processes with standard deviation 1, a value a second by row."""

    def __init__(self, rows: int, tau: float, chance: np.random.Generator) -> None:
        self._keep, self._chance = math.exp(-1 / tau), chance
        self._fresh = math.sqrt(1 - self._keep**2)
        self._value: Floats = chance.standard_normal(rows)

    def next(self) -> Floats:
        """Return the values one second later."""
        self._value = self._keep * self._value + self._fresh * self._chance.standard_normal(len(self._value))
        return self._value


class Stream:
    """The requests of so many runs of a scene."""

    def __init__(self, scene: Scene, runs: int, chance: np.random.Generator) -> None:
        self._scene, self._runs, self._chance = scene, runs, chance
        world = scene.world
        self._load = Drift(runs, world.traffic.load_tau, chance)
        self._own = [Drift(runs, world.noise.tau, chance) for _ in (BASELINE, CANDIDATE)]
        rate = world.traffic.rate
        self._pool = None if scene.sessions is None else Pool(scene.sessions, runs, rate, world.traffic.error, chance)
        self._due: dict[int, list[Reports]] = {}

    def seconds(self) -> Iterator[Second]:
        """Yield each second with what was reported in it."""
        traffic = self._scene.world.traffic
        for number, stage in enumerate(self._scene.stages().tolist()):
            callers = self._callers(stage)
            drawn, slow = self._answers(callers, number, stage)
            runs = np.repeat(np.arange(self._runs), self._chance.poisson(traffic.pairs_per_s, self._runs))
            scores = self._chance.normal(-self._scene.harm(stage).quality, traffic.pair_sd, len(runs))
            pairs = np.rint(1000 * np.clip(scores, -1, 1)).astype(np.int64)
            candidates = np.bincount(drawn.run[drawn.arm == CANDIDATE], minlength=self._runs)
            yield Second(number + 1, stage, candidates, self._reported(drawn, slow, number), runs, pairs)

    def _callers(self, stage: int) -> Callers:
        step, traffic = self._scene.world.steps[stage], self._scene.world.traffic
        if self._pool is not None:
            return self._pool.next(step.share, step.load)
        counts = self._chance.poisson(traffic.rate * step.load, self._runs)
        runs = np.repeat(np.arange(self._runs), counts)
        return single(runs, (self._chance.random(len(runs)) < step.share).astype(np.int64), traffic.error)

    def _levels(self, stage: int) -> tuple[Floats, Floats]:
        """Return how slow each run's arms are this second, TTFT and TPOT, in log seconds by (run, arm)."""
        world = self._scene.world
        traffic, noise, harm = world.traffic, world.noise, self._scene.harm(stage)
        own = np.stack([drift.next() for drift in self._own], axis=1)
        own[:, BASELINE] *= noise.both
        load = traffic.load_sd * self._load.next() + math.log(world.steps[stage].load)
        ttft = math.log(traffic.ttft_s) + load[:, None] + noise.ttft_sd * own
        tpot = math.log(traffic.tpot_s) + noise.tpot_sd * own
        worse = np.array([0.0, 1.0])
        return ttft + worse * math.log(harm.ttft), tpot + worse * math.log(harm.tpot)

    def _answers(self, callers: Callers, number: int, stage: int) -> tuple[Reports, Bools]:
        """Draw how the callers are answered; and which of them slowly."""
        chance, traffic, harm = self._chance, self._scene.world.traffic, self._scene.harm(stage)
        count, worse = len(callers.run), callers.arm == CANDIDATE
        cells = 2 * callers.run + callers.arm
        at_ttft, at_tpot = (levels.reshape(-1)[cells] for levels in self._levels(stage))
        luck = chance.standard_normal(count)
        ttft = at_ttft + traffic.ttft_sd * luck + callers.slow
        if harm.stalled:
            ttft += math.log(harm.stall) * (worse & (chance.random(count) < harm.stalled))
        tpot = at_tpot + traffic.tpot_sd * chance.standard_normal(count)
        cost = traffic.cost_usd * COST_GRID * np.exp(traffic.cost_sd * chance.standard_normal(count) + callers.dear)
        if harm.cost != 1:
            cost *= np.where(worse, harm.cost, 1.0)
        failed = chance.random(count) < callers.error + harm.error * worse
        empty = ~failed & (chance.random(count) < traffic.empty)
        truncated = ~failed & (chance.random(count) < traffic.truncated)
        tokens = _PROMPT + np.where(empty, 0, chance.integers(*_ANSWER, count))
        return Reports(
            callers.run,
            callers.arm,
            np.full(count, stage),
            np.full(count, number // int(BLOCK_S)),
            failed,
            empty,
            truncated,
            callers.once("failed", failed),
            callers.once("empty", empty),
            callers.once("truncated", truncated),
            callers.once("timed", ~failed),
            buckets(ttft),
            buckets(tpot),
            ~failed,
            np.rint(cost).astype(np.int64),
            tokens,
            callers.unit,
        ), luck > 0.84

    def _reported(self, drawn: Reports, slow: Bools, number: int) -> Reports:
        """Keep back what is late, and return what has come."""
        late = self._scene.late
        if late is None:
            return drawn
        delays = self._chance.integers(1, late.seconds + 1, len(slow))
        delays[self._chance.random(len(slow)) >= np.where(slow, late.slow_part, late.part)] = 0
        order = np.argsort(delays, kind="stable")
        waiting, ends = drawn.at(order), np.searchsorted(delays[order], np.arange(late.seconds + 2))
        for delay, (first, last) in enumerate(pairwise(ends.tolist())):
            self._due.setdefault(number + delay, []).append(waiting.at(slice(first, last)))
        return Reports.joined(self._due.pop(number))
