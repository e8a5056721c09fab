"""`linnet plan`: how long a release would take, before anything is started."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from canary.console import options, render
from canary.console.client import connect
from canary.console.options import DEFAULT_URL
from canary.errors import LinnetError, Usage
from canary.verbs.change import read_spec
from canary.verbs.gates import SpecFile

if TYPE_CHECKING:
    from canary.card.spec import Spec
    from canary.core.location import Belief
    from canary.core.premise import Baseline, Traffic
    from canary.traffic import Measured

RATES = ("error_rate", "refusal", "empty", "truncated", "malformed", "repetition")
ASSUMED = (
    "error_rate 0.5%, refusal, empty and truncated 1%, malformed and repetition 0.5%; ttft_s 0.3 and tpot_s 0.02 "
    "(medians); ttft_sd 0.5, tpot_sd 0.2, stall_sd 0.5, e2e_sd 0.6 (of the log); cost_sd 0.5 and length_sd 0.6 "
    "(relative); pair_sd 0.25, answer_s 2"
)

Rps = Annotated[
    float | None,
    typer.Option("--rps", help="The traffic in requests a second; default: what the model's last release saw."),
]
AsSeen = Annotated[
    bool,
    typer.Option("--as-seen", help="Ask the store for the reference although --rps is given."),
]
Parts = Annotated[
    list[str] | None,
    typer.Option("--slice", metavar="NAME=PERCENT", help="A slice's part of the traffic; default: as seen, or equal."),
]
Replicas = Annotated[int, typer.Option("--replicas", help="Replicas of each arm.")]
Workers = Annotated[int, typer.Option("--workers", help="Gateway workers; each mirrors max_concurrency.")]
Hours = Annotated[
    float | None,
    typer.Option("--reference", metavar="HOURS", help="Suppose so many hours of a reference that shows no noise."),
]
Worse = Annotated[
    float, typer.Option("--worse", metavar="TIMES", help="How many times its margin harm is, where it is to FAIL.")
]
Assume = Annotated[
    list[str] | None, typer.Option("--assume", metavar="NAME=VALUE", help=f"Of the baseline. Defaults: {ASSUMED}.")
]


@dataclass(frozen=True, slots=True)
class Seen:
    """What a store tells: the traffic, the reference as the status shows it, and what is believed by it."""

    traffic: Measured
    reference: Mapping[str, Any] = field(default_factory=dict)
    beliefs: Mapping[str, Belief] = field(default_factory=dict)


def plan(
    spec: SpecFile,
    *,
    rps: Rps = None,
    as_seen: AsSeen = False,
    part: Parts = None,
    replicas: Replicas = 1,
    workers: Workers = 2,
    reference: Hours = None,
    worse: Worse = 2.0,
    assume: Assume = None,
    model: options.Model = None,
    url: options.Url = DEFAULT_URL,
    store: options.Store = None,
    as_json: options.Json = False,
) -> None:
    """Forecast how long each step takes at a given traffic, which guardrail is the slowest, and what would be faster.

    Nothing is started, and with --rps nobody is asked, unless --as-seen. Gates before the release and persons are not
    counted.
    """
    from canary.core import timetable  # noqa: PLC0415
    from canary.trials import outlook  # noqa: PLC0415 - the statistics only where they are used

    found, baseline, times = read_spec(spec), assumed(assume or ()), within("--worse", worse, 1.01, 1000)
    seen = _seen(found, rps, model or found.model, url, store) if rps is None or as_seen else Seen(_given(rps))
    if reference is not None:
        seen = Seen(seen.traffic)
    traffic = replace(
        _traffic(found, seen, part or (), within("--reference", reference or 0.0, 0, 10_000)),
        replicas=int(within("--replicas", replicas, 1, 10_000)),
        pairs=_pairs(found, int(within("--workers", workers, 1, 10_000)), baseline.answer_s),
    )
    intent = timetable.Intent(found.plan(), found.policy(), traffic, baseline, times)
    stays = timetable.timetable(intent)
    forecast = outlook.to_json(found, intent, stays, timetable.savings(intent, stays), seen.reference)
    if as_json:
        options.print_json(forecast)
    else:
        render.console().print(outlook.draw(forecast))


def _given(rps: float) -> Measured:
    from canary.traffic import Measured  # noqa: PLC0415 - see plan

    return Measured(within("--rps", rps, 1e-3, 1e6))


def _traffic(spec: Spec, seen: Seen, parts: Sequence[str], hours: float) -> Traffic:
    """Return what comes; a control that is an engine counts as one replica."""
    from canary.core.premise import Traffic  # noqa: PLC0415 - see plan

    control = spec.arms.control
    return Traffic(
        rps=within("--rps", seen.traffic.rps, 1e-3, 1e6),
        slices=slices(spec.slices, parts, seen.traffic.slices),
        control=max(1, len(control.replicas)) if control else 0,
        reference=3600 * hours,
        beliefs=seen.beliefs,
    )


def _seen(spec: Spec, rps: float | None, model: str, url: str, store: str | None) -> Seen:
    """Return what the store tells of a model. Raises Usage where it must and cannot."""
    from canary import conditions, references  # noqa: PLC0415 - see plan

    traffic = seen_traffic(model, url, store) if rps is None else _given(rps)
    try:
        material = connect(url, store).material(model)
    except LinnetError as error:
        raise Usage(f"--as-seen: no release of {model} tells of machines ({error}); leave it out") from None
    now, collected = time.time(), references.read(str(material.get("references") or ""))
    found = references.telling(collected, spec.policy().noise, now)
    beliefs = {name: belief for name, one in found.items() if (belief := one.belief) is not None}
    return Seen(traffic, conditions.reference(collected, now), beliefs)


def seen_traffic(model: str, url: str, store: str | None) -> Measured:
    """Return the traffic that the model's last release saw. Raises Usage when that cannot be told."""
    from canary.core.state import Release  # noqa: PLC0415 - see plan
    from canary.core.tally import TallyError  # noqa: PLC0415
    from canary.traffic import measured  # noqa: PLC0415

    why = "fewer than 100 requests"
    try:
        material = connect(url, store).material(model)
        release = Release.from_json(json.dumps(material["release"]))
        if found := measured(release, material["tallies"], time.time()):
            return found
    except (LinnetError, TallyError) as error:
        why = str(error)
    raise Usage(f"no --rps, and no release of {model} tells it ({why}); add --rps N, requests a second")


def slices(names: Sequence[str], given: Sequence[str], seen: Mapping[str, float]) -> dict[str, float]:
    """Return each slice's part of the traffic in 0..1: as given, or as seen, and of the rest equal parts. Raises Usage.

    What was seen counts only where nothing is given.
    """
    parts: dict[str, float] = {} if given else {name: seen[name] for name in names if name in seen}
    for text in given:
        name, value = _pair("--slice", text)
        if name not in names:
            raise Usage(f"--slice {text}: the spec has no slice {name!r}; choose from {', '.join(names)}")
        parts[name] = _number("--slice", text, value.removesuffix("%")) / 100
    rest = 1 - math.fsum(parts.values())
    if not (min(parts.values(), default=0.0) >= 0 and rest >= -1e-9):  # noqa: PLR2004 - NaN is no part; rounding
        raise Usage(f"--slice {' '.join(given)}: not parts of 100 %; make them add up to 100 at most")
    left = [name for name in names if name not in parts]
    return {name: parts[name] if name in parts else max(0.0, rest) / len(left) for name in names}


def assumed(given: Sequence[str]) -> Baseline:
    """Return the baseline as assumed, with what was given in its place; `0.5%` is 0.005. Raises Usage."""
    from canary.core.premise import Baseline  # noqa: PLC0415 - see plan

    values = asdict(Baseline())
    for text in given:
        name, value = _pair("--assume", text)
        if name not in values:
            raise Usage(f"--assume {text}: nothing is called {name!r}; choose from {', '.join(values)}")
        scale = 100 if value.endswith("%") else 1
        number = _number("--assume", text, value.removesuffix("%")) / scale
        least, most = (0.0, 0.99) if name in RATES else (0.001, 1000.0)
        values[name] = within(f"--assume {name}", number, least, most)
    return Baseline(**values)


def _pairs(spec: Spec, workers: int, answer_s: float) -> float:
    """Return the shadow pairs a second that all workers' mirrors have room for."""
    return workers * spec.shadow.max_concurrency / answer_s if spec.shadow else math.inf


def _pair(option: str, text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise Usage(f"{option} {text}: not a pair; write NAME=VALUE")
    return name.strip(), value.strip()


def _number(option: str, text: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise Usage(f"{option} {text}: {value!r} is no number; write one such as 0.5") from None


def within(option: str, value: float, least: float, most: float) -> float:
    """Return the value if it lies within the bounds. Raises Usage; NaN lies nowhere."""
    if not least <= value <= most:
        raise Usage(f"{option} {value:g}: out of range; give one from {least:g} to {most:g}")
    return value
