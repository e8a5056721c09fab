"""A spec's guardrails on trial: the stories that `linnet simulate` tells, and what many of them say together. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from scipy.stats import binomtest

from canary.card.spec import Spec
from canary.core.finding import OnBreach
from canary.core.policy import Guard, Policy
from canary.core.premise import Baseline, effect_of
from canary.core.signals import SIGNALS
from canary.trials.recording import Recording, Usual
from canary.trials.simulate import Told, tell
from canary.trials.world import Harm, OwnNoise, Step, Traffic, World

TIMES = 2.0  # the margin, as `linnet plan` has harm
NOISE = OwnNoise(ttft_sd=0.18, tpot_sd=0.10, tau=180.0)  # the most that the guardrails are made for
QUIET = OwnNoise()
HARMLESS = Harm()
WORKERS = 2  # whose mirrors feed the shadow, as `linnet plan` has them
SURE = 0.95  # of the intervals
USUAL = Traffic().usual()


@dataclass(frozen=True, slots=True)
class Scenario:
    """Stories of one kind. `equal` tells that the candidate is no worse; `number` is its own part of the seed."""

    number: int
    name: str
    harm: Harm = HARMLESS
    noise: OwnNoise = QUIET
    equal: bool = False


@dataclass(frozen=True, slots=True)
class Trial:
    """One story to be told, ready to be sent to another process."""

    world: World
    policy: Policy
    seed: int
    every: int


@dataclass(frozen=True, slots=True)
class Setting:
    """What all stories share: their world without harm and noise, seconds between looks, how often each is told."""

    world: World
    runs: int
    seed: int
    every: int


@dataclass(frozen=True, slots=True)
class Summary:
    """What the stories of one scenario say: `low` and `high` are the exact interval of the part rolled back, in 0..1.

    `requests` (of the candidate) and `seconds` are medians, None where fewer than half were rolled back, `late` is by
    how many seconds nine in ten were, None where fewer were; `longest` are requests and seconds of a story to its end,
    None where none came there; `failed` counts by guardrail; `rollbacks` are the requests of each.
    """

    scenario: Scenario
    runs: int
    rolled_back: int
    low: float
    high: float
    requests: int | None
    seconds: int | None
    late: int | None
    longest: tuple[int, int] | None
    failed: dict[str, int]
    rollbacks: tuple[int, ...]


def _over(seconds: float, usual: float) -> float:
    """Return by what factor a latency must be longer so that its quantile is so many seconds."""
    return max(1.0, seconds / usual)


_HARMS: tuple[tuple[str, tuple[str, ...], Callable[[float, Usual], Harm]], ...] = (
    ("errors", ("error_rate",), lambda worse, _: Harm(error=worse)),
    ("TTFT", ("ttft_p95", "ttft_p99"), lambda worse, _: Harm(ttft=worse)),
    ("TPOT", ("tpot_p95",), lambda worse, _: Harm(tpot=worse)),
    ("cost", ("cost_per_token", "cost_per_request"), lambda worse, _: Harm(cost=worse)),
    ("quality", ("shadow_quality",), lambda worse, _: Harm(quality=-worse)),
    ("refusals", ("refusal",), lambda worse, _: Harm(refusal=worse)),
    ("malformed", ("malformed",), lambda worse, _: Harm(malformed=worse)),
    ("repetition", ("repetition",), lambda worse, _: Harm(repetition=worse)),
    ("empty", ("empty",), lambda worse, _: Harm(empty=worse)),
    ("truncated", ("truncated",), lambda worse, _: Harm(truncated=worse)),
    ("stalls", ("stall_p99",), lambda worse, _: Harm(gap=worse)),
    ("length", ("output_length",), lambda worse, _: Harm(length=worse)),
    ("errors of", ("error_rate_limit",), lambda worse, usual: Harm(error=max(0.0, worse - usual.error))),
    ("TTFT p95 of", ("ttft_p95_limit",), lambda worse, usual: Harm(ttft=_over(worse, usual.ttft_p95))),
    ("TTFT p99 of", ("ttft_p99_limit",), lambda worse, usual: Harm(ttft=_over(worse, usual.ttft_p99))),
    ("TPOT p95 of", ("tpot_p95_limit",), lambda worse, usual: Harm(tpot=_over(worse, usual.tpot_p95))),
)
_WORSE: dict[str, Callable[[float], str]] = {
    "rate": lambda worse: f"{100 * worse:+g} pp",
    "difference": lambda worse: f"{worse:+g}",
    "ratio": lambda worse: f"x{worse:g}",
    "limit": lambda worse: f"{100 * worse:g} %",
    "seconds": lambda worse: f"{1000 * worse:g} ms",
}


def scenarios(policy: Policy, own: OwnNoise = QUIET, usual: Usual = USUAL) -> tuple[Scenario, ...]:
    """Return the equal candidates, then harm at twice the margin of each guardrail that rolls back.

    `own` is the noise of all but the second, which has the most that the guardrails are made for; `usual` is how the
    baseline is.
    """
    noisy = f"equal, own noise {NOISE.ttft_sd:g}/{NOISE.tpot_sd:g} of {NOISE.tau / 60:g} min"
    found = [Scenario(0, "equal", noise=own, equal=True), Scenario(1, noisy, noise=NOISE, equal=True)]
    guards = {guard.name: guard for guard in policy.guards if _can_fail(guard, usual)}
    for number, (word, names, harm) in enumerate(_HARMS, start=2):
        guard = next((guards[name] for name in names if name in guards), None)
        if guard is not None:
            worse = effect_of(guard, TIMES)
            name = f"{word} {_WORSE[SIGNALS[guard.name].unit](worse)}"
            found.append(Scenario(number, name, harm(worse, usual), own))
    return tuple(found)


def untold(policy: Policy, usual: Usual = USUAL) -> tuple[str, ...]:
    """Return the guardrails that roll back and whose harm such traffic cannot show."""
    told = {name for _, names, _ in _HARMS for name in names}
    return tuple(
        guard.name
        for guard in policy.guards
        if guard.on_breach is OnBreach.ROLLBACK and not (guard.name in told and _can_fail(guard, usual))
    )


def _can_fail(guard: Guard, usual: Usual) -> bool:
    return guard.on_breach is OnBreach.ROLLBACK and guard.name.partition("_")[0] not in usual.lacks


def whole(policy: Policy) -> Policy:
    """Return the policy with each guardrail on all traffic: what is made up has no slices."""
    return replace(policy, guards=tuple(replace(guard, slices=("",)) for guard in policy.guards))


def steps(spec: Spec, rate: float, seconds: int) -> tuple[Step, ...]:
    """Return the canary's steps within so many seconds: each as long as it asks for at least, the last for the rest."""
    found: list[Step] = []
    left = seconds
    for number, step in enumerate(spec.steps, start=1):
        share = step.percent / 100
        asked = math.ceil(max(1.0, step.min_duration, step.min_samples / (rate * share)))
        lasts = left if number == len(spec.steps) else min(left, asked)
        if lasts > 0:
            found.append(Step(share, lasts))
            left -= lasts
    return tuple(found)


def world(spec: Spec, rate: float, seconds: int, recording: Recording | None = None) -> World:
    """Return a spec's world at a rate: an equal candidate, no noise."""
    return World(
        steps(spec, rate, seconds),
        traffic(spec, rate),
        recording=recording,
        warm_up=spec.analysis.warm_up,
        control=spec.arms.control is not None,
    )


def traffic(spec: Spec, rate: float) -> Traffic:
    """Return made-up traffic at a rate, with the shadow pairs that the mirrors have room for at the last step."""
    shadow = spec.shadow
    if shadow is None:
        return Traffic(rate=rate, pairs_per_s=0.0)
    mirrored = rate * shadow.percent / 100 * (1 - spec.steps[-1].percent / 100)
    room = WORKERS * shadow.max_concurrency / Baseline().answer_s
    return Traffic(rate=rate, pairs_per_s=min(mirrored, room))


def trials(scenario: Scenario, policy: Policy, setting: Setting) -> Iterator[Trial]:
    """Yield each story of a scenario; its seed is its own, whoever tells it and in whatever order."""
    told = replace(setting.world, harm=scenario.harm, noise=scenario.noise)
    for run in range(setting.runs):
        drawn = np.random.SeedSequence([setting.seed, scenario.number, run]).generate_state(1, np.uint64)
        yield Trial(told, policy, int(drawn[0]), setting.every)


def hold(trial: Trial) -> Told:
    """Tell one story."""
    return tell(trial.world, trial.policy, trial.seed, trial.every)


def summaries(found: Sequence[Scenario], told: Sequence[Told]) -> tuple[Summary, ...]:
    """Sum up the stories of each scenario, told one scenario after the other, each equally often."""
    stories = iter(told)
    return tuple(summary(scenario, list(islice(stories, len(told) // len(found)))) for scenario in found)


def summary(scenario: Scenario, told: Sequence[Told]) -> Summary:
    """Sum up the stories of one scenario; the interval is Clopper's and Pearson's."""
    back = [story for story in told if story.failed]
    ended = [story for story in told if not story.failed]
    interval = binomtest(len(back), len(told)).proportion_ci(SURE, method="exact")
    return Summary(
        scenario,
        len(told),
        len(back),
        float(interval.low),
        float(interval.high),
        _reached([story.requests for story in back], len(told), 0.5),
        _reached([story.seconds for story in back], len(told), 0.5),
        _reached([story.seconds for story in back], len(told), 0.9),
        (_middle([story.requests for story in ended]), ended[0].seconds) if ended else None,
        dict(Counter(story.failed for story in back).most_common()),
        tuple(sorted(story.requests for story in back)),
    )


def _reached(values: Sequence[int], runs: int, part: float) -> int | None:
    """Return a quantile of all runs, None where too few have a value; those without are the largest."""
    place = math.ceil(part * runs - 1e-9) - 1  # 0.9 is not nine tenths
    return sorted(values)[place] if place < len(values) else None


def _middle(values: Sequence[int]) -> int:
    return sorted(values)[(len(values) - 1) // 2]


def bound(found: Sequence[Summary], alpha: float) -> tuple[bool | None, Summary]:
    """Tell whether the part of equal candidates rolled back is at most alpha, None if so few runs cannot tell.

    Judged by the scenario of an equal candidate with the most rollbacks, which is returned too.
    """
    worst = max((one for one in found if one.scenario.equal), key=lambda one: one.rolled_back)
    if worst.high <= alpha:
        return True, worst
    return (False if worst.low > alpha else None), worst


def runs_needed(alpha: float) -> int:
    """Return the runs whose upper limit is at most alpha if none is rolled back."""
    return math.ceil(math.log((1 - SURE) / 2) / math.log1p(-alpha))
