"""Roll back again and again, under load, and tell how long each took: `python -m bench.rollback`.

Writes bench/results/rollback.md. Takes ten minutes.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import signal
import sys
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from redis import RedisError

from bench.errors import BenchError
from bench.rollback.scene import CONNECTIONS, LOOK_S, WORKERS, Scene, scene
from canary.errors import LinnetError

ROUNDS, WITHOUT = 120, 10
PLAINLY, PARTLY = 1.0, 0.4  # shares of failing answers: one that trips the workers, one that only the sums tell
_RESULTS = Path(__file__).parent.parent / "results" / "rollback.md"
_BUCKET = re.compile(r'linnet_rollback_seconds_bucket\{le="([^"]+)",span="acknowledged"\} (\S+)')


@dataclass(frozen=True, slots=True)
class Way:
    """One way back, in milliseconds from the breach; `by` says who saw it."""

    by: str
    decision: float
    acknowledged: float


def official(plant: Scene, rounds: int) -> list[Way]:
    """Roll back by the tripwire and by the guardrail in turn, everything alive; from the audit."""
    ways = []
    for number in range(rounds):
        plant.exposed()
        plant.candidate(error_rate=PARTLY if number % 2 else PLAINLY)
        told = plant.taken_back()
        if told["workers"] != WORKERS:
            raise BenchError(f"{told['workers']} workers were asked, not {WORKERS}")
        by = "tripwire" if plant.status()["reason"].startswith("tripwire") else "guardrail"
        ways.append(Way(by, told["breach_to_decision_ms"], told["breach_to_acknowledged_ms"]))
        plant.candidate(error_rate=0)
        plant.say("retry", f"round {number + 2}")
        print(f"\r{number + 1} of {rounds}", end="", file=sys.stderr)
    return ways


def alone(plant: Scene, dead: str, rounds: int) -> list[float]:
    """Stop a process, then break the candidate: seconds until nobody asks it any more."""
    took = []
    for number in range(rounds):
        plant.exposed()
        plant.signal(dead, signal.SIGSTOP)
        try:
            began = time.time()
            plant.candidate(error_rate=PLAINLY)
            took.append(plant.silent_since() - began)
        finally:
            plant.signal(dead, signal.SIGCONT)
        plant.taken_back()
        plant.candidate(error_rate=0)
        plant.say("retry", f"{dead} {number}")
        print(f"\r{dead} {number + 1} of {rounds}  ", end="", file=sys.stderr)
    return took


def exported(plant: Scene) -> list[tuple[str, int]]:
    """Return the exported histogram: how many ways back took at most so many seconds."""
    with urllib.request.urlopen(f"{plant.control_url}/metrics", timeout=5) as answer:  # noqa: S310
        return [(le, int(float(count))) for le, count in _BUCKET.findall(answer.read().decode())]


def words(
    ways: Sequence[Way], dead: dict[str, list[float]], buckets: Sequence[tuple[str, int]], users: str, busy: float
) -> str:
    """Return the results as a page."""
    kinds = ("all", "tripwire", "guardrail")
    rows = "\n".join(_row(kind, [way for way in ways if kind in ("all", way.by)]) for kind in kinds)
    without = "\n".join(
        f"| {name} | {len(took)} | {_ms(took, 0.5)} | {max(took) * 1e3:.0f} |" for name, took in dead.items()
    )
    shown = [(le, count) for le, count in buckets if count]
    first = next((at for at, (_, count) in enumerate(shown) if count == shown[-1][1]), 0)
    histogram = ", ".join(f"{count} within {le} s" for le, count in shown[: first + 1])
    return f"""# The way back

{datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}, {os.cpu_count()} cores shared by everything; load \
average before the run {busy:.1f}. Made by `python -m bench.rollback`.

A gateway of {WORKERS} workers, a control plane, a real Valkey, two simulated engines; {CONNECTIONS} users in a closed
loop, half of them the candidate's. {users}

## Everything alive

From the breach to the last worker's acknowledgement, decision included, as the audit tells it; milliseconds.

| seen by | rollbacks | decision p50 | p99 | last worker p50 | p99 | most |
|---|---:|---:|---:|---:|---:|---:|
{rows}

The exported histogram `linnet_rollback_seconds{{span="acknowledged"}}` says: {histogram}.

The breach is the moment at which a worker's tripwire fired, or at which the controller read the sums that failed. Every
rollback is of an attempt of its own. The controller looks every {LOOK_S:g} s here, not every second: that shortens the
time between the rounds, and none of the spans.

## Without the control plane, without the store

From the moment at which every answer of the candidate fails to the last request that any worker sent it: what {WORKERS}
workers need to see it, each for itself, and to leave it. Milliseconds.

| stopped | rounds | p50 | most |
|---|---:|---:|---:|
{without}
"""


def _row(kind: str, ways: Sequence[Way]) -> str:
    decided, heard = [way.decision / 1e3 for way in ways], [way.acknowledged / 1e3 for way in ways]
    numbers = (_ms(decided, 0.5), _ms(decided, 0.99), _ms(heard, 0.5), _ms(heard, 0.99), f"{max(heard) * 1e3:.0f}")
    return f"| {kind} | {len(ways)} | {' | '.join(numbers)} |"


def _ms(seconds: Sequence[float], part: float) -> str:
    """Return a quantile in milliseconds, the larger neighbour where it falls between two."""
    ordered = sorted(seconds)
    return f"{ordered[min(len(ordered) - 1, int(part * len(ordered)))] * 1e3:.0f}"


def main() -> int:
    """Measure and write; 1 if the run is no measurement or the way back takes a second."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=ROUNDS)
    options.add_argument("--without", type=int, default=WITHOUT)
    chosen, busy = options.parse_args(), os.getloadavg()[0]
    try:
        with scene() as plant:
            ways = official(plant, chosen.rounds)
            buckets = exported(plant)
            dead = {
                f"the {name}": alone(plant, pid, chosen.without)
                for name, pid in (("control plane", "control"), ("store", "store"))
            }
            users = f"They had {plant.users.answered} answers, {plant.users.failed} of them errors."
    except (BenchError, LinnetError, OSError, RedisError) as error:
        sys.stderr.write(f"bench: {error}\n")
        return 1
    page = words(ways, dead, buckets, users, busy)
    _RESULTS.write_text(page)
    print(page)
    return int(sorted(way.acknowledged for way in ways)[int(0.99 * len(ways))] >= 1000)


if __name__ == "__main__":
    sys.exit(main())
