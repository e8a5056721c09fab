"""What a person may say to a release. Each verb is one change in one script: the control plane need not be alive."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any, TypeAlias

from canary.card.parts import ArmSpec
from canary.card.spec import Spec, parse
from canary.core import events
from canary.core.arms import Endpoint
from canary.core.events import Cause, Effect, Event, Evidence
from canary.core.release import NotAllowed, Opening, Release, advance, begin
from canary.core.tally import TallyError
from canary.core.tally import parse as parse_sums
from canary.effects import change_of
from canary.errors import Conflict, Refused, Unreachable, Usage
from canary.spending import tokens_usd
from canary.status import FRESH_S, read, read_any, status
from canary.storage.records import Change
from canary.storage.store import Store, StoreError

_MOST = 1e9  # of any number that a command takes
_TRIES = 20  # decisions made again on a state that moved meanwhile
Verb: TypeAlias = Callable[[Store, "Command", Release, float], Awaitable[Event]]


@dataclass(frozen=True, slots=True)
class Command:
    """What a person said; `if_generation` insists on a state, `idempotency_key` makes a repeated command one.

    `start` takes args {"spec": YAML text, "where": its file, "supersede": bool}; `set-weight` {"percent": 0..100,
    "ramp": seconds}; `promote` {"skip_analysis": bool}.
    """

    verb: str
    model: str
    actor: str
    reason: str
    if_generation: int | None = None
    idempotency_key: str = ""
    args: Mapping[str, Any] = field(default_factory=dict)

    def cause(self, now: float) -> Cause:
        """Return who, why and when."""
        return Cause(self.actor, self.reason, now)


async def execute(store: Store, command: Command, now: float) -> dict[str, Any]:
    """Carry out a command and return the new status; `now` in Unix seconds.

    Raises Usage, SpecError, Refused, Unknown, Conflict, Unreachable. A command that changes nothing is no error.
    """
    try:
        command = _checked(command)
        if command.verb == "start":
            return await _start(store, command, now)
        return await _tell(store, command, now)
    except NotAllowed as error:
        raise Refused(str(error)) from error
    except StoreError as error:
        raise Unreachable(str(error)) from error


def _checked(command: Command) -> Command:
    if command.verb not in VERBS and command.verb != "start":
        raise Usage(f"{command.verb}: no such verb; use one of start, {', '.join(VERBS)}")
    if not command.reason.strip():
        raise Usage(f"{command.verb}: no reason given; add --reason TEXT")
    return replace(command, reason=" ".join(command.reason.split()), actor=" ".join(command.actor.split()) or "unknown")


async def _tell(store: Store, command: Command, now: float) -> dict[str, Any]:
    """Read, decide, write; again while others were faster."""
    for _ in range(_TRIES):
        text = await store.release_text(command.model)
        release = read(command.model, text)
        if await _done_before(store, command):
            return await status(store, command.model, now)
        _insist(command, release)
        event = await VERBS[command.verb](store, command, release, now)
        after, effects = advance(release, event)
        known = await _known(store, release) if effects else {}
        if await _write(store, command, change_of(text, release, after, effects, evidence=known), effects):
            return await status(store, command.model, now)
    raise _outrun(command)


async def _start(store: Store, command: Command, now: float) -> dict[str, Any]:
    spec = _spec_of(command)
    command = replace(command, model=spec.model)
    for _ in range(_TRIES):
        text = await store.release_text(spec.model)
        prior = read_any(spec.model, text)
        if await _done_before(store, command):
            return await status(store, spec.model, now)
        if prior is not None:
            _insist(command, prior)
            if prior.active and command.args.get("supersede"):
                gone, effects = advance(prior, events.Supersede(command.cause(now)))
                begin(gone, await _opening(store, spec), command.cause(now))  # a start that is refused ends nothing
                plain = replace(command, idempotency_key="", if_generation=None)
                change = change_of(text, prior, gone, effects, evidence=await _known(store, prior))
                await _write(store, plain, change, effects)
                command = replace(command, if_generation=None)
                continue
        opening = await _opening(store, spec)
        release, effects = begin(prior, opening, command.cause(now))
        change = change_of(text, prior, release, effects, evidence=_begun(opening))
        if await _write(store, command, change, effects):
            return await status(store, spec.model, now)
    raise _outrun(command)


async def _known(store: Store, release: Release) -> dict[str, Any]:
    """Return what the last look at this attempt saw, for the audit; a person's word counts whatever that was."""
    try:
        look = await store.last_look(release.model)
        if look is not None and release.same_attempt(look["at"]):
            return {**look["evidence"], "looked_ms": look["unix_ms"]}
    except (ValueError, KeyError, TypeError, AttributeError):
        pass  # damaged: nothing is known
    return {}


def _begun(opening: Opening) -> dict[str, Any]:
    """Return what a start rests on: which spec, and which digests."""
    digests = {"baseline": opening.baseline.digest, "candidate": opening.candidate.digest}
    return {"spec_sha256": sha256(opening.spec.encode()).hexdigest(), **digests}


def _spec_of(command: Command) -> Spec:
    text = command.args.get("spec")
    if not isinstance(text, str):
        raise Usage("start: no spec given; `linnet start SPEC`")
    spec = parse(text, str(command.args.get("where") or "spec"))
    if command.model and command.model != spec.model:
        raise Usage(f"start: the spec's model is {spec.model}, not {command.model}; leave --model out")
    return spec


async def _opening(store: Store, spec: Spec) -> Opening:
    engines = await store.engines()
    candidate = endpoint(spec.arms.candidate, engines, "candidate")
    bad = (await store.quarantined(spec.model)).get(candidate.digest)
    if bad is not None:
        raise Refused(
            f"{spec.model}: candidate {candidate.digest[:19]} was rolled back ({bad}); mend it, "
            "or `linnet retry --reason TEXT`"
        )
    baseline = endpoint(spec.arms.baseline, engines, "baseline")
    return Opening(
        model=spec.model,
        release=spec.release,
        attempt=await store.attempts(spec.model, spec.release) + 1,
        plan=spec.plan(),
        spec=spec.text,
        baseline=baseline,
        candidate=candidate,
        control=_control(spec, engines, baseline),
    )


def _control(spec: Spec, engines: Mapping[str, Mapping[str, Any]], baseline: Endpoint) -> Endpoint | None:
    """Return where the control is served, None without one. Raises Refused if it is not the baseline's model."""
    arm = spec.arms.control_arm
    if arm is None:
        return None
    digest = arm.digest or engines.get(arm.engine, {}).get("digest") or baseline.digest
    found = endpoint(arm.model_copy(update={"digest": digest}), engines, "control")
    if digest != baseline.digest:
        raise Refused(
            f"the control {arm.engine} serves {digest[:19]}, the baseline {baseline.digest[:19]}; "
            "a control is the baseline's model on replicas of its own: start that one under arms.control"
        )
    if shared := set(found.replicas) & set(baseline.replicas):
        raise Refused(f"the control shares {min(shared)} with the baseline; give it replicas of its own")
    return found


def endpoint(arm: ArmSpec, engines: Mapping[str, Mapping[str, Any]], name: str) -> Endpoint:
    """Return where an arm is served: as the spec says, else as the stack has registered it. Raises Refused."""
    engine = engines.get(arm.engine, {})
    replicas = arm.replicas or ((engine["url"],) if engine.get("url") else ())
    digest = arm.digest or engine.get("digest") or ""
    if not replicas or not digest:
        lacking = "replicas" if not replicas else "digest"
        raise Refused(
            f"engine {arm.engine} is not running and the spec gives no {lacking}; "
            f"start it (linnet up) or add {lacking} under arms.{name}"
        )
    return Endpoint(arm.engine, arm.served_model, tuple(replicas), digest)


def _insist(command: Command, release: Release) -> None:
    if command.if_generation is not None and command.if_generation != release.generation:
        raise Conflict(
            f"{release.model} is at generation {release.generation}, not {command.if_generation}; "
            "look again (linnet status), then repeat"
        )


async def _done_before(store: Store, command: Command) -> bool:
    key = command.idempotency_key
    return bool(key) and await store.remembered(command.model, key) is not None


async def _write(store: Store, command: Command, change: Change, effects: tuple[Effect, ...]) -> bool:
    """Write one change; False if another was faster. Nothing to do is done, and is not to do again under its key."""
    key, reply = command.idempotency_key, json.dumps({"verb": command.verb, "generation": change.audit["generation"]})
    if not effects:
        if key:
            await store.remember(command.model, key, reply)
        return True
    if key:
        change = replace(change, key=key, reply=reply)
    return (await store.commit(change)).code in {"ok", "replayed"}


def _outrun(command: Command) -> Conflict:
    return Conflict(f"{command.model}: others changed the release {_TRIES} times meanwhile; look again, then repeat")


def _plain(kind: Callable[[Cause], Event]) -> Verb:
    async def event(_store: Store, command: Command, _release: Release, now: float) -> Event:
        return kind(command.cause(now))

    return event


async def _set_weight(_store: Store, command: Command, _release: Release, now: float) -> Event:
    percent = _number(command, "percent", None, "from 0 to 100")
    return events.SetWeight(command.cause(now), percent, _number(command, "ramp", 0.0, "of seconds, 0 or more"))


def _number(command: Command, name: str, usual: float | None, which: str) -> float:
    value = command.args.get(name, usual)
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < _MOST:
        raise Usage(f"{command.verb}: no {name} given that is a number; write one {which}")
    return float(value)


async def _promote(store: Store, command: Command, release: Release, now: float) -> Event:
    look = await store.last_look(command.model)
    fresh = look is not None and abs(now - look["unix_ms"] / 1000) <= FRESH_S and look["at"] == release.at
    evidence = Evidence.from_dict(look["evidence"]) if look is not None and fresh else None
    return events.Promote(command.cause(now), evidence, skip_analysis=bool(command.args.get("skip_analysis")))


async def _retry(store: Store, command: Command, release: Release, now: float) -> Event:
    """The next attempt goes on from what this one cost; sums that cannot be read must not make it cheaper."""
    try:
        tallies = parse_sums(await store.tallies(release.model, release.release, release.attempt))
    except TallyError as error:
        raise Refused(f"{release.model}: not known what its tokens cost: {error}") from error
    return events.Retry(command.cause(now), tokens_usd(release, tallies))


VERBS: Mapping[str, Verb] = {
    "pause": _plain(events.Pause),
    "resume": _plain(events.Resume),
    "set-weight": _set_weight,
    "promote": _promote,
    "abort": _plain(events.Abort),
    "rollback": _plain(events.Rollback),
    "retry": _retry,
    "freeze": _plain(events.Freeze),
    "unfreeze": _plain(events.Unfreeze),
}
