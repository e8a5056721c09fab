"""Telling a case: batches of runs, each with chance of its own, so that a batch is the same whoever tells it when."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import TypeVar

import numpy as np

from bench.guardrails.cases import Case
from bench.guardrails.crowd import Crowd
from bench.guardrails.minutes import Minutes
from bench.guardrails.peers import OURS, PEERS
from bench.guardrails.references import referred
from bench.guardrails.streams import Stream

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Told:
    """How one run ended: the second, the candidate's requests since the harm began, what rolled back, "" if nothing."""

    seconds: int
    requests: int
    failed: str


@dataclass(frozen=True, slots=True)
class Batch:
    """Some runs of a case: which of its batches, and how many runs a batch of it has."""

    case: Case
    number: int
    runs: int

    @property
    def chance(self) -> np.random.Generator:
        """Chance that no other batch has."""
        return np.random.default_rng([zlib.crc32(self.case.key.encode()), self.number, self.runs])


def tell(batch: Batch) -> list[Told]:
    """Tell a batch, a look a second, until each run has been rolled back or is over."""
    case, chance = batch.case, batch.chance
    beliefs = None
    if case.reference:
        beliefs = referred(case.scene.world.traffic, case.shown, case.policy.noise, batch.runs, chance)
    crowd = Crowd(case.policy, case.scene, batch.runs, beliefs)
    number, before = 0, crowd.requests
    for second in Stream(case.scene, batch.runs, chance).seconds():
        crowd.take(second)
        number = second.number
        if second.stage < case.scene.since:
            before = crowd.requests
        if len(crowd.failed) == batch.runs:
            break
    over = [(number, int(requests), "") for requests in crowd.requests]
    ends = [crowd.failed.get(run, over[run]) for run in range(batch.runs)]
    return [Told(at, max(0, requests - int(before[run])), by) for run, (at, requests, by) in enumerate(ends)]


def tell_peers(batch: Batch) -> list[tuple[str, Told]]:
    """Tell a batch to all the peers and to the guardrails at once, and return what each has said of each run."""
    case, minutes = batch.case, Minutes(batch.runs)
    crowd = Crowd(case.policy, case.scene, batch.runs)
    peers = {name: make(batch.runs) for name, make in PEERS.items()}
    failed: dict[str, dict[int, Told]] = {name: {} for name in peers}
    seconds = case.scene.world.seconds
    for second in Stream(case.scene, batch.runs, batch.chance).seconds():
        crowd.take(second)
        if not minutes.take(second):
            continue
        for name, peer in peers.items():
            for run in np.flatnonzero(peer.look(minutes, second.number // 60, last=second.number + 60 > seconds)):
                failed[name].setdefault(int(run), Told(second.number, int(crowd.requests[run]), name))
    failed[OURS] = {run: Told(*told) for run, told in crowd.failed.items()}
    over = [Told(seconds, int(requests), "") for requests in crowd.requests]
    return [(name, found.get(run, over[run])) for name, found in failed.items() for run in range(batch.runs)]


def tell_all(
    cases: Sequence[tuple[Case, int]], size: int, processes: int, teller: Callable[[Batch], list[T]]
) -> Iterator[tuple[Case, list[T]]]:
    """Tell so many runs of each case, in batches of a size (the last is whole too), and yield each when it is told."""
    batches = [[Batch(case, number, min(size, runs)) for number in range(-(-runs // size))] for case, runs in cases]
    if processes <= 1:
        for (case, _), some in zip(cases, batches, strict=True):
            yield case, [told for batch in some for told in teller(batch)]
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        waiting = [[pool.submit(teller, batch) for batch in some] for some in batches]
        for (case, _), futures in zip(cases, waiting, strict=True):
            yield case, [told for future in futures for told in future.result()]
