"""A spec's guardrails on trial: the stories that `linnet simulate` tells, and what many of them say together. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from scipy.special import ndtri
from scipy.stats import binomtest

from canary.core.finding import OnBreach
from canary.core.policy import Policy
from canary.core.premise import Baseline, effect_of
from canary.core.signals import SIGNALS
from canary.simulate import Harm, OwnNoise, Step, Told, Traffic, World, tell
from canary.spec import Spec

TIMES = 2.0  # the margin, as `linnet plan` has harm
NOISE = OwnNoise(ttft_sd=0.18, tpot_sd=0.10, tau=180.0)  # the most that the guardrails are made for
QUIET = OwnNoise()
HARMLESS = Harm()
WORKERS = 2  # whose mirrors feed the shadow, as `linnet plan` has them
SURE = 0.95  # of the intervals


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
    """What all stories share: the steps, the traffic, seconds between looks, and how often each is told."""

    steps: tuple[Step, ...]
    traffic: Traffic
    runs: int
    seed: int
    every: int


@dataclass(frozen=True, slots=True)
class Summary:
    """What the stories of one scenario say: `low` and `high` are the exact interval of the part rolled back, in 0..1.

    `requests` (of the candidate) and `seconds` are medians, None where fewer than half were rolled back; `longest` are
    the same of a story to its end, None where none came there; `failed` counts by guardrail; `rollbacks` are the
    requests of each.
    """

    scenario: Scenario
    runs: int
    rolled_back: int
    low: float
    high: float
    requests: int | None
    seconds: int | None
    longest: tuple[int, int] | None
    failed: dict[str, int]
    rollbacks: tuple[int, ...]


_USUAL = Traffic()
_TTFT_SD = math.hypot(_USUAL.ttft_sd, _USUAL.load_sd)


def _over(median: float, sd: float, q: float) -> Callable[[float], float]:
    """Return by what factor a lognormal latency must be slower so that its q-quantile is so many seconds."""
    return lambda seconds: max(1.0, seconds / (median * math.exp(float(ndtri(q)) * sd)))


_OVER_TTFT95, _OVER_TTFT99 = (_over(_USUAL.ttft_s, _TTFT_SD, q) for q in (0.95, 0.99))
_OVER_TPOT95 = _over(_USUAL.tpot_s, _USUAL.tpot_sd, 0.95)

_HARMS: tuple[tuple[str, tuple[str, ...], Callable[[float], Harm]], ...] = (
    ("errors", ("error_rate",), lambda worse: Harm(error=worse)),
    ("TTFT", ("ttft_p95", "ttft_p99"), lambda worse: Harm(ttft=worse)),
    ("TPOT", ("tpot_p95",), lambda worse: Harm(tpot=worse)),
    ("cost", ("cost_per_token", "cost_per_request"), lambda worse: Harm(cost=worse)),
    ("quality", ("shadow_quality",), lambda worse: Harm(quality=-worse)),
    ("refusals", ("refusal",), lambda worse: Harm(refusal=worse)),
    ("malformed", ("malformed",), lambda worse: Harm(malformed=worse)),
    ("repetition", ("repetition",), lambda worse: Harm(repetition=worse)),
    ("empty", ("empty",), lambda worse: Harm(empty=worse)),
    ("truncated", ("truncated",), lambda worse: Harm(truncated=worse)),
    ("stalls", ("stall_p99",), lambda worse: Harm(gap=worse)),
    ("length", ("output_length",), lambda worse: Harm(length=worse)),
    ("errors of", ("error_rate_limit",), lambda worse: Harm(error=max(0.0, worse - _USUAL.error))),
    ("TTFT p95 of", ("ttft_p95_limit",), lambda worse: Harm(ttft=_OVER_TTFT95(worse))),
    ("TTFT p99 of", ("ttft_p99_limit",), lambda worse: Harm(ttft=_OVER_TTFT99(worse))),
    ("TPOT p95 of", ("tpot_p95_limit",), lambda worse: Harm(tpot=_OVER_TPOT95(worse))),
)
_WORSE: dict[str, Callable[[float], str]] = {
    "rate": lambda worse: f"{100 * worse:+g} pp",
    "difference": lambda worse: f"{worse:+g}",
    "ratio": lambda worse: f"x{worse:g}",
    "limit": lambda worse: f"{100 * worse:g} %",
    "seconds": lambda worse: f"{1000 * worse:g} ms",
}


def scenarios(policy: Policy, own: OwnNoise = QUIET) -> tuple[Scenario, ...]:
    """Return the equal candidates, then harm at twice the margin of each guardrail that rolls back.

    `own` is the noise of all but the second, which has the most that the guardrails are made for.
    """
    noisy = f"equal, own noise {NOISE.ttft_sd:g}/{NOISE.tpot_sd:g} of {NOISE.tau / 60:g} min"
    found = [Scenario(0, "equal", noise=own, equal=True), Scenario(1, noisy, noise=NOISE, equal=True)]
    guards = {guard.name: guard for guard in policy.guards if guard.on_breach is OnBreach.ROLLBACK}
    for number, (word, names, harm) in enumerate(_HARMS, start=2):
        guard = next((guards[name] for name in names if name in guards), None)
        if guard is not None:
            worse = effect_of(guard, TIMES)
            found.append(Scenario(number, f"{word} {_WORSE[SIGNALS[guard.name].unit](worse)}", harm(worse), own))
    return tuple(found)


def untold(policy: Policy) -> tuple[str, ...]:
    """Return the guardrails that roll back and whose harm made-up traffic cannot show."""
    told = {name for _, names, _ in _HARMS for name in names}
    return tuple(
        guard.name for guard in policy.guards if guard.on_breach is OnBreach.ROLLBACK and guard.name not in told
    )


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
    world = World(setting.steps, setting.traffic, scenario.harm, scenario.noise)
    for run in range(setting.runs):
        drawn = np.random.SeedSequence([setting.seed, scenario.number, run]).generate_state(1, np.uint64)
        yield Trial(world, policy, int(drawn[0]), setting.every)


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
        _median([story.requests for story in back], len(told)),
        _median([story.seconds for story in back], len(told)),
        (_middle([story.requests for story in ended]), ended[0].seconds) if ended else None,
        dict(Counter(story.failed for story in back).most_common()),
        tuple(sorted(story.requests for story in back)),
    )


def _median(values: Sequence[int], runs: int) -> int | None:
    """Return the median of all runs, None where fewer than half have a value; those without are the largest."""
    return sorted(values)[(runs - 1) // 2] if 2 * len(values) >= runs else None


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
