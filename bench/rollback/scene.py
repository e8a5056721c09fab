"""The whole plant for rollbacks: two engines, a store, a control plane, a gateway of four workers, and users on it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import yaml
from redis import Redis

from bench.errors import BenchError
from bench.load import MODEL, Line, request
from bench.processes import announced, child
from bench.rig import store_argv, store_url, until
from canary.console.client import Http, Order
from canary.core.arms import Arm

WORKERS = 4
CONNECTIONS = 16
LOOK_S = 0.2  # only shortens the way to the canary and the wait for the confirmation, neither of which is measured
_SPEC = Path(__file__).with_name("release.yaml")
_WRITTEN = ("http://127.0.0.1:8101", "http://127.0.0.1:8102")  # where the spec says the engines are
_STARTED = re.compile(r"control plane on (http://\S+)")
_PATIENCE_S = 30.0
_SILENT_S = 2.5  # a breaker that opened asks again after one second: this is the tripwire's silence


class Users(threading.Thread):
    """Users in a closed loop, each request one of a user of its own; `failed` counts answers that were not 200."""

    def __init__(self, url: str) -> None:
        super().__init__(name="users", daemon=True)
        self.answered = self.failed = 0
        self._place = urlsplit(url)
        self._over = threading.Event()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._over.set()
        self.join(_PATIENCE_S)

    def run(self) -> None:
        """Ask until told to stop."""
        asyncio.run(self._all())

    async def _all(self) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(CONNECTIONS):
                group.create_task(self._one(number))

    async def _one(self, number: int) -> None:
        loop = asyncio.get_running_loop()
        _, line = await loop.create_connection(Line, self._place.hostname or "", self._place.port or 80)
        while not self._over.is_set():
            answer = await line.ask(request(number, stream=False))
            self.answered += 1
            self.failed += answer.status != 200
            number += CONNECTIONS
        line.close()


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything that runs."""

    engines: tuple[str, ...]
    control: Http
    control_url: str
    pids: dict[str, int]
    store: Redis
    users: Users

    def candidate(self, **behaviour: Any) -> dict[str, Any]:
        """Change how the candidate behaves; return its counts."""
        data = json.dumps(behaviour).encode() if behaviour else None
        call = urllib.request.Request(f"{self.engines[1]}/simulated", data)  # noqa: S310
        with urllib.request.urlopen(call, timeout=5) as answer:  # noqa: S310
            counts: dict[str, Any] = json.load(answer)["counts"]
        return counts

    def say(self, verb: str, reason: str) -> None:
        """Give an order."""
        self.control.command(MODEL, Order(verb, "bench", reason, ""))

    def status(self) -> dict[str, Any]:
        """Return the release's status."""
        return self.control.status(MODEL)

    def exposed(self) -> None:
        """Wait until half of the users are the candidate's, and every worker has said so."""
        _wait("the canary", lambda: _routed(self.status()))

    def taken_back(self) -> dict[str, Any]:
        """Wait until the audit tells of the last worker's acknowledgement, and return what it tells."""
        _wait("the last acknowledgement", lambda: self.status()["rollback"])
        told: dict[str, Any] = self.status()["rollback"]
        return told

    def silent_since(self) -> float:
        """Wait until nobody asks the candidate any more; return when it was asked last (Unix seconds)."""
        asked, last, seen = -1, time.time(), time.time()
        while time.time() - seen < _SILENT_S:
            count = int(self.candidate().get("started", 0))
            if count != asked:
                asked, last, seen = count, time.time(), time.time()
            time.sleep(0.005)
        return last

    def signal(self, name: str, number: signal.Signals) -> None:
        """Stop or wake a process."""
        os.kill(self.pids[name], number)


def _routed(status: dict[str, Any]) -> bool:
    workers = status["workers"]
    return bool(status["phase"] == "canary" and workers["acknowledged"] == workers["live"] == WORKERS)


def _wait(what: str, true: Any) -> None:
    end = time.monotonic() + _PATIENCE_S
    while not true():
        if time.monotonic() > end:
            raise BenchError(f"{what} did not come within {_PATIENCE_S:g} s; run on a quieter machine")
        time.sleep(0.05)


@contextmanager
def scene() -> Iterator[Scene]:
    """Run everything for as long as the block lasts."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lb-")))  # short: a socket's name is
        engines = tuple(_engine(stack, folder, arm) for arm in Arm)
        store_pid = stack.enter_context(child("store", store_argv(folder), folder)).pid
        url = store_url(folder)
        store = stack.enter_context(Redis.from_url(url, decode_responses=True))
        until("the store", lambda: bool(store.ping()))
        settings = {"LINNET_REDIS_URL": url, "LINNET_CONTROL_PORT": "0", "LINNET_LOOK_SECONDS": str(LOOK_S)}
        control_pid = stack.enter_context(child("control", [sys.executable, "-m", "canary"], folder, settings)).pid
        gateway = _gateway(stack, folder, engines[0], url)
        control_url = _announced(folder / "control.log")
        users = stack.enter_context(Users(gateway))
        found = Scene(
            engines, Http(control_url, ""), control_url, {"control": control_pid, "store": store_pid}, store, users
        )
        _start(found)
        yield found


def _engine(stack: ExitStack, folder: Path, arm: Arm) -> str:
    argv = [sys.executable, "-m", "serving.simulated", "--port=0", f"--model={MODEL}", "--ttft-ms=20", "--tpot-ms=2"]
    return announced(arm, stack.enter_context(child(arm, argv, folder)), folder)


def _gateway(stack: ExitStack, folder: Path, baseline: str, url: str) -> str:
    models = folder / "models.yaml"
    entry = {"engine": "base", "served_model": MODEL, "replicas": [baseline]}
    models.write_text(yaml.safe_dump({"models": {MODEL: entry}}))
    settings = {
        "LINNET_GATEWAY_PORT": "0",
        "LINNET_OPS_PORT": "0",
        "LINNET_WORKERS": str(WORKERS),
        "LINNET_MODELS": str(models),
        "LINNET_STATE": str(folder / "state"),
        "LINNET_REDIS_URL": url,
        "LINNET_DRAIN_SECONDS": "1",
    }
    process = stack.enter_context(child("gateway", [sys.executable, "-m", "gateway"], folder, settings))
    return announced("gateway", process, folder)


def _announced(log: Path) -> str:
    """Return where the control plane listens; it says so in its log."""
    _wait("the control plane", lambda: _STARTED.search(log.read_text()))
    found = _STARTED.search(log.read_text())
    return found[1] if found else ""


def _start(found: Scene) -> None:
    """Start the release; its load test is not what is measured here."""
    text = _SPEC.read_text()
    for written, url in zip(_WRITTEN, found.engines, strict=True):
        text = text.replace(written, url)
    arm = {"price": [0.0, 1e-6, 1e-6], "seconds": 1.0}
    report = {"kind": "load", "verdict": "pass", "created_ms": int(time.time() * 1000), "arms": dict.fromkeys(Arm, arm)}
    found.control.put_report(MODEL, "load", "d-new", report, "bench")
    found.control.start(text, _SPEC.name, Order("start", "bench", "the benchmark", ""))
