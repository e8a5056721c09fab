"""The demonstration: a good release promoted, a bad one rolled back, on two real vLLM engines, under real traffic.

It does what a person would do, with the same commands, and believes nothing: at the end it checks what it saw.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from deploy.local.catalogue import ADAPTED, BASE, CRAMPED
from deploy.local.settings import LocalSettings
from deploy.local.stack import Say, Stack, prepare, until_told
from serving.child import ChildSpec
from serving.environment import models_dir
from serving.errors import EngineError
from serving.models import SUMMARY, read_summary
from serving.verdict import table_of

SPECS = Path(__file__).resolve().parents[2] / "examples" / "demo"
ENDS = frozenset({"promoted", "rolled_back", "aborted", "superseded"})
PATIENCE_S = 300.0
"""A release of the demo that has not ended by then is stuck."""

DONE = "demo.done"
"""Marks the state of a demo that came to its end; without it, the next one goes on where it was."""

RATE = 10.0  # requests a second: a few tenths of what two engines on two cores can answer


@dataclass(frozen=True, slots=True)
class Act:
    """One release of the demo: its spec, the gates to pass, and how it should come out."""

    name: str
    title: str
    gates: tuple[str, ...]
    ending: str

    @property
    def spec(self) -> Path:
        """The release spec."""
        return SPECS / f"{self.name}.yaml"

    @property
    def release(self) -> str:
        """The release's name in its spec."""
        return f"mathdocs-{self.name}"


GOOD = Act("adapted", "a domain-adapted, quantized candidate", ("loadtest", "eval"), "promoted")
BAD = Act("cramped", "the same weights on an engine that takes one request at a time", ("loadtest",), "rolled_back")


@dataclass(slots=True)
class Seen:
    """What the demo saw: the reports, and every fault."""

    reports: list[Path] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def run_demo(settings: LocalSettings, say: Say) -> int:
    """Run it all; return 0 only if both releases came out as they should and no user saw an error."""
    started = time.monotonic()
    new = not (models_dir(settings.cache) / SUMMARY).exists()
    models = prepare(settings, "vllm", say)
    if not new:  # making them has shown the table already
        say(f"\n== the models, on held-out text\n{table_of(read_summary(models)['table'])}")
    seen = asyncio.run(until_told(_play(fresh_state(settings), models, say)))
    for report in seen.reports:
        say(f"report: {report}")
    for fault in seen.faults:
        say(f"FAULT: {fault}")
    verdict = "as it should be" if not seen.faults else f"{len(seen.faults)} faults"
    say(f"\ndemo: {verdict}, {time.monotonic() - started:.0f} s")
    return 0 if not seen.faults else 1


def fresh_state(settings: LocalSettings) -> LocalSettings:
    """Give the demo a state folder of its own: a new one after a demo that came to its end, else the same again."""
    state = settings.state / "demo"
    if (state / DONE).exists():
        previous = settings.state / "demo.previous"
        shutil.rmtree(previous, ignore_errors=True)
        state.rename(previous)
    return settings.model_copy(update={"state": state})


async def _play(settings: LocalSettings, models: Path, say: Say) -> Seen:
    seen = Seen()
    async with Stack(settings, "vllm", models, say) as stack, httpx.AsyncClient(base_url=settings.control_url) as http:
        stage = Stage(settings, stack, http, say, seen)
        say("\n== the stack: store, two vLLM engines, control plane, gateway")
        await stack.start((BASE, ADAPTED))
        if await stage.release() != BAD.release:
            await stage.play(GOOD)
        if not seen.faults:
            say(f"\n== the old baseline has served its time; its slot goes to {CRAMPED}")
            await stage.replace(BASE, CRAMPED)
            await stage.play(BAD)
        stage.count_answers()
    (settings.state / DONE).touch()
    return seen


class Stage:
    """Where the acts are played: the stack, the commands a person would type, and what is seen."""

    def __init__(self, settings: LocalSettings, stack: Stack, http: httpx.AsyncClient, say: Say, seen: Seen) -> None:
        self._settings = settings
        self._stack = stack
        self._http = http
        self._say = say
        self._seen = seen
        self._answers = settings.state / "traffic.jsonl"

    async def play(self, act: Act) -> None:
        """Play one act under real traffic. The load gate comes before the users, so that it measures alone."""
        await self._begin(act)
        await self._let_users_come()
        await self._watch(act)
        await self._stack.supervisor.stop("traffic")

    async def release(self) -> str:
        """Name the model's present release; empty before its first."""
        return str((await self._status()).get("release", ""))

    async def _begin(self, act: Act) -> None:
        """Start a release and take it through its gates; what an interrupted demo did already is not done again."""
        self._say(f"\n== {act.release}: {act.title}")
        status = await self._status()
        if status.get("release") != act.release:
            await self._linnet("start", str(act.spec), "--reason", "demo")
            status = await self._status()
        if status["phase"] in {"draft", "preflight"}:
            for gate in act.gates:
                await self._linnet(gate, str(act.spec))

    async def _let_users_come(self) -> None:
        """Send held-out prompts at a steady rate through the gateway."""
        workload = models_dir(self._settings.cache) / "prompts.jsonl"
        argv = (
            *(sys.executable, "-m", "loadtest.traffic", "--gateway", self._settings.gateway_url),
            *("--model", self._settings.model, "--workload", str(workload), "--rate", str(RATE)),
            *("--max-tokens", "24", "--out", str(self._answers)),
        )
        log = self._settings.logs / "traffic.log"
        await self._stack.supervisor.start(ChildSpec("traffic", argv, log, grace_s=15.0))
        self._say(f"users arrive: {RATE:g} requests a second of held-out text, streamed")

    def count_answers(self) -> None:
        """Count what the users got."""
        answers = [json.loads(line) for line in self._answers.read_text().splitlines()]
        failed = [answer for answer in answers if not answer["ok"]]
        by_arm = {arm: sum(answer["arm"] == arm for answer in answers) for arm in ("baseline", "candidate")}
        self._say(f"\nusers: {len(answers)} answers ({by_arm}), {len(failed)} failed")
        if failed or not answers:
            self._seen.faults.append(f"users saw {len(failed)} errors in {len(answers)} answers: {failed[:1]}")

    async def replace(self, old: str, new: str) -> None:
        """Put another engine into the slot of one that is no longer needed."""
        if new not in self._stack.engines():
            slot = await self._stack.stop_engine(old)
            await self._stack.start_engine(new, slot)

    async def _watch(self, act: Act) -> None:
        """Print every move of the release until it ends, then keep its status and its report."""
        status = await self._until_ended(act)
        if act.ending == "rolled_back":
            status = await self._until_acknowledged(status)
        self._say(story(status))
        await self._linnet("explain", check=False)
        out = self._settings.state / "reports" / act.name
        await self._linnet("report", "--out", str(out), check=False)
        self._seen.reports.extend(sorted(out.glob("*.html")) + sorted(out.glob("*.md")))
        self._seen.faults.extend(faults(act, status))

    async def _until_ended(self, act: Act) -> dict[str, Any]:
        end, last = time.monotonic() + PATIENCE_S, ""
        while time.monotonic() < end:
            status = await self._status()
            if (line := describe(status)) != last:
                self._say(f"  {time.strftime('%H:%M:%S')}  {line}")
                last = line
            if status["phase"] in ENDS:
                return status
            await asyncio.sleep(0.5)
        self._seen.faults.append(f"{act.name} had not ended after {PATIENCE_S:g} s: {last}")
        return await self._status()

    async def _until_acknowledged(self, status: dict[str, Any]) -> dict[str, Any]:
        """Wait a little for the last worker's acknowledgement to be on record."""
        for _ in range(20):
            if status.get("rollback"):
                break
            await asyncio.sleep(0.25)
            status = await self._status()
        return status

    async def _status(self) -> dict[str, Any]:
        answer = await self._http.get(f"/admin/v1/models/{self._settings.model}/status")
        found: dict[str, Any] = answer.json() if answer.is_success else {}
        return found

    async def _linnet(self, *arguments: str, check: bool = True) -> None:
        """Run the command line as a person would, its output shown."""
        self._say(f"$ linnet {' '.join(arguments)}")
        linnet = Path(sys.executable).with_name("linnet")
        environment = self._stack.environment()
        child = await asyncio.create_subprocess_exec(
            linnet, *arguments, "--url", self._settings.control_url, env=environment,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        try:
            said, _ = await child.communicate()
        except asyncio.CancelledError:
            child.terminate()
            await child.wait()
            raise
        for line in said.decode().rstrip().splitlines():
            self._say(f"  {line}")
        if check and child.returncode:
            raise EngineError(f"`linnet {arguments[0]}` ended with {child.returncode}; its own words are above")


def describe(status: dict[str, Any]) -> str:
    """Say in one line where a release stands."""
    if not status:
        return "no release yet"
    share = (status.get("desired") or {}).get("candidate", 0)
    overlays = status.get("overlays") or {}
    held = overlays.get("held") or ""
    return f"{status['phase']:<12} candidate {share:>4.0%}   generation {status['generation']}" + (
        f"   held: {held}" if held else ""
    )


def story(status: dict[str, Any]) -> str:
    """Tell a release's timeline from its audit: seconds since its start, what, where to, and why."""
    events = status.get("timeline") or []
    start = events[0]["unix_ms"] if events else 0
    lines = [f"\ntimeline of {status.get('release')}"]
    for event in events:
        place = f"{event['phase']} {event['percent']:g} %" if event["percent"] is not None else event["phase"]
        lines.append(f"  {(event['unix_ms'] - start) / 1000:7.1f} s  {event['what']:<12} {place:<16} {event['why']}")
    if back := status.get("rollback"):
        lines.append(
            f"  breach -> decision {back['breach_to_decision_ms']} ms -> all {back['workers']} workers acknowledged "
            f"{back['breach_to_acknowledged_ms']} ms"
        )
    return "\n".join(lines) + "\n"


def faults(act: Act, status: dict[str, Any]) -> list[str]:
    """Name whatever is not as it should be at an act's end."""
    found = []
    if status.get("phase") != act.ending:
        found.append(f"{act.name} ended as {status.get('phase')}, not {act.ending}: {status.get('reason')}")
    if act.ending == "rolled_back" and not status.get("rollback"):
        found.append(f"{act.name}: no record of every worker's acknowledgement")
    return found
