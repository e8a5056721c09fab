"""Memory: flat over a million requests, and how much an idle stream holds. `python -m bench.gateways.soak`.

Writes bench/results/soak.md, and soak.json with every sample.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import threading
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from bench.errors import BenchError
from bench.gateways.alone import alone
from bench.gateways.machine import usage_of
from bench.gateways.measure import warm
from bench.gateways.ours import gateway
from bench.gateways.running import Running
from bench.gateways.scenarios import SCENARIOS, Scenario
from bench.gateways.stage import Cores, Stage, stage
from bench.gateways.tools import check

REQUESTS, STREAMS = 1_000_000, 10_000
_STEP_S = 5
_SPARE_FILES = 200  # of a worker, for everything but streams
_FILES_A_STREAM = 2  # the client's connection and the engine's
_IDLE_S = 15
_RAMP_S = 12
_LOOK_S = 0.5
_MB = 2**20
_OUT = Path(__file__).parents[1] / "results" / "soak.md"


@dataclass(frozen=True, slots=True)
class Sample:
    """The worker's resident bytes once `requests` were answered."""

    requests: int
    rss: int


@dataclass(frozen=True, slots=True)
class Idle:
    """Streams that were open at once: the worker's resident bytes before and at most; how they ended."""

    streams: int
    whole: int
    before: int
    most: int
    after: int

    @property
    def each(self) -> float:
        """Resident bytes a stream."""
        return (self.most - self.before) / self.streams


def worker(target: Running) -> int:
    """Return the pid of the gateway's one worker: its parent has the session's number."""
    (pid,) = (pid for pid in target.usage().pids if pid != target.session)
    return pid


def drive(target: Running, scene: Stage, scenario: Scenario) -> dict[str, int]:
    """Send traffic; return the generator's counts. Raises BenchError if anything went wrong."""
    peer = target.peer
    said = scene.drive(scenario, target.port, peer.path, peer.model, target.headers)
    if said["errors"] or said.get("short"):
        raise BenchError(f"{said['errors']} errors and {said.get('short', 0)} streams cut short")
    return said


def requests(target: Running, scene: Stage, count: int) -> list[Sample]:
    """Ask for whole answers until there were so many; look at the memory every few seconds."""
    pid = worker(target)
    samples = [Sample(0, usage_of(pid).rss)]
    while samples[-1].requests < count:
        done = drive(target, scene, replace(SCENARIOS["S1c64"], seconds=_STEP_S))["requests"]
        samples.append(Sample(samples[-1].requests + done, usage_of(pid).rss))
        sys.stderr.write(f"bench: {samples[-1].requests:,} requests, {samples[-1].rss / _MB:.1f} MB\n")
    return samples


def idle(target: Running, scene: Stage, count: int) -> Idle:
    """Open so many streams that say something every 15 seconds; all are to end well."""
    pid, end = worker(target), threading.Event()
    before, seen = usage_of(pid).rss, [0]

    def look() -> None:
        while not end.wait(_LOOK_S):
            seen.append(usage_of(pid).rss)

    looking = threading.Thread(target=look)
    looking.start()
    pause = _IDLE_S * 1_000_000
    scenario = Scenario(
        count,
        _RAMP_S + 1,
        streamed=True,
        tokens=3,
        first_us=pause,
        gap_us=pause,
        ramp_ms=_RAMP_S * 1000,
        grace_s=5 * _IDLE_S,
    )
    try:
        said = drive(target, scene, scenario)
    finally:
        end.set()
        looking.join()
    return Idle(said["most_open"], said["streams"], before, max(seen), usage_of(pid).rss)


def most_streams() -> int:
    """Return how many streams one worker can hold under this machine's limit of open files, at most 10,000."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return STREAMS if hard == resource.RLIM_INFINITY else min(STREAMS, (hard - _SPARE_FILES) // _FILES_A_STREAM)


def page(samples: list[Sample], streams: Idle, now: datetime) -> str:
    """Return the results as a page."""
    marks = [next(sample for sample in samples if sample.requests >= part * samples[-1].requests) for part in _PARTS]
    rows = "\n".join(f"| {sample.requests:,} | {sample.rss / _MB:.1f} |" for sample in marks)
    limited = "" if streams.streams >= STREAMS else " (as many as the limit of open files allows here)"
    return f"""# Memory of one worker

{now:%Y-%m-%d}. Made by `python -m bench.gateways.soak`; [every sample](soak.json). Everything on, as in
[gateways.md](gateways.md).

## Whole requests

| requests answered | resident, MB |
|---:|---:|
{rows}

## Idle streams

{streams.streams:,} streams open at once on one worker{limited}, each with a token every {_IDLE_S} s; \
{streams.whole:,} ended whole.

| | resident, MB |
|---|---:|
| before | {streams.before / _MB:.1f} |
| all open | {streams.most / _MB:.1f} |
| a stream | {streams.each / 1024:.1f} KB |
| after | {streams.after / _MB:.1f} |
"""


_PARTS = (0.0, 0.01, 0.1, 0.25, 0.5, 0.75, 1.0)


def main() -> int:
    """Measure and write; 1 if there is no measurement."""
    parser = argparse.ArgumentParser(prog="python -m bench.gateways.soak", description=__doc__)
    parser.add_argument("--requests", type=int, default=REQUESTS)
    parser.add_argument("--streams", type=int, default=most_streams())
    parser.add_argument("--cores", default="0,1", help="the proxy's core and everybody else's")
    parser.add_argument("--out", type=Path, default=_OUT)
    told = parser.parse_args()
    try:
        check()
        cores = Cores(*map(int, told.cores.split(",")))
        with (
            alone(),
            tempfile.TemporaryDirectory(prefix="lb-", ignore_cleanup_errors=True) as folder,
            stage(Path(folder), cores) as scene,
        ):
            with gateway(scene, "linnet") as target:
                warm(target, scene, [SCENARIOS["S2"]])
                streams = idle(target, scene, told.streams)
            with gateway(scene, "linnet") as target:
                samples = requests(target, scene, told.requests)
    except (BenchError, OSError) as error:
        sys.stderr.write(f"bench: {error}\n")
        return 1
    raw = {"requests": [[sample.requests, sample.rss] for sample in samples], "idle": _plain(streams)}
    told.out.with_suffix(".json").write_text(json.dumps(raw, indent=1) + "\n")
    told.out.write_text(page(samples, streams, datetime.now(UTC)))
    print(told.out.read_text())
    return 0


def _plain(streams: Idle) -> dict[str, int]:
    return {name: getattr(streams, name) for name in ("streams", "whole", "before", "most", "after")}


if __name__ == "__main__":
    sys.exit(main())
