"""A model of a release beside the real one, several at once: whatever is said and seen, in any order, they agree."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from canary.commands import Command, execute
from canary.controller import Controller
from canary.core.release import Release
from canary.core.state import ACTIVE
from canary.errors import Conflict, Refused
from canary.metrics import Metrics
from canary.storage.store import Batch, Store
from tests.canary.specs import changed
from tests.canary.world import BY, EVAL, LOAD, START, healthy
from tests.release import laws
from tests.support.valkey import Valkey

MODELS = ("m0", "m1")
models = st.sampled_from(MODELS)
A_LOOK = 6000  # requests between two looks: enough for a verdict at 5 % and at 95 %
SEEN: set[str] = set()
USUAL = {"canary": "set-weight", "bake": "set-weight", "rolled_back": "retry", "aborted": "retry"}
TOLD = {  # what the stories must have come to, so that they prove something
    "set-weight in canary",
    "set-weight in canary while frozen refused",
    "set-weight in bake",
    "retry in rolled_back",
    "retry in aborted",
    "rollback in promoted",
    "failed while paused",
    "failed while frozen",
}
ORDER = {"draft": 0, "preflight": 1, "shadow": 2, "canary": 3, "bake": 4, "promoted": 5}


@dataclass(frozen=True)
class Model:
    """What a person expects of a release."""

    phase: str = ""
    percent: float = 0.0
    paused: bool = False
    frozen: bool = False
    attempt: int = 0
    quarantined: bool = False
    switched: bool = False  # the candidate has become the baseline once

    @property
    def active(self) -> bool:
        """Whether it may still move."""
        return self.phase in set(ACTIVE)

    @property
    def exposed(self) -> bool:
        """Whether both arms have users."""
        return self.active and 0 < self.percent < 100


def expected(model: Model, verb: str, percent: float) -> Model | None:
    """Return what a verb makes of it, None where it is refused."""
    match verb:
        case "pause" | "resume":
            return replace(model, paused=verb == "pause") if model.active else None
        case "set-weight":
            rises = percent > model.percent
            may = model.phase in ("canary", "bake") and not (model.frozen and rises)
            return replace(model, percent=percent, paused=True) if may else None
        case "abort":
            return replace(model, phase="aborted", percent=0.0, paused=False) if model.active else model
        case "rollback":
            back = replace(model, phase="rolled_back", percent=0.0, paused=False, quarantined=True)
            return back if model.active or model.phase == "promoted" else model
        case "retry":
            again = replace(model, phase="draft", percent=0.0, attempt=model.attempt + 1, quarantined=False)
            return again if model.phase in ("rolled_back", "aborted") else None
        case _:
            return replace(model, frozen=verb == "freeze")


class Releases(RuleBasedStateMachine):
    """Several releases on one store, one controller, one clock."""

    url = ""

    @initialize(places=st.tuples(*[st.sampled_from(["", "draft", "shadow", "canary", "bake"])] * len(MODELS)))
    def open(self, places: tuple[str, ...]) -> None:
        """Begin on an empty store, each release at a place that it came to by itself."""
        self.runner = asyncio.Runner()
        self.now, self.seq = START, 0
        self.models = dict.fromkeys(MODELS, Model())
        self.run(self._open())
        for model, place in zip(MODELS, places, strict=True):
            if place:
                self.start(model)
            while ORDER.get(self.models[model].phase, 0) < ORDER.get(place, 0):
                self.look(3.0, "")

    def run(self, work: Any) -> Any:
        """Wait for something asynchronous."""
        return self.runner.run(work)

    def clock(self) -> float:
        """The time, everywhere."""
        return self.now

    async def _open(self) -> None:
        self.store = Store.connect(self.url)
        await self.store._redis.flushall()
        self.controller = Controller(
            self.store, "c", Metrics(), clock=self.clock, steady=self.clock, lease_ms=60_000, ask=healthy
        )
        for name, port in (("base", 8101), ("new", 8102)):
            engine = {"name": name, "url": f"http://127.0.0.1:{port}", "digest": f"d-{name}", "state": "ready"}
            await self.store.register_engine(engine)
        for model in MODELS:
            await self.store.put_report(model, "load", "d-new", {**LOAD, "model": model}, BY)
            await self.store.put_report(model, "eval", "d-new", {**EVAL, "model": model}, BY)

    def teardown(self) -> None:
        """Let go."""
        self.run(self.store.close())
        self.runner.close()

    async def _release(self, model: str) -> Release | None:
        text = await self.store.release_text(model)
        return Release.from_json(text) if text else None

    async def _said(self, model: str, verb: str, generation: int | None = None, **args: Any) -> str:
        """Say something; return "" or the kind of refusal."""
        try:
            await execute(self.store, Command(verb, model, "ann", "because", generation, args=args), self.now)
        except (Refused, Conflict) as error:
            return type(error).__name__
        return ""

    @rule(model=models)
    def start(self, model: str) -> None:
        """A start needs a place that is free, the baseline that is there, and a candidate that was not rolled back."""
        was = self.models[model]
        spec = changed("model: m", f"model: {model}")
        said = self.run(self._said("", "start", spec=spec, where="r.yaml"))
        refused = was.active or was.quarantined or was.phase == "promoted"
        if was.switched and not was.active:  # its roles were switched, and perhaps switched back
            refused = bool(said)
        assert bool(said) == refused, (was, said)
        if not refused:
            self.models[model] = replace(Model(frozen=was.frozen), phase="draft", attempt=was.attempt + 1)

    @precondition(lambda self: any(model.phase for model in self.models.values()))
    @rule(
        model=models,
        verb=st.sampled_from(["pause", "resume", "set-weight", "abort", "rollback", "retry", "freeze", "unfreeze"]),
        percent=st.sampled_from([0.0, 5.0, 20.0, 50.0, 100.0]),
        stale=st.sampled_from([0, 0, 0, -1, 1]),
    )
    def say(self, model: str, verb: str, percent: float, stale: int) -> None:
        """A verb does what it says, or is refused and changes nothing; a stale generation always is."""
        was = self.models[model]
        if not was.phase:
            return
        release = self.run(self._release(model))
        said = self.run(self._said(model, verb, release.generation + stale, percent=percent))
        follows = None if stale else expected(was, verb, percent)
        SEEN.add(f"{verb} in {was.phase}{' while frozen' if was.frozen else ''}{'' if follows else ' refused'}")
        assert bool(said) == (follows is None), (was, verb, percent, said)
        if stale:
            assert said == "Conflict"
        if follows is not None:
            self.models[model] = follows
        else:
            assert self.run(self._release(model)) == release

    @rule(percent=st.sampled_from([5.0, 20.0, 50.0]))
    def steer(self, percent: float) -> None:
        """What a person says most where each release stands."""
        for name, model in self.models.items():
            if verb := USUAL.get(model.phase):
                self.say(name, verb, percent, 0)

    @precondition(lambda self: any(model.exposed for model in self.models.values()))
    @rule(overlay=st.sampled_from(["pause", "freeze"]))
    def fail_held(self, overlay: str) -> None:
        """A person holds what serves users, and then it fails."""
        name = next(name for name, model in self.models.items() if model.exposed)
        self.say(name, overlay, 0.0, 0)
        self.say(name, "set-weight", 99.0, 0)
        self.look(1.0, name)

    @precondition(lambda self: any(model.active for model in self.models.values()))
    @rule(model=models)
    def skip(self, model: str) -> None:
        """Without analysis the candidate becomes the baseline at once, or is refused: while frozen it always is."""
        was = self.models[model]
        if not was.phase:
            return
        said = self.run(self._said(model, "promote", skip_analysis=True))
        if was.frozen or not was.active or was.phase in ("draft", "preflight"):
            assert bool(said) == (was.phase != "promoted"), (was, said)
        elif not said:
            self.models[model] = replace(was, phase="promoted", percent=100.0, paused=False, switched=True)

    @rule(looks=st.sampled_from([1, 2, 3, 5, 8]), seconds=st.sampled_from([0.5, 1.0, 3.0]))
    def live(self, looks: int, seconds: float) -> None:
        """Some looks at what is well."""
        for _ in range(looks):
            self.look(seconds, "")

    @precondition(lambda self: any(model.exposed for model in self.models.values()))
    @rule(bad=models)
    def fail(self, bad: str) -> None:
        """A look at a candidate that fails."""
        self.look(1.0, bad)

    def look(self, seconds: float, bad: str) -> None:
        """What is paused or frozen stays, what fails goes back whatever holds it, nothing leaps."""
        self.now += seconds
        before = {model: self.run(self._release(model)) for model in MODELS}
        for model, release in before.items():
            if release is not None:
                self.run(self._users(model, release, failing=model == bad))
        self.run(self.controller.step())
        for model, old in before.items():
            release = self.run(self._release(model))
            if old is not None and release is not None:
                self.models[model] = self._looked(self.models[model], old, release, failing=model == bad)

    def _looked(self, was: Model, old: Release, release: Release, *, failing: bool) -> Model:
        if failing and was.exposed:
            SEEN.update(f"failed while {word}" for word in ("paused", "frozen") if getattr(was, word))
            assert release.phase == "rolled_back", (old.place, release.place, release.held)
        if release.phase == "rolled_back" and was.active:
            assert failing
            return replace(was, phase="rolled_back", percent=0.0, paused=False, quarantined=True)
        stays = (release.phase, release.percent) == (old.phase, old.percent)
        assert stays or not (was.paused or was.frozen), (was, release.place)
        assert stays or ORDER[release.phase] - ORDER[old.phase] in (0, 1), (old.place, release.place)
        switched = was.switched or release.phase == "promoted"
        return replace(was, phase=release.phase.value, percent=release.percent, switched=switched)

    async def _users(self, model: str, release: Release, *, failing: bool) -> None:
        now_ms = int(self.now * 1000)
        await self.store.heartbeat("w", now_ms)
        split = await self.store.read_split(model)
        assert split is not None
        await self.store.acknowledge(model, "w", split.generation, now_ms)
        cell = f"{release.stage}|{{}}|domain|{{}}"
        fields = {cell.format("candidate", "pair.0"): 40} if release.phase == "shadow" else {}
        if release.percent and release.active:
            for arm, part in (("baseline", 100 - release.percent), ("candidate", release.percent)):
                count = round(A_LOOK * part / 100)
                failed = count * 2 // 3 if failing and arm == "candidate" else 0
                counts = {"assigned": count, "done": count, "ok": count - failed, "error": failed}
                fields |= {cell.format(arm, name): amount for name, amount in counts.items()}
        if fields:
            self.seq += 1
            await self.store.flush("w", self.seq, [Batch(model, release.release, release.attempt, fields)])

    @invariant()
    def agree(self) -> None:
        """The store says what the model says, of each release by itself, and no law is broken."""
        for name, model in getattr(self, "models", {}).items():
            release = self.run(self._release(name))
            self.run(laws.hold(self.store, name))
            SEEN.add(model.phase)
            if release is None:
                assert not model.phase
                continue
            said = (release.phase.value, release.percent, bool(release.paused), bool(release.frozen), release.attempt)
            assert said == (model.phase, model.percent, model.paused, model.frozen, model.attempt)
            assert bool(self.run(self.store.quarantined(name))) == model.quarantined
            exposed = release.split().percent
            assert exposed == (model.percent if model.phase in ("canary", "bake") else 0)


def test_releases_and_their_model_agree(valkey_session: Valkey) -> None:
    """Hypothesis says, waits and lives; the model foretells what becomes of it."""
    Releases.url = valkey_session.url
    run_state_machine_as_test(
        Releases,
        settings=settings(
            max_examples=50,
            stateful_step_count=30,
            derandomize=True,
            phases=[Phase.generate],  # a failing story is told as it is: shrinking it takes minutes
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert {*ORDER, "", "rolled_back", "aborted", *TOLD} <= SEEN
