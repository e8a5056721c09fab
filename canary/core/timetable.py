"""How long a release takes: its steps in order, what each of them waits for, and what would make it shorter."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from canary.core.finding import OnBreach
from canary.core.forecast import until_fail, until_located_in_noise, until_pass
from canary.core.plan import PROVED_FROM, Plan
from canary.core.policy import Policy
from canary.core.premise import Baseline, Case, Stretch, Traffic, cases
from canary.core.signals import SIGNALS

MOST_REQUESTS = 100_000  # of all traffic; what takes longer is called never
EVEN = 50.0  # percent: the share at which two arms learn most of each other
WIDER = 1.5  # times the margin
RELEASE = "the release"
SUPPOSED_S = 6 * 3600.0  # of a reference without noise


@dataclass(frozen=True, slots=True)
class Intent:
    """A release that is not started: its plan and policy, what is assumed, and `times` the margin that harm is."""

    plan: Plan
    policy: Policy
    traffic: Traffic
    baseline: Baseline
    times: float = 2.0

    @property
    def limit(self) -> float:
        """Seconds in which the most requests come that are waited for."""
        return MOST_REQUESTS / self.traffic.rps


@dataclass(frozen=True, slots=True)
class Place:
    """One step of the release. `at` tells share and pairs; seconds and counts are the least that it asks for."""

    name: str
    at: Stretch
    min_duration: float = 0.0
    min_samples: int = 0
    min_pairs: int = 0
    proved: bool = False  # every critical guardrail must have passed
    manual: bool = False


@dataclass(frozen=True, slots=True)
class Wait:
    """One guardrail in one step, in seconds since it began; None is never.

    `passed` is until PASS of an equal candidate, with what earlier steps have left; `failed` until FAIL of one that is
    worse by `case.effect` from this step on; `noisy` the same by a latency's location alone on machines with noise.
    """

    case: Case
    passed: float | None
    failed: float | None
    noisy: float | None = None

    @property
    def last(self) -> float:
        """Seconds until PASS, infinite for never."""
        return math.inf if self.passed is None else self.passed


@dataclass(frozen=True, slots=True)
class Stay:
    """How long a step takes at least, None for ever, and what decides it: "time", "samples", "pairs" or a guardrail."""

    place: Place
    seconds: float | None
    decides: str
    waits: tuple[Wait, ...]

    @property
    def slowest(self) -> Wait | None:
        """The guardrail that passes last, None if all have passed before."""
        waiting = [wait for wait in self.waits if wait.last > 0]
        return max(waiting, key=lambda wait: wait.last, default=None)


@dataclass(frozen=True, slots=True)
class Past:
    """The steps behind: how long each lasted at which share, and which guardrails passed in them, for good."""

    stretches: tuple[Stretch, ...] = ()
    passed: frozenset[str] = frozenset()

    def then(self, stay: Stay, limit: float) -> Past:
        """Return it with one step more; one that never ends is left after `limit` seconds."""
        lasts = limit if stay.seconds is None else stay.seconds
        passed = {label(wait.case) for wait in stay.waits if wait.last <= lasts}
        return Past((*self.stretches, replace(stay.place.at, seconds=lasts)), self.passed | passed)


@dataclass(frozen=True, slots=True)
class Saving:
    """A change, and what it makes of a time: `before` and `after` in seconds, None for never."""

    what: str
    of: str
    before: float | None
    after: float | None


def timetable(intent: Intent) -> tuple[Stay, ...]:
    """Return how long each step takes at least if the candidate is equal; gates of preflight and persons not counted.

    A step at which proof stays out is left after the most requests, so that those behind it have a forecast too.
    """
    stays: list[Stay] = []
    past = Past()
    known = cases(intent.policy, intent.traffic, intent.baseline, intent.times)
    for place in places(intent):
        stay = _stay(intent, place, known, past)
        stays.append(stay)
        past = past.then(stay, intent.limit)
    return tuple(stays)


def total(stays: Sequence[Stay]) -> float | None:
    """Return the seconds of all steps together, None if one never ends."""
    known = [stay.seconds for stay in stays if stay.seconds is not None]
    return math.fsum(known) if len(known) == len(stays) else None


def places(intent: Intent) -> Iterator[Place]:
    """Yield the steps in their order: the shadow, the canary's, the bake, in which nothing is mirrored."""
    plan = intent.plan
    if plan.shadow is not None:
        at = Stretch(0.0, _mirrored(intent, 0.0), 0.0)
        yield Place("shadow", at, plan.shadow.min_duration, min_pairs=plan.shadow.min_pairs)
    for step in plan.steps:
        at = Stretch(step.percent / 100, _mirrored(intent, step.percent / 100), 0.0)
        proved = step.percent >= PROVED_FROM
        name = f"{step.percent:g} %"
        yield Place(name, at, step.min_duration, step.min_samples, proved=proved, manual=step.manual)
    bake = plan.bake
    at = Stretch(bake.percent / 100, 0.0, 0.0)
    yield Place(f"bake {bake.percent:g} %", at, bake.duration, bake.min_samples, proved=True)


def _mirrored(intent: Intent, share: float) -> float:
    """Return the scored pairs for each request at one share."""
    shadow, traffic = intent.plan.shadow, intent.traffic
    return min(shadow.percent / 100 * (1 - share), traffic.pairs / traffic.rps) if shadow else 0.0


def _stay(intent: Intent, place: Place, known: Sequence[Case], past: Past) -> Stay:
    waits = tuple(_wait(intent, place, case, past) for case in known if _looks(case, place))
    rps = intent.traffic.rps
    needs = {
        "time": place.min_duration,
        "samples": _per(place.min_samples, rps * place.at.share),
        "pairs": _per(place.min_pairs, rps * place.at.pairs),
    }
    if place.proved:
        critical = [wait for wait in waits if wait.case.guard.on_breach is OnBreach.ROLLBACK]
        needs |= {label(wait.case): wait.last for wait in critical}
    decides = max(needs, key=lambda name: needs[name])
    return Stay(place, needs[decides] if math.isfinite(needs[decides]) else None, decides, waits)


def _looks(case: Case, place: Place) -> bool:
    """Tell whether a guardrail sees anything here: in the shadow only the pairs, which end with the canary."""
    return place.at.random or (case.signal.unit == "difference" and place.at.pairs > 0)


def _wait(intent: Intent, place: Place, case: Case, past: Past) -> Wait:
    """Forecast one guardrail in one step; what has passed once stays so."""
    limit, blind = intent.limit, case.located and not intent.traffic.reference and not intent.traffic.beliefs
    noisy = until_located_in_noise(case) if blind else math.inf
    passed = 0.0 if label(case) in past.passed else until_pass(case, past.stretches, place.at, limit)
    return Wait(case, passed, until_fail(case, place.at, limit), noisy if 0 < noisy < math.inf else None)


def _per(count: int, speed: float) -> float:
    if count <= 0:
        return 0.0
    return count / speed if speed > 0 else math.inf


def label(case: Case) -> str:
    """Name a guardrail, with its slice if it has one."""
    return f"{case.guard.name} [{case.slice}]" if case.slice else case.guard.name


# What would make it shorter: each change is forecast as a whole release of its own.


def savings(intent: Intent, stays: Sequence[Stay]) -> tuple[Saving, ...]:
    """Return what one change at a time makes of the release's length, or of the time until a slower one is found."""
    return (*_shorter(intent, stays), *_sooner(intent, stays))


def _shorter(intent: Intent, stays: Sequence[Stay]) -> Iterator[Saving]:
    before = total(stays)
    for what, changed in _changes(intent, stays):
        saving = Saving(what, RELEASE, before, total(timetable(changed)))
        if _gain(saving) > 1:
            yield saving


def _changes(intent: Intent, stays: Sequence[Stay]) -> Iterator[tuple[str, Intent]]:
    slowest = max(stays, key=lambda stay: math.inf if stay.seconds is None else stay.seconds)
    yield from _larger_share(intent, slowest)
    yield from _more_pairs(intent, stays)
    yield from _wider_margin(intent, slowest)
    yield from _reference(intent)


def _larger_share(intent: Intent, slowest: Stay) -> Iterator[tuple[str, Intent]]:
    """Take the slowest step at half the traffic, if it is smaller and the next one larger."""
    steps = intent.plan.steps
    names = [f"{step.percent:g} %" for step in steps]
    if slowest.place.name not in names or slowest.decides == "time":
        return
    index = names.index(slowest.place.name)
    following = steps[index + 1].percent if index + 1 < len(steps) else intent.plan.bake.percent
    if steps[index].percent < EVEN < following:
        larger = (*steps[:index], replace(steps[index], percent=EVEN), *steps[index + 1 :])
        yield f"{EVEN:g} % instead of {names[index]}", replace(intent, plan=replace(intent.plan, steps=larger))


def _more_pairs(intent: Intent, stays: Sequence[Stay]) -> Iterator[tuple[str, Intent]]:
    """Mirror everything, or with twice the concurrency where that is what bounds the pairs."""
    shadow, traffic = intent.plan.shadow, intent.traffic
    if shadow is None or not any(stay.decides.startswith(("pairs", "shadow_quality")) for stay in stays):
        return
    if traffic.pairs < traffic.rps * shadow.percent / 100:
        what = f"a shadow with max_concurrency {2 * shadow.max_concurrency} instead of {shadow.max_concurrency}"
        yield what, replace(intent, traffic=replace(traffic, pairs=2 * traffic.pairs))
    elif shadow.percent < 100:  # noqa: PLR2004 - percent
        full = replace(intent.plan, shadow=replace(shadow, percent=100.0))
        yield f"a shadow of 100 % instead of {shadow.percent:g} %", replace(intent, plan=full)


def _wider_margin(intent: Intent, slowest: Stay) -> Iterator[tuple[str, Intent]]:
    for guard in intent.policy.guards:
        if guard.name != slowest.decides.partition(" ")[0]:
            continue
        unit, wider = SIGNALS[guard.name].unit, WIDER * guard.margin
        ratio = 1 + WIDER * (guard.margin - 1)
        margin = ratio if unit == "ratio" else wider if unit == "seconds" else max(-0.99, min(0.99, wider))
        guards = tuple(replace(one, margin=margin) if one is guard else one for one in intent.policy.guards)
        changed = replace(intent, policy=replace(intent.policy, guards=guards))
        yield f"{guard.name} with margin {margin:.4g} instead of {guard.margin:g}", changed


def _reference(intent: Intent) -> Iterator[tuple[str, Intent]]:
    """Suppose six hours of comparing the baseline's replicas that show no noise, where nothing is known of them."""
    if not intent.traffic.beliefs and intent.traffic.reference < SUPPOSED_S:
        quiet = replace(intent.traffic, reference=SUPPOSED_S)
        yield f"a reference of {SUPPOSED_S / 3600:g} h", replace(intent, traffic=quiet)


def _sooner(intent: Intent, stays: Sequence[Stay]) -> Iterator[Saving]:
    """Say what a reference makes of each latency's FAIL, in the step in which it helps most."""
    for what, quiet in _reference(intent):
        for case in cases(quiet.policy, quiet.traffic, quiet.baseline, quiet.times):
            if not case.located:
                continue
            waits = [(stay, wait) for stay in stays for wait in stay.waits if label(wait.case) == label(case)]
            told = [
                Saving(what, f"FAIL of {label(case)} at {stay.place.name}", wait.failed, after)
                for stay, wait in waits
                if (after := until_fail(case, stay.place.at, intent.limit)) is not None
            ]
            yield from (one for one in sorted(told, key=_gain)[-1:] if _gain(one) > 1)


def _gain(saving: Saving) -> float:
    """Return the seconds that a change saves."""
    before, after = (math.inf if one is None else one for one in (saving.before, saving.after))
    return before - after if after < math.inf else 0.0
