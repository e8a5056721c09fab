"""Requests as chance draws them, a minute at once: how the baseline would answer, then what noise and harm make of it.

What both arms share (load, a recording's minute) is drawn for all requests alike; the arm of each is chance's alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise, repeat

import numpy as np
from numpy.typing import NDArray

from canary.core.arms import Arm
from canary.core.outcome import Outcome, Result
from canary.trials.recording import RESULTS, Recording, Usual
from canary.trials.world import FLAWS, START, Harm, Step, World

AT_ONCE = 60  # seconds
PROMPT = 100  # tokens
ANSWER = (20, 200)
REASONS = ("stop", "length")
ARMS = (Arm.BASELINE, Arm.CANDIDATE)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

_OK, _ERROR = (RESULTS.index(result) for result in (Result.OK, Result.ERROR))
_FLAWED = [tuple(flaw for bit, flaw in enumerate(FLAWS) if code >> bit & 1) for code in range(1 << len(FLAWS))]


@dataclass(frozen=True, slots=True)
class Second:
    """A second that is over: how many are, its stage, the requests that it drew, and (slice, score) of its pairs."""

    number: int
    stage: int
    outcomes: list[Outcome]
    pairs: list[tuple[str, float]]


@dataclass(frozen=True, slots=True)
class _Weather:
    """What slows whom, a value a second of the whole story: in log units both arms, and in sd each machine itself.

    And how the baseline usually is.
    """

    load: Floats
    candidate: Floats
    baseline: Floats
    usual: Usual


@dataclass(slots=True)
class _Drawn:
    """Requests in order of arrival, an array each: the second of the story, and `Outcome`'s own; NaN is none."""

    second: Ints
    result: Ints
    slice: list[str]
    reason: list[str]
    prompt: Ints
    completion: Ints
    e2e: Floats
    ttft: Floats
    tpot: Floats
    cost: Floats


def seconds(world: World, chance: np.random.Generator) -> Iterator[Second]:
    """Yield each second of a story."""
    length, traffic, noise = world.seconds, world.traffic, world.noise
    weather = _Weather(
        traffic.load_sd * _drift(traffic.load_tau, length, chance),
        _drift(noise.tau, length, chance),
        noise.both * _drift(noise.tau, length, chance),
        world.usual(),
    )
    offset = 0.0 if world.recording is None else chance.uniform(0, world.recording.seconds)
    for stage, span in _minutes(world.steps):
        if world.recording is None:
            drawn = _made_up(world, world.steps[stage - 1], weather.load, span, chance)
        else:
            drawn = _recorded(world.recording, offset, span, chance)
        outcomes = _answered(world, stage, drawn, weather, chance)
        paired, scores = _pairs(world, len(outcomes), chance)
        pairs = [(drawn.slice[place], score) for place, score in zip(paired.tolist(), scores, strict=True)]
        until = np.searchsorted(drawn.second, np.arange(span.start, span.stop + 1))
        scored = np.searchsorted(paired, until)
        for second, had, told in zip(span, pairwise(until.tolist()), pairwise(scored.tolist()), strict=True):
            yield Second(second + 1, stage, outcomes[slice(*had)], pairs[slice(*told)])


def _minutes(steps: Sequence[Step]) -> Iterator[tuple[int, range]]:
    """Yield each stage's seconds, a minute at most at once."""
    begin = 0
    for stage, step in enumerate(steps, start=1):
        end = begin + step.seconds
        for at in range(begin, end, AT_ONCE):
            yield stage, range(at, min(end, at + AT_ONCE))
        begin = end


def _drift(tau: float, length: int, chance: np.random.Generator) -> Floats:
    """Return a stationary Ornstein-Uhlenbeck process of standard deviation 1, a value a second."""
    keep = math.exp(-1 / tau)
    fresh = math.sqrt(1 - keep**2)
    first, *rest = chance.standard_normal(max(1, length)).tolist()
    return np.array(list(accumulate(rest, lambda value, luck: keep * value + fresh * luck, initial=first)))


def _made_up(world: World, step: Step, load: Floats, span: range, chance: np.random.Generator) -> _Drawn:
    """Draw arrivals (Poisson) and how the baseline would answer."""
    traffic = world.traffic
    second = np.repeat(np.array(span), chance.poisson(traffic.rate * step.load, len(span)))
    count = len(second)
    slow = load[second] + math.log(step.load)
    ttft = traffic.ttft_s * np.exp(slow + traffic.ttft_sd * chance.standard_normal(count))
    tpot = traffic.tpot_s * np.exp(traffic.tpot_sd * chance.standard_normal(count))
    cost = traffic.cost_usd * np.exp(traffic.cost_sd * chance.standard_normal(count))
    lucks = chance.random((3, count))
    tokens = np.where(lucks[1] < traffic.empty, 0, chance.integers(*ANSWER, count))
    return _Drawn(
        second=second,
        result=np.where(lucks[0] < traffic.error, _ERROR, _OK),
        slice=[""] * count,
        reason=_words(REASONS, (lucks[2] < traffic.truncated).astype(np.int64)),
        prompt=np.full(count, PROMPT),
        completion=tokens,
        e2e=ttft + np.maximum(0, tokens - 1) * tpot,
        ttft=ttft,
        tpot=tpot,
        cost=cost,
    )


def _recorded(recording: Recording, offset: float, span: range, chance: np.random.Generator) -> _Drawn:
    """Take arrivals as they were, and for each an answer from around the same minute."""
    times = recording.arrivals(offset + span.start, offset + span.stop)
    found = recording.near(times, chance.random(len(times)))
    result, prompt, completion = (found[word].astype(np.int64) for word in ("result", "prompt", "completion"))
    e2e, ttft, tpot, cost = (found[word].astype(np.float64) for word in ("e2e", "ttft", "tpot", "cost"))
    return _Drawn(
        second=np.clip(np.floor(times - offset), span.start, span.stop - 1).astype(np.int64),
        result=result,
        slice=_words(recording.slices, found["slice"]),
        reason=_words(recording.reasons, found["reason"]),
        prompt=prompt,
        completion=completion,
        e2e=e2e,
        ttft=ttft,
        tpot=tpot,
        cost=cost,
    )


def _answered(world: World, stage: int, drawn: _Drawn, weather: _Weather, chance: np.random.Generator) -> list[Outcome]:
    """Give each request an arm, its noise and its harm."""
    share = world.steps[stage - 1].share
    points = chance.random(len(drawn.second))
    candidate = points < share
    control = points >= (1 - min(share, 1 - share) if world.control else 1.0)
    own = np.where(candidate, weather.candidate[drawn.second], weather.baseline[drawn.second])
    _slow(drawn, world, own, candidate, chance)
    _worsen(drawn, world.harm, weather.usual, candidate, chance)
    flaws, stall = _texts(world, own, candidate, chance)
    columns = (
        [ARMS[theirs] for theirs in candidate.tolist()],
        [RESULTS[code] for code in drawn.result.tolist()],
        drawn.slice,
        repeat(stage),
        repeat(0),
        *map(_or_none, (drawn.e2e, drawn.ttft, drawn.tpot)),
        drawn.prompt.tolist(),
        drawn.completion.tolist(),
        drawn.reason,
        _or_none(drawn.cost),
        repeat(True),
        (START + drawn.second).tolist(),
        repeat(0),
        (drawn.second < world.warm_up).tolist(),
        control.tolist(),
        repeat(-1),
        _or_none(stall),
        [_FLAWED[code] for code in flaws.tolist()],
    )
    return list(map(Outcome, *columns))


def _slow(drawn: _Drawn, world: World, own: Floats, candidate: Bools, chance: np.random.Generator) -> None:
    """Make latencies what the machines' own noise, and harm to the candidate's, make of them."""
    harm, noise, count = world.harm, world.noise, len(own)
    ttft = np.exp(noise.ttft_sd * own) * np.where(candidate, harm.ttft, 1.0)
    if harm.stalled:
        ttft *= np.where(candidate & (chance.random(count) < harm.stalled), harm.stall, 1.0)
    tpot = np.exp(noise.tpot_sd * own) * np.where(candidate, harm.tpot, 1.0)
    completion = np.where(candidate, np.rint(harm.length * drawn.completion), drawn.completion).astype(np.int64)
    before = np.nan_to_num(drawn.ttft) + np.nan_to_num(drawn.tpot) * np.maximum(0, drawn.completion - 1)
    drawn.ttft, drawn.tpot, drawn.completion = drawn.ttft * ttft, drawn.tpot * tpot, completion
    after = np.nan_to_num(drawn.ttft) + np.nan_to_num(drawn.tpot) * np.maximum(0, completion - 1)
    drawn.e2e = np.maximum(0.0, drawn.e2e + after - before)


def _worsen(drawn: _Drawn, harm: Harm, usual: Usual, candidate: Bools, chance: np.random.Generator) -> None:
    """Add the candidate's own errors, empty and truncated answers, and its price."""
    lucks = chance.random((3, len(candidate)))
    failed, empty, truncated = (
        candidate & (luck < _of_the_rest(more, had))
        for luck, more, had in zip(
            lucks,
            (harm.error, harm.empty, harm.truncated),
            (usual.error, usual.empty, usual.truncated),
            strict=True,
        )
    )
    drawn.result = np.where(failed & (drawn.result == _OK), _ERROR, drawn.result)
    drawn.completion = np.where(empty, 0, drawn.completion)
    drawn.cost = drawn.cost * np.where(candidate, harm.cost, 1.0)
    for place in np.flatnonzero(truncated).tolist():
        drawn.reason[place] = "length"


def _of_the_rest(more: float, had: float) -> float:
    """Return the part of those without an event that get one, so that the rate rises by so much."""
    return more / (1 - had) if had < 1 else 0.0


def _texts(world: World, own: Floats, candidate: Bools, chance: np.random.Generator) -> tuple[Ints, Floats]:
    """Draw what an answer's text shows: flaws, a bit each, and the longest wait between two of its pieces."""
    traffic, harm, count = world.traffic, world.harm, len(own)
    code = np.zeros(count, np.int64)
    for bit, flaw in enumerate(FLAWS):
        rate = getattr(traffic, flaw) + getattr(harm, flaw) * candidate
        code |= (chance.random(count) < rate).astype(np.int64) << bit
    slow = world.noise.tpot_sd * own + traffic.stall_sd * chance.standard_normal(count)
    return code, traffic.stall_s * np.where(candidate, harm.gap, 1.0) * np.exp(slow)


def _pairs(world: World, count: int, chance: np.random.Generator) -> tuple[Ints, list[float]]:
    """Draw which requests the shadow has scored in pairs, and the scores' differences."""
    traffic = world.traffic
    rate = traffic.rate if world.recording is None else world.recording.rate
    paired = np.repeat(np.arange(count), chance.poisson(traffic.pairs_per_s / rate, count))
    scores = chance.normal(-world.harm.quality, traffic.pair_sd, len(paired))
    return paired, np.clip(scores, -1, 1).round(3).tolist()


def _words(words: tuple[str, ...], codes: NDArray[np.integer]) -> list[str]:
    return [words[code] for code in codes.tolist()]


def _or_none(values: Floats) -> list[float | None]:
    """Return plain numbers, None for NaN."""
    plain: list[float | None] = values.tolist()
    for place in np.flatnonzero(np.isnan(values)).tolist():
        plain[place] = None
    return plain
