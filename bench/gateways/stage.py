"""What every peer meets: two pretended engines, the generators, and the cores all of them run on."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.gateways.machine import free_ports, pinned
from bench.gateways.scenarios import Scenario, body
from bench.gateways.tools import WRK_SCRIPT, build

BASELINE, CANDIDATE = "baseline", "candidate"
_END_S = 10.0
_LATE_S = 40.0


@dataclass(frozen=True, slots=True)
class Cores:
    """Whose core is whose; None where nothing is pinned."""

    proxy: int | None
    load: int | None


@dataclass(frozen=True, slots=True)
class Stage:
    """The engines that run, and where everything lies."""

    folder: Path
    cores: Cores
    engine: subprocess.Popen[bytes]
    ports: tuple[int, ...]
    streams: Path

    def pace(self, scenario: Scenario) -> None:
        """Set the engines' pace."""
        asked = {
            "first_us": scenario.first_us,
            "gap_us": scenario.gap_us,
            "tokens": scenario.tokens,
            "reply": scenario.reply,
            "step": int(scenario.step),
        }
        fetch(self.ports[0], f"/_set?{'&'.join(f'{name}={value}' for name, value in asked.items())}", "POST")

    def counts(self) -> list[dict[str, int]]:
        """Return what each engine has answered so far: requests, streams, chunks, abandoned."""
        counted: list[dict[str, int]] = json.loads(fetch(self.ports[0], "/_count")[1])
        return counted

    def drive(self, scenario: Scenario, port: int, path: str, model: str, headers: Mapping[str, str]) -> dict[str, Any]:
        """Send one scenario's traffic to a port; return what the generator says. Raises BenchError if it fails."""
        self.pace(scenario)
        asked = self.folder / "body.json"
        asked.write_bytes(body(scenario, model))
        argv, env = (
            (self._streams(scenario, port, path, headers, asked), {})
            if scenario.streamed
            else (_wrk(scenario, port, path), _wrk_env(scenario, headers, asked))
        )
        done = subprocess.run(
            pinned(argv, self.cores.load),
            env={**os.environ, **env},
            capture_output=True,
            text=True,
            check=False,
            timeout=scenario.seconds + scenario.grace_s + _LATE_S,
        )
        try:
            said: dict[str, Any] = json.loads(done.stdout.rsplit("JSON ", 1)[-1])
        except ValueError:
            raise BenchError(f"the generator failed: {done.stdout[-200:]} {done.stderr[-200:]}".strip()) from None
        return said

    def _streams(self, scenario: Scenario, port: int, path: str, headers: Mapping[str, str], asked: Path) -> list[str]:
        options = {
            "port": port,
            "path": path,
            "body": asked,
            "lines": scenario.lines,
            "seconds": scenario.seconds,
            "tokens": scenario.tokens,
            "ramp-ms": scenario.ramp_ms,
            "warm-ms": scenario.warm_ms,
            "grace": scenario.grace_s,
        }
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        more = [word for name, value in headers.items() for word in ("--header", f"{name}: {value}")]
        return [str(self.streams), *words, *more]


def _wrk(scenario: Scenario, port: int, path: str) -> list[str]:
    load = [f"-c{scenario.lines}", f"-d{scenario.seconds:g}s", "--timeout", "20s", "--latency"]
    return ["wrk", "-t1", *load, "-s", str(WRK_SCRIPT), f"http://127.0.0.1:{port}{path}"]


def _wrk_env(scenario: Scenario, headers: Mapping[str, str], asked: Path) -> dict[str, str]:
    lines = "\n".join(f"{name}: {value}" for name, value in headers.items())
    return {"BENCH_BODY": str(asked), "BENCH_HEADERS": lines, "BENCH_USERS": str(scenario.users)}


@contextmanager
def stage(folder: Path, cores: Cores, candidates: int = 1) -> Iterator[Stage]:
    """Build the tools and run the engines (the first is the baseline) for as long as the block lasts."""
    program, streams = build(folder)
    ports = tuple(free_ports(1 + candidates))
    named = [f"{port}:{CANDIDATE if at else BASELINE}" for at, port in enumerate(ports)]
    engine = subprocess.Popen(pinned([program, *named], cores.load), start_new_session=True)
    try:
        await_ready(ports[0], "/health", 10.0, engine)
        yield Stage(folder, cores, engine, ports, streams)
    finally:
        engine.terminate()
        engine.wait(_END_S)


def fetch(port: int, path: str, method: str = "GET", timeout_s: float = 5.0) -> tuple[int, bytes]:
    """Ask a local port once; return status and body."""
    line = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        line.request(method, path)
        answer = line.getresponse()
        return answer.status, answer.read()
    finally:
        line.close()


def await_ready(port: int, path: str, most_s: float, process: subprocess.Popen[bytes]) -> None:
    """Wait until a port answers below 500. Raises BenchError if the process ends or the time is over."""
    end = time.monotonic() + most_s
    while time.monotonic() < end:
        try:
            if fetch(port, path, timeout_s=2.0)[0] < 500:
                return
        except (OSError, http.client.HTTPException):
            pass
        if process.poll() is not None:
            raise BenchError("the process ended before it was ready")
        time.sleep(0.05)
    raise BenchError(f"not ready after {most_s:g} s")
