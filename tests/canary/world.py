"""A control plane in a test: a real store, a clock of our own, and workers that are only numbers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from canary.commands import Command, execute
from canary.controller import Controller
from canary.core.events import Cause
from canary.core.release import Phase, Release
from canary.health import Ask
from canary.metrics import Metrics
from canary.storage.link import ending
from canary.storage.store import Batch, Store, StoreError, Trip
from tests.canary.specs import SPEC

START = 1_800_000_000.0
BY = Cause("ci", "", START)  # who put a gate's report
LOAD = {
    "kind": "load",
    "model": "m",
    "digest": "d-new",
    "verdict": "pass",
    "created_ms": int(START * 1000) + 1,
    "arms": {
        "baseline": {"price": [0.0, 1e-6, 2e-6], "seconds": 20},
        "candidate": {"price": [0.0, 1e-6, 1e-6], "seconds": 20},
    },
}

EVAL = {
    "kind": "eval",
    "model": "m",
    "digest": "d-new",
    "baseline_digest": "d-base",
    "verdict": "pass",
    "slices": {
        "domain": {
            "baseline": {"accuracy": 0.40, "perplexity": 9.0},
            "candidate": {"accuracy": 0.45, "perplexity": 8.0},
            "difference": 0.05,
            "low": 0.03,
            "high": 0.07,
            "passages": 60,
        }
    },
}


async def healthy(_url: str) -> str:
    """Every engine answers."""
    return ""


@asynccontextmanager
async def following(store: Store, model: str = "m", worker: str = "w") -> AsyncIterator[None]:
    """Let a worker live, by the real clock, that hears of every split within 20 ms; a lost store is waited for."""

    async def follow() -> None:
        while not ending():
            with suppress(StoreError):
                now_ms, split = int(time.time() * 1000), await store.read_split(model)
                await store.heartbeat(worker, now_ms)
                if split is not None:
                    await store.acknowledge(model, worker, split.generation, now_ms)
            await asyncio.sleep(0.02)

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(follow())
        try:
            yield
        finally:
            task.cancel()


class World:
    """One model `m`, two registered engines, one worker `w`."""

    def __init__(self, store: Store, name: str = "c1") -> None:
        self.store = store
        self.now = START
        self.jumped = 0.0
        self.metrics = Metrics()
        self.ask: Ask = healthy
        self.urls = {"base": "http://127.0.0.1:8101", "new": "http://127.0.0.1:8102"}
        self.seq = 0
        self.controller = self.another(name)

    def another(self, name: str, lease_ms: int = 5000) -> Controller:
        """Return a further controller on the same store and clocks."""
        clocks = {"clock": lambda: self.now, "steady": lambda: self.now - self.jumped}
        return Controller(self.store, name, self.metrics, **clocks, lease_ms=lease_ms, ask=self.ask)

    def jump(self, seconds: float) -> None:
        """Set everybody's clock forward, or back below 0; no time passes."""
        self.now += seconds
        self.jumped += seconds

    async def engines(self, **state: str) -> None:
        """Register both engines, ready unless `state` says otherwise."""
        for name, url in self.urls.items():
            await self.store.register_engine(
                {
                    "name": name,
                    "url": url,
                    "digest": f"d-{name}",
                    "state": state.get(name, "ready"),
                }
            )

    async def say(self, verb: str, reason: str = "because", **more: Any) -> dict[str, Any]:
        """Carry out a command of a person."""
        return await execute(self.store, Command(verb, more.pop("model", "m"), "ann", reason, **more), self.now)

    async def start(self, spec: str = SPEC, **args: Any) -> dict[str, Any]:
        """Start a release."""
        return await self.say("start", args={"spec": spec, "where": "r.yaml", **args})

    async def step(self, seconds: float = 1.0) -> Release:
        """Let time pass, then let the controller look once; in preflight the worker plays its part."""
        self.now += seconds
        await self.controller.step()
        release = await self.release()
        if release.phase is Phase.PREFLIGHT:
            await self.acknowledge(0)
        if release.rehearsing:
            await self.controller.step()
            await self.acknowledge(0)
            await self.controller.step()
        return await self.release()

    async def release(self) -> Release:
        """Return the release as the store has it."""
        return Release.from_json(await self.store.release_text("m"))

    async def pairs(self, count: int = 40) -> None:
        """Let shadow pairs be scored, all of them equal."""
        release = await self.release()
        await self._flush({f"{release.stage}|candidate|domain|pair.0": count})

    async def shadowed(self, prompt: int, completion: int, word: str = "shadow_completion_tokens") -> None:
        """Let the shadow ask the candidate for so many tokens."""
        at = f"{(await self.release()).stage}|candidate|domain"
        await self._flush({f"{at}|shadow_prompt_tokens": prompt, f"{at}|{word}": completion})

    async def traffic(self, each: int = 100, errors: int = 0) -> None:
        """Let the candidate answer `each` requests in this stage, `errors` failing; the baseline by its share."""
        release = await self.release()
        share = release.percent / 100
        fields: dict[str, int | float] = {}
        for arm, number, failed in (("baseline", round(each * (1 - share) / share), 0), ("candidate", each, errors)):
            counts = {"assigned": number, "done": number, "ok": number - failed, "error": failed}
            fields |= {f"{release.stage}|{arm}|domain|{name}": count for name, count in counts.items()}
        await self._flush(fields)

    async def priced(self, completion_tokens: int, usd: float) -> None:
        """Let the candidate's answers so far in this stage have all been priced, together so many tokens and USD."""
        release = await self.release()
        cell = f"{release.stage}|candidate|domain|"
        done = (await self.store.tallies("m", release.release, release.attempt))[f"{cell}ok"]
        fields = {"priced": int(done), "completion_tokens": completion_tokens, "sum.cost": usd}
        await self._flush({f"{cell}{name}": amount for name, amount in fields.items()})

    async def acknowledge(self, after_ms: int = 30) -> None:
        """Let the worker live, and route by the split that stands."""
        split = await self.store.read_split("m")
        assert split is not None
        now_ms = int(self.now * 1000)
        await self.store.heartbeat("w", now_ms)
        await self.store.acknowledge("m", "w", split.generation, now_ms + after_ms)

    async def trip(self, reason: str = "6 of 6 failed") -> Trip:
        """Let the worker's tripwire fire 20 ms ago."""
        release = await self.release()
        trip = Trip("m", release.release, release.attempt, release.stage, "w", reason, int(self.now * 1000) - 20)
        await self.store.trip(trip)
        return trip

    async def to_canary(self, percent: float = 5, spec: str = SPEC) -> Release:
        """Drive a fresh release to a step of the canary."""
        await self.engines()
        await self.start(spec)
        await self.step()
        await self.store.put_report("m", "load", "d-new", LOAD, BY)
        await self.store.put_report("m", "eval", "d-new", EVAL, BY)
        await self.step()
        await self.pairs()
        release = await self.step()
        while release.percent < percent:
            await self.traffic(300)
            release = await self.step(3)
        assert (release.phase, release.percent) == ("canary", percent)
        return release

    async def _flush(self, fields: dict[str, int | float]) -> None:
        release = await self.release()
        self.seq += 1
        await self.store.flush("w", self.seq, [Batch("m", release.release, release.attempt, fields)])
