"""From what lies in the store to the evidence of one look. Pure: everything read is an argument."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from canary.core.arms import Arm, Endpoint
from canary.core.events import NOBODY, Evidence, Heard, Price
from canary.core.finding import Finding
from canary.core.guardrails import StageEvidence
from canary.core.state import Phase, Release
from canary.core.tally import Tally, merged
from canary.spending import runs_of, seconds, spend, tokens

DOWN = frozenset({"ended", "failed", "stopped", "down", "dead"})  # states of an engine that cannot serve
READY = "ready"  # registered by the stack once an engine has answered
MENDS = {"load": "linnet loadtest SPEC", "eval": "linnet eval SPEC"}
_ARMS = frozenset(arm.value for arm in Arm)
_LEAST_S = 10.0  # of traffic; less says little of how much arrives
Unmet = Sequence[str]
Tallies = Mapping[tuple[int, str, str], Tally]
Engines = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look read: sums, engines by name, gates' reports of the candidate's digest by kind, and the workers' word.

    `silent` are the replicas that gave no health answer, each with what was wrong with it. `trouble` says why the sums
    could not be read, "" if they could; `old` are sums that nobody will ask for again.
    """

    tallies: Tallies = field(default_factory=dict)
    engines: Engines = field(default_factory=dict)
    silent: Mapping[str, str] = field(default_factory=dict)
    reports: Mapping[str, Mapping[str, Any] | None] = field(default_factory=dict)
    load_tests: Mapping[str, str] = field(default_factory=dict)
    heard: Heard = NOBODY
    trouble: str = ""
    old: tuple[str, ...] = ()


def stages(release: Release, tallies: Tallies) -> list[StageEvidence]:
    """Return the sums of each stage with the share that chance had in it; stages never published are left out."""
    grouped: dict[int, dict[tuple[str, str], Tally]] = defaultdict(dict)
    for (stage, arm, slice_), tally in tallies.items():
        if 0 <= stage < len(release.shares):
            grouped[stage][arm, slice_] = tally
    return [StageEvidence(stage, release.shares[stage] / 100, found) for stage, found in sorted(grouped.items())]


def evidence(
    release: Release, seen: Seen, findings: tuple[Finding, ...], now: float, *, frozen: str = "", unmet: Unmet = ()
) -> Evidence:
    """Return what the release machine decides on."""
    load = seen.reports.get("load")
    return Evidence(
        samples=arm_tally(seen.tallies, Arm.CANDIDATE, release.stage).count("done"),
        pairs=pairs(seen.tallies),
        findings=findings,
        missing=tuple(_missing(release, seen.reports)) if release.phase is Phase.PREFLIGHT else (),
        unready=(*((seen.trouble,) if seen.trouble else ()), *_unready(release, seen)),
        frozen=frozen,
        spend_usd=spend(release, runs_of(load, seen.load_tests), seen.tallies, now).total,
        prices=prices(load),
        heard=seen.heard,
        rps=arriving(release, seen.tallies, now),
        baseline_rps=served(load, Arm.BASELINE),
        unmet=tuple(unmet),
    )


def arm_tally(tallies: Tallies, arm: Arm, stage: int) -> Tally:
    """Return one arm's sums of one stage, over all slices."""
    return merged(tally for (at, name, _), tally in tallies.items() if (at, name) == (stage, arm.value))


def pairs(tallies: Tallies) -> int:
    """Return how many shadow pairs were scored in the attempt."""
    return sum(sum(tally.histogram("pair").values()) for tally in tallies.values())


def heard(workers: Iterable[str], acks: Mapping[str, tuple[int, int]]) -> Heard:
    """Return what the live workers route by, from each one's (generation, Unix ms of its acknowledgement)."""
    found = {worker: acks.get(worker, (-1, 0)) for worker in workers}
    if not found:
        return NOBODY
    slowest = min(sorted(found), key=lambda worker: found[worker][0])
    last = max(unix_ms for _, unix_ms in found.values())
    return Heard(len(found), found[slowest][0], slowest, last)


def arriving(release: Release, tallies: Tallies, now: float) -> float | None:
    """Return requests a second since preflight began, None in other phases and in its first seconds."""
    lasted = now - release.entered
    if release.phase is not Phase.PREFLIGHT or lasted < _LEAST_S:
        return None
    return sum(tally.count("assigned") for (_, arm, _), tally in tallies.items() if arm in _ARMS) / lasted


def served(load: Mapping[str, Any] | None, arm: Arm) -> float | None:
    """Return the most good answers a second that an arm gave in its load test, on schedule or at capacity."""
    found = (load or {}).get("arms", {}).get(arm.value) or {}
    lasted = float(found.get("seconds") or 0.0)
    rates = (
        float(found.get("ok") or 0) / lasted if lasted else 0.0,
        (found.get("capacity") or {}).get("requests_per_s"),
    )
    return max(float(rate or 0.0) for rate in rates) or None


def prices(load: Mapping[str, Any] | None) -> dict[str, Price]:
    """Return the load test's fitted price of each arm: USD a request, a prompt token, a completion token."""
    arms = (load or {}).get("arms", {})
    found = ((arm, values.get("price")) for arm, values in arms.items())
    return {arm: (float(price[0]), float(price[1]), float(price[2])) for arm, price in found if price}


def illegible(load: Mapping[str, Any]) -> str:
    """Say what of a load report cannot be read, "" if all can: what is in the store must never stop a look."""
    try:
        found = [*(amount for price in prices(load).values() for amount in price), float(load.get("created_ms", 0))]
        found += [float(n) for arm in Arm for n in (seconds(load, arm), *tokens(load, arm).values())]
        found += [dollars for _, dollars in bills(load)]
        found += [served(load, arm) or 0.0 for arm in Arm]
        list(load.get("reasons", ()))
    except (AttributeError, TypeError, ValueError, IndexError, KeyError, OverflowError) as error:
        return f"{type(error).__name__}: {error}"
    return "" if all(map(math.isfinite, found)) else "a number that is not finite"


def bills(load: Mapping[str, Any] | None) -> list[tuple[str, float]]:
    """Return the bill cost of each arm that has one: USD a million completion tokens, at capacity."""
    found = ((arm, values.get("usd_per_million_tokens")) for arm, values in (load or {}).get("arms", {}).items())
    return [(arm, float(dollars)) for arm, dollars in found if dollars is not None]


def calibrated(tallies: Tallies) -> list[tuple[str, float]]:
    """Return the attempt's USD a million completion tokens of each arm, over sums whose answers were all priced."""
    found = []
    for arm in Arm:
        mine = [tally for (_, name, _), tally in tallies.items() if name == arm.value]
        parts = [(tally.total("sum.cost"), tokens) for tally in mine if (tokens := _priced_tokens(tally))]
        if parts:
            found.append((arm.value, 1e6 * sum(cost for cost, _ in parts) / sum(tokens for _, tokens in parts)))
    return found


def moved(release: Release, engines: Engines) -> dict[str, tuple[str, ...]]:
    """Return engines of the release that serve the same digest at a place the release does not know."""
    known = (release.baseline, release.candidate, release.previous, release.control)
    found = ((endpoint, engines.get(endpoint.engine, {})) for endpoint in known if endpoint is not None)
    return {
        endpoint.engine: (engine["url"],)
        for endpoint, engine in found
        if engine.get("url") and engine.get("digest") == endpoint.digest and engine["url"] not in endpoint.replicas
    }


def _priced_tokens(tally: Tally) -> float:
    """Return the completion tokens of the answers in the sums of cost, 0 if not all of them have a price."""
    if "lengths" not in tally.counts:  # a worker that knew no warm-up: all its answers are in the sums
        return tally.count("completion_tokens") if tally.count("priced") == tally.count("ok") else 0
    return tally.total("sum.length") if tally.count("priced") == tally.count("lengths") else 0


def _missing(release: Release, reports: Mapping[str, Mapping[str, Any] | None]) -> Iterator[str]:
    """Say of each gate what is lacking, with the command that mends it."""
    short = release.candidate.digest[:19]
    for kind in release.plan.gates:
        report = reports.get(kind)
        if report is None:
            yield f"no {kind} report for candidate {short}: run `{MENDS[kind]}`"
        elif report.get("verdict") != "pass":
            why = ", ".join(str(reason) for reason in report.get("reasons", ())) or "no reason given"
            yield f"the {kind} report of candidate {short} says {report.get('verdict')} ({why}): `{MENDS[kind]}` again"
        elif report.get("digest", release.candidate.digest) != release.candidate.digest:
            yield f"the {kind} report of candidate {short} is of another digest: `{MENDS[kind]}` again"
        elif what := _MISMATCHES[kind](release, report):
            yield f"the {kind} report of candidate {short} {what}: `{MENDS[kind]}` again"


def other_eval(release: Release, report: Mapping[str, Any]) -> str:
    """Say why an evaluation does not compare this release's arms, "" if it does."""
    known = report.get("baseline_digest", release.baseline.digest)
    return "" if known == release.baseline.digest else "is against another baseline than this release's"


def _other_load(release: Release, load: Mapping[str, Any]) -> str:
    """Say why a load report does not compare this release's arms, "" if it does."""
    arms = load.get("arms", {})
    for arm, endpoint in ((Arm.BASELINE, release.baseline), (Arm.CANDIDATE, release.candidate)):
        if arm not in arms:
            return f"lacks the {arm}"
        if arms[arm].get("digest", endpoint.digest) != endpoint.digest:
            return f"is against another {arm} than this release's"
    return ""


_MISMATCHES = {"load": _other_load, "eval": other_eval}


def served_by(release: Release) -> Iterator[tuple[str, Endpoint]]:
    """Yield each arm with where it is served, the control as one of them."""
    arms = (("baseline", release.baseline), ("candidate", release.candidate), ("control", release.control))
    yield from ((arm, endpoint) for arm, endpoint in arms if endpoint is not None)


def _unready(release: Release, seen: Seen) -> Iterator[str]:
    for arm, endpoint in served_by(release):
        known = _trouble(arm, endpoint, seen.engines.get(endpoint.engine, {}), warm=release.phase is Phase.PREFLIGHT)
        yield from tuple(known) or _unanswered(arm, endpoint, seen.silent)


def _trouble(arm: str, endpoint: Endpoint, engine: Mapping[str, Any], *, warm: bool) -> Iterator[str]:
    """Nobody is sent to an engine that is down, nor for the first time to one that is not warm yet."""
    if engine.get("state") in DOWN:
        yield f"the {arm}'s engine {endpoint.engine} is {engine['state']}: start it (linnet up)"
    elif engine.get("digest") and endpoint.digest and engine["digest"] != endpoint.digest:
        yield f"the {arm}'s engine {endpoint.engine} serves another digest now: abort, and start a new release"
    elif warm and engine.get("state", READY) != READY:
        yield f"the {arm}'s engine {endpoint.engine} is {engine['state']}, not warm yet: wait for it (linnet up)"


def _unanswered(arm: str, endpoint: Endpoint, silent: Mapping[str, str]) -> Iterator[str]:
    for url in endpoint.replicas:
        if url in silent:
            what = f"no health answer ({silent[url]})"
            yield f"the {arm}'s engine {endpoint.engine} at {url}: {what}; start it (linnet up), or mend its replicas"
