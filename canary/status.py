"""What a release looks like from outside: the fields that people, scripts and the report read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from canary import conditions, references
from canary.assess import Tallies, arm_tally, bills, calibrated
from canary.core.arms import Arm
from canary.core.events import Evidence
from canary.core.obstacles import obstacle
from canary.core.state import Phase, Release
from canary.core.tally import TallyError, parse
from canary.errors import Refused, Unknown
from canary.spending import Spend, runs_of, shadow_tokens, spend, warning
from canary.storage.link import loads
from canary.storage.store import Store

_PLACE = re.compile(r"(\w+) (\S+) %")
FRESH_S = 10.0  # a look older than this says nothing about now
_EVENTS = 1_000  # audit entries of a model read for a timeline


async def status(store: Store, model: str, now: float) -> dict[str, Any]:
    """Return a model's release as JSON values; `now` in Unix seconds. Raises Unknown, StoreError."""
    state = await glance(store, model, now)
    audit = _of_attempt(state["release"], state["attempt"], await store.audit(model, _EVENTS))
    return {**state, "timeline": timeline(audit), "rollback": rollback(audit)}


async def glance(store: Store, model: str, now: float) -> dict[str, Any]:
    """Return the status without its timeline."""
    release = read(model, await store.release_text(model))
    tallies = _parse(await store.tallies(model, release.release, release.attempt))
    look = await store.last_look(model) or {}
    workers, acks = await store.workers(int(now * 1000)), await store.acks(model)
    live = {worker: acks.get(worker, (-1, 0))[0] for worker in workers}
    load = await store.get_report(model, "load", release.candidate.digest)
    spent = await _spent(store, release, load, tallies, now)
    seen = _seen(release, look, now)
    return {
        **_facts(release),
        **seen,
        "overlays": {"paused": release.paused, "held": _held(release, seen), "frozen": release.frozen},
        "actual": actual(release, tallies),
        "workers": {
            "live": len(live),
            "acknowledged": sum(generation >= release.generation for generation in live.values()),
            "behind": sorted(worker for worker, generation in live.items() if generation < release.generation),
        },
        "guardrails": [{"name": one["guardrail"], **one} for one in await _findings(store, release, look)],
        "reference": conditions.reference(references.read(await store.reference(model)), now),
        "load": conditions.load(release, tallies, now),
        "spend_usd": spent.total,
        "spend": spent.to_dict(),
        "shadow_tokens": shadow_tokens(tallies),
        "warnings": [line for line in (warning(release, spent.total),) if line],
        "usd_per_million_tokens": {"bill": dict(bills(load)), "calibrated": dict(calibrated(tallies))},
    }


async def _spent(store: Store, release: Release, load: Mapping[str, Any] | None, tallies: Tallies, now: float) -> Spend:
    tests = await store.load_tests(release.model, release.candidate.digest)
    return spend(release, runs_of(load, tests), tallies, now)


def read(model: str, text: str) -> Release:
    """Read a release state. Raises Unknown when there is none, Refused when it is damaged."""
    release = read_any(model, text)
    if release is None:
        raise Unknown(f"{model}: no release of this model; `linnet start SPEC` begins one")
    return release


def read_any(model: str, text: str) -> Release | None:
    """Read a release state, None where there is none. Raises Refused when it is damaged."""
    try:
        return Release.from_json(text) if text else None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Refused(f"{model}: its release state cannot be read ({error}); restore the store's file") from error


def _facts(release: Release) -> dict[str, Any]:
    split = release.split()
    share = split.percent / 100
    return {
        "model": release.model,
        "release": release.release,
        "attempt": release.attempt,
        "phase": release.phase.value,
        "step": release.step,
        "steps": [step.percent for step in release.plan.steps],
        "stage": release.stage,
        "percent": release.percent,
        "shadow_percent": split.shadow_percent,
        "ramp": None if release.ramp is None else {"to": release.ramp.to, "parts_left": release.ramp.left},
        "rehearsal_ms": release.rehearsal_ms,
        "generation": release.generation,
        "desired": {"baseline": 1 - share, "candidate": share},
        "budget_usd": release.plan.money.budget,
        "stop_loss_usd": release.plan.money.stop_loss,
        "digest": release.candidate.digest,
        "baseline": release.baseline.engine,
        "candidate": release.candidate.engine,
        "result": "" if release.active else release.phase.value,
        "reason": release.reason,
        "breach_ms": release.breach_ms,
        "decided_ms": release.decided_ms,
    }


async def _findings(store: Store, release: Release, look: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the last findings, none while the last look was at another attempt: `look` was read before them."""
    if not release.same_attempt(str(look.get("at", ""))):
        return []
    found: list[dict[str, Any]] = loads(await store.findings(release.model) or "[]")
    return found


def _held(release: Release, seen: Mapping[str, Any]) -> str:
    """Say what holds with the numbers of the last look; the state keeps those of the first."""
    return str(seen["waiting"]) if release.held_key and release.held_key == seen["obstacle"] else release.held


def _seen(release: Release, look: Mapping[str, Any], now: float) -> dict[str, Any]:
    """What the controller's last look says of the way on; an old look says that nobody watches."""
    silence = now - max(look.get("unix_ms", 0) / 1000, release.entered) if release.active else 0.0
    silent = silence > FRESH_S
    if not release.active or look.get("at") != release.at or silent:
        waiting = f"no controller has looked for {silence:.0f} s; start it (linnet up)" if silent else ""
        return {"looked_ms": look.get("unix_ms"), "waiting": waiting, "obstacle": "", "to_go": {}}
    evidence = Evidence.from_dict(look["evidence"])
    ahead = obstacle(release, evidence, now)
    shadow = release.plan.shadow if release.phase is Phase.SHADOW else None
    return {
        "looked_ms": look["unix_ms"],
        "waiting": ahead.reason if ahead else "",
        "obstacle": ahead.key if ahead else "",
        "to_go": {
            "seconds": max(0.0, release.entered + release.min_duration - now),
            "samples": max(0, release.min_samples - evidence.samples),
            "pairs": max(0, (shadow.min_pairs if shadow else 0) - evidence.pairs),
        },
    }


def actual(release: Release, tallies: Tallies) -> dict[str, float | None]:
    """Return each arm's share of the requests assigned since the stage began, None before the first."""
    assigned = {arm.value: arm_tally(tallies, arm, release.stage).count("assigned") for arm in Arm}
    total = sum(assigned.values())
    return {arm: count / total if total else None for arm, count in assigned.items()}


def timeline(audit: Iterable[Mapping[str, str]]) -> list[dict[str, Any]]:
    """Return an attempt's story from its audit, oldest first."""
    return [
        {
            "unix_ms": int(entry.get("unix_ms", 0)),
            "what": entry.get("what", ""),
            **_place(entry.get("after", "")),
            "why": entry.get("why", ""),
            "actor": entry.get("who", ""),
            "generation": int(entry.get("generation", 0)),
        }
        for entry in audit
    ]


def rollback(audit: Iterable[Mapping[str, str]]) -> dict[str, Any] | None:
    """Return how long the way back took, in ms, once every live worker has acknowledged it; None before."""
    told = [entry for entry in audit if entry.get("what") == "acknowledged"]
    found: dict[str, Any] | None = loads(told[-1].get("evidence", "null")) if told else None
    return found


def _of_attempt(release: str, attempt: int, audit: Iterable[dict[str, str]]) -> list[dict[str, str]]:
    return [entry for entry in audit if (entry.get("release"), entry.get("attempt")) == (release, str(attempt))]


async def material(store: Store, model: str, now: float) -> dict[str, Any]:
    """Return the raw material of the comparison report. Raises Unknown, StoreError."""
    text = await store.release_text(model)
    release = read(model, text)
    split = await store.read_split(model)
    old = release.previous or release.baseline
    state = await status(store, model, now)
    reports = {kind: await store.get_report(model, kind, release.candidate.digest) for kind in ("load", "eval")}
    return {
        "model": model,
        "release": json.loads(text),
        "split": None if split is None else json.loads(split.to_json()),
        "status": state,
        "audit": await store.audit(model, _EVENTS),
        "findings": await _findings(store, release, await store.last_look(model) or {}),
        "reports": reports,
        "baseline_reports": {kind: await store.get_report(model, kind, old.digest) for kind in ("load", "eval")},
        "tallies": await store.tallies(model, release.release, release.attempt),
        "references": await store.reference(model),
        "spend_usd": state["spend_usd"],
    }


def _place(text: str) -> dict[str, Any]:
    found = _PLACE.fullmatch(text)
    return {"phase": found[1], "percent": float(found[2])} if found else {"phase": text, "percent": None}


def _parse(fields: Mapping[str, str]) -> Tallies:
    try:
        return parse(fields)
    except TallyError:
        return {}
