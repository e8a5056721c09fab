"""What the whole-stack tests say again and again: begin a release, wait for a place, read the audit."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

import httpx

from tests.e2e.specs import LONG, write_spec
from tests.support.stack import LocalStack, until


def in_canary(stack: LocalStack, release: str = "long") -> dict[str, Any]:
    """Start a release without gates and wait until its candidate has half of the traffic; users must be there."""
    spec = write_spec(stack.folder, release, steps=LONG)
    started = stack.linnet("start", spec, "--reason", "to the canary", "--json")
    assert started.code == 0, started
    _pass_the_gate(stack, json.loads(started.out)["digest"])
    waited = stack.linnet("status", "--wait", "canary", "--timeout", "30s", "--json")
    assert waited.code == 0, waited
    return until(lambda: settled(stack), "every worker's acknowledgement of the canary")  # type: ignore[no-any-return]


def _pass_the_gate(stack: LocalStack, digest: str) -> None:
    """Hand in a load report as `linnet loadtest` does; tests/e2e/test_release.py runs the real one, half a minute."""
    arm = {"price": [0.0, 1e-6, 1e-6], "seconds": 2.0}
    _hand_in(stack, "load", digest, reasons=[], arms={"baseline": arm, "candidate": arm})


def prove_success(stack: LocalStack) -> None:
    """Hand in an evaluation as `linnet eval` does: simulated engines have learned nothing that it could measure."""
    score = {"accuracy": 0.5, "perplexity": 9.0}
    numbers = {"difference": 0.05, "low": 0.03, "high": 0.07, "passages": 60}
    slices = {"domain": {"baseline": score, "candidate": score, **numbers}}
    _hand_in(stack, "eval", stack.status()["digest"], slices=slices)


def _hand_in(stack: LocalStack, kind: str, digest: str, **more: Any) -> None:
    report = {"kind": kind, "model": "mathdocs", "digest": digest, "verdict": "pass"}
    report |= {"created_ms": int(time.time() * 1000), **more}
    url = f"{stack.control}/admin/v1/models/mathdocs/reports/{kind}/{digest}"
    httpx.put(url, json=report, trust_env=False).raise_for_status()


def answered(stack: LocalStack, engine: str) -> int:
    """Return how many answers a simulated engine has finished."""
    url = f"http://127.0.0.1:{engine_ports(stack)[engine]}/simulated"
    return int(httpx.get(url, trust_env=False).json()["counts"].get("finished", 0))


def settled(stack: LocalStack) -> dict[str, Any] | None:
    """Return the status once both workers live and route by it."""
    status = stack.status()
    workers = status.get("workers", {})
    return status if workers.get("live") == workers.get("acknowledged") == 2 else None


def place(status: Mapping[str, Any]) -> tuple[Any, ...]:
    """Where a release stands: what must survive any crash."""
    names = ("release", "attempt", "phase", "step", "stage", "percent", "generation", "desired", "digest")
    return tuple(status[name] for name in names)


def audit(stack: LocalStack) -> list[dict[str, Any]]:
    """Return the audit's entries."""
    said = stack.linnet("audit", "--json")
    assert said.code == 0, said
    entries: list[dict[str, Any]] = json.loads(said.out)
    return entries


def engine_ports(stack: LocalStack) -> dict[str, int]:
    """Return where each engine listens; the first slot is the baseline's on an empty store."""
    first = stack.ports["ENGINE_PORT"]
    return {"base": first, "math-w8a8": first + 1}


def acknowledged(stack: LocalStack) -> dict[str, Any] | None:
    """Return the audit's record of the way back, in Unix milliseconds, once every worker has acknowledged it."""
    found = [entry for entry in audit(stack) if entry["what"] == "acknowledged"]
    evidence = found[-1]["evidence"] if found else None
    record: dict[str, Any] | None = json.loads(evidence) if isinstance(evidence, str) else evidence
    return record
