"""`linnet loadtest SPEC`: each arm in turn under the spec's load, then a report and its verdict."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

import typer

from canary.card.spec import Spec, load
from canary.console import options
from canary.console.client import Client, connect
from canary.console.options import DEFAULT_URL, Json, Store, Url
from loadtest.errors import ControlError
from loadtest.gates import Limits, Verdict, judged
from loadtest.records import Job, Saturation
from loadtest.report import Run, report
from loadtest.runner import run
from loadtest.schedule import load_workload

DEFAULT_GATEWAY = "http://127.0.0.1:8080"
_WARMUP_S = 2.0
_PUBLISHED_S = 5.0  # how long a release that has just begun may take to be routed
_LOOK_S = 0.25
_EXIT = {Verdict.PASS: 0, Verdict.FAIL: 1, Verdict.INVALID: 3}
_PER_ARM = (
    "arm",
    "rate",
    "achieved",
    "lag_p99_ms",
    "ttft",
    "tpot",
    "e2e",
    "goodput",
    "capacity",
    "usd_per_million_tokens",
    "valid",
)


class Which(StrEnum):
    """Which arms are run."""

    BASELINE = "baseline"
    CANDIDATE = "candidate"
    BOTH = "both"

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms in the order they run."""
        return ("baseline", "candidate") if self is Which.BOTH else (self.value,)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is run: the spec's load, as changed on the command line."""

    spec: Spec
    workload: Path
    rate: float
    duration: float  # seconds
    gateway: str
    digests: Mapping[str, str]  # by arm
    folder: Path


def loadtest(
    spec: Annotated[Path, typer.Argument(help="The release spec (YAML).")],
    *,
    gateway: Annotated[str, typer.Option(envvar="LINNET_GATEWAY_URL", help="The gateway.")] = DEFAULT_GATEWAY,
    rate: Annotated[float | None, typer.Option(min=0.001, help="Requests a second, else the spec's.")] = None,
    duration: Annotated[
        str | None, typer.Option(help="How long each arm is measured (20s, 5m), else the spec's.")
    ] = None,
    arm: Annotated[Which, typer.Option(help="Which arms to run.")] = Which.BOTH,
    url: Url = DEFAULT_URL,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Load both arms through the gateway; the report opens preflight's load gate."""
    client = connect(url, store)
    plan = _plan(load(spec), client, gateway, rate, duration)
    limits = _limits(plan.spec)
    runs = {name: _run(plan, name) for name in arm.arms}
    made = report(
        plan.spec.model,
        str(plan.workload),
        runs,
        limits,
        digest=plan.digests[judged({name: {} for name in runs})],
        created_ms=time.time_ns() // 1_000_000,
    )
    path = _keep(plan, made)
    client.put_report(plan.spec.model, "load", made["digest"], made, options.actor())
    typer.echo(json.dumps(_flat(made), indent=2) if as_json else text(made, path))
    raise typer.Exit(_EXIT[Verdict(made["verdict"])])


def text(made: Mapping[str, Any], path: Path) -> str:
    """Put a report into a few lines: one an arm, the verdict, where the file is."""
    lines = [_arm_line(arm, figures) for arm, figures in made["arms"].items()]
    return "\n".join([*lines, f"{made['verdict']}: {'; '.join(made['reasons'])}", f"report: {path}"])


def _arm_line(arm: str, figures: Mapping[str, Any]) -> str:
    ttft, tpot = figures["ttft"]["p95"], figures["tpot"]["p95"]
    cost = figures["usd_per_million_tokens"]
    shown = [
        f"{figures['sent']} sent, {figures['failed']} failed",
        f"ttft p95 {'-' if ttft is None else f'{ttft:.0f} ms'}",
        f"tpot p95 {'-' if tpot is None else f'{tpot:.1f} ms'}",
        f"{figures['throughput_tokens_per_s']:.1f} token/s served",
        f"{figures['capacity']['completion_tokens_per_s']:.1f} token/s at capacity",
        f"{'-' if cost is None else f'{cost:.4g}'} USD/million",
        f"lag p99 {figures['lag_p99_ms'] or 0:.1f} ms",
    ]
    return f"{arm:<10}{' | '.join(shown)}"


def _flat(made: Mapping[str, Any]) -> dict[str, Any]:
    """The report with the judged arm's main figures on top, as the contract names them."""
    figures = made["arms"][judged(made["arms"])]
    return {**made, **{name: figures[name] for name in _PER_ARM}}


def _plan(spec: Spec, client: Client, gateway: str, rate: float | None, duration: str | None) -> Plan:
    gate = spec.gates.load
    workload = spec.resolve(gate.workload)
    load_workload(workload)
    return Plan(
        spec=spec,
        workload=workload,
        rate=rate or gate.rate,
        duration=_seconds(duration) if duration else gate.duration,
        gateway=gateway,
        digests=_digests(client, spec),
        folder=_folder(),
    )


def _limits(spec: Spec) -> Limits:
    gate = spec.gates.load
    return Limits(
        slo={name: 1000 * seconds for name, seconds in gate.slo.items()},
        max_usd_per_million_tokens=gate.max_usd_per_million_tokens,
        max_cost_ratio=gate.max_cost_ratio,
        max_lag_p99_ms=1000 * gate.max_lag_p99,
    )


def _run(plan: Plan, arm: str) -> Run:
    gate, card = plan.spec.gates.load, getattr(plan.spec.arms, arm)
    asked = Saturation(gate.saturation.in_flight, gate.saturation.duration)
    sys.stderr.write(
        f"{arm}: {plan.rate:g} requests/s for {plan.duration:g} s after {_WARMUP_S:g} s of warm-up, "
        f"then {asked.in_flight} at a time for {asked.duration:g} s\n"
    )
    job = Job(
        gateway=plan.gateway,
        model=plan.spec.model,
        workload=str(plan.workload),
        out=str(plan.folder / f"{arm}.jsonl"),
        rate=plan.rate,
        duration=plan.duration,
        max_tokens=gate.max_tokens,
        session=uuid4().hex,
        arm=arm,
        warmup=_WARMUP_S,
        saturation=asked,
    )
    scheduled, saturated = run(job, plan.folder, arm)
    return Run(job, scheduled, saturated, card.engine, plan.digests[arm], card.usd_per_hour, card.rates)


def _digests(client: Client, spec: Spec) -> dict[str, str]:
    """Return each arm's digest as it is routed now; a release that has just begun gets a moment to be published.

    Raises ControlError (refused) where the spec's release is not under way: its candidate could not be reached.
    """
    deadline = time.monotonic() + _PUBLISHED_S
    while True:
        state = client.material(spec.model)
        split = state.get("split") or {}
        if split.get("release") == spec.release and split.get("candidate"):
            return {arm: str(split[arm].get("digest") or "") for arm in ("baseline", "candidate")}
        if time.monotonic() > deadline:
            break
        time.sleep(_LOOK_S)
    running = split.get("release") if split.get("candidate") else None
    found = f"the release under way is {running}" if running else "no release is under way"
    raise ControlError(f"{spec.release}: {found}; run `linnet start {spec.where}` first", 1)


def _seconds(text_: str) -> float:
    return options.duration(text_, "--duration")


def _state() -> Path:
    return Path(os.environ.get("LINNET_STATE") or ".linnet")


def _folder() -> Path:
    folder = _state() / "loadtest" / f"{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder.resolve()


def _keep(plan: Plan, made: Mapping[str, Any]) -> Path:
    folder = _state() / "reports"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"load-{plan.spec.model}-{made['created_ms']}.json"
    path.write_text(json.dumps(made, indent=2), encoding="utf-8")
    return path
