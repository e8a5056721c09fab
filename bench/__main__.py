"""Measure what the gateway costs, beside the proxy that everyone writes first: `python -m bench`.

Prints one table and writes it to bench/results/gateway.md; then the guardrails over a little made-up traffic, which is
only shown. Takes about three minutes; reads /proc, so Linux.
"""

from __future__ import annotations

import asyncio
import os
import platform
import sys
import time
from collections.abc import Coroutine
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import TypeVar

import uvloop
from redis import RedisError

from bench import load
from bench.errors import BenchError
from bench.figures import Sample, table
from bench.guardrails.__main__ import main as guardrails
from bench.processes import cpu_seconds
from bench.rig import DIRECT, OURS, PEER, Rig, Target, cores, rig

ROUNDS = 5
WHOLE, WHOLE_LINES = 1500, 16
STREAM_LINES, STREAMS_EACH = 50, 2
_WARM = 100
_SETTLE_S = 0.5  # the gateway's tallies are flushed four times a second: the flush is part of the price
_RESULTS = Path(__file__).parent / "results" / "gateway.md"
T = TypeVar("T")


def run(work: Coroutine[None, None, T]) -> T:
    """Run the client's loop until `work` is done."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def priced(target: Target, work: Coroutine[None, None, T]) -> tuple[float, T]:
    """Return the CPU seconds that the target's processes spent on `work`, and what came of it."""
    before = cpu_seconds(target.pid) if target.pid else 0.0
    done = run(work)
    time.sleep(_SETTLE_S)
    return (cpu_seconds(target.pid) if target.pid else 0.0) - before, done


def whole_round(scene: Rig, order: list[Target]) -> dict[str, float]:
    """CPU ms a whole answer, of each proxy."""
    scene.pace(0)
    proxies = [target for target in order if target.pid]
    spent = {target.name: priced(target, load.whole(target.urls, WHOLE_LINES, WHOLE))[0] for target in proxies}
    return {name: seconds / WHOLE * 1e3 for name, seconds in spent.items()}


def stream_round(scene: Rig, order: list[Target]) -> dict[str, tuple[float, float]]:
    """CPU s per 10^6 content chunks and the median TTFT in ms, of everybody."""
    scene.pace(load.GAP_MS)
    chunks = STREAM_LINES * STREAMS_EACH * load.CHUNKS
    measured = {target.name: priced(target, load.streams(target.urls, STREAM_LINES, STREAMS_EACH)) for target in order}
    return {name: (seconds / chunks * 1e6, median(ttft) * 1e3) for name, (seconds, ttft) in measured.items()}


def measure(scene: Rig) -> dict[str, list[Sample]]:
    """Warm up, then go round and round, each time in another order, so that drift falls on all alike.

    Whole answers first: right after streams, until 50 idle connections in httpx's pool expire (5 s), a whole answer
    cost the peer 3.1 ms instead of 1.2 ms, while the gateway's cost did not change.
    """
    for target in scene.targets:
        run(load.whole(target.urls, WHOLE_LINES, _WARM))
    orders = [list(scene.targets if number % 2 else reversed(scene.targets)) for number in range(ROUNDS)]
    wholes = [whole_round(scene, order) for order in orders]
    streams = [stream_round(scene, order) for order in orders]
    return {name: [_sample(name, *both) for both in zip(wholes, streams, strict=True)] for name in (OURS, PEER)}


def _sample(name: str, wholes: dict[str, float], streams: dict[str, tuple[float, float]]) -> Sample:
    chunks_s, ttft_ms = streams[name]
    return Sample(wholes[name], chunks_s, ttft_ms - streams[DIRECT][1])


def words(samples: dict[str, list[Sample]], tallied: tuple[int, int], now: datetime, busy: float) -> str:
    """Return the results as a page; `busy` is the machine's load average before the run."""
    baseline, candidate = tallied
    apart = not cores()[0] & cores()[1]
    told = f"{baseline + candidate} answers tallied, {candidate / (baseline + candidate):.1%}"
    return f"""# What the gateway costs

{now:%Y-%m-%d}, Python {platform.python_version()}, {os.cpu_count()} cores, the proxies \
{"on a core of their own" if apart else "on the same core as the client"}; load average before the run {busy:.1f}.
Made by `make bench`.

{table(samples[OURS], samples[PEER])}

Medians of {ROUNDS} interleaved rounds, least to most in parentheses; a ratio is taken within its round.

- **Linnet**: one worker and its parent, split 50/50 between two simulated engines, sticky by user, metrics on; every
  answer is read for its usage and tallied to a real Valkey ({told} by the candidate).
- **peer**: `bench/peer.py`, FastAPI and httpx as everyone writes it; it picks an engine by chance and keeps no books.
- Whole answers: 1 KB prompt, {load.WORDS} tokens at no delay, {WHOLE_LINES} connections in a closed loop, \
{WHOLE} a round.
- Streams: {STREAM_LINES} side by side, {STREAMS_EACH} after each other, {load.CHUNKS} chunks each, one every \
{load.GAP_MS:g} ms.
- All rounds of whole answers come before those of streams: with the idle connections that streams leave in its pool
  httpx costs more for whole answers, so this is the peer's better case.
- CPU: user and system seconds of the proxy's processes, children included, until {_SETTLE_S:g} s after the last
  answer: the flush of the tallies and the gateway's own beat are in it. It is counted in ticks of 10 ms.
- Added TTFT: the median less that of the engines asked directly, in the same round.

What this does not measure: throughput and tail latency, the delay of single chunks, memory, the store's own CPU,
prompts other than 1 KB, shadow traffic, several workers, TLS or a network, real engines, and any other product's proxy.
"""


def main() -> int:
    """Measure and write; 1 if the run is no measurement."""
    busy = os.getloadavg()[0]
    try:
        with rig() as scene:
            samples = measure(scene)
            tallied = scene.tallied()
    except (BenchError, OSError, RedisError) as error:
        sys.stderr.write(f"bench: {error}\n")
        return 1
    page = words(samples, tallied, datetime.now(UTC), busy)
    _RESULTS.parent.mkdir(exist_ok=True)
    _RESULTS.write_text(page)
    print(table(samples[OURS], samples[PEER]))
    return guardrails(["--quick"])


if __name__ == "__main__":
    sys.exit(main())
