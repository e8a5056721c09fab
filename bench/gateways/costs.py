"""What each feature costs, and whether the cost of a request grows with models and replicas.

`python -m bench.gateways.costs [--rounds N]` writes bench/results/costs.md, and costs.json with every sample. Each
round starts our gateway in every shape once; a difference is taken within its round.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from math import isnan, nan
from pathlib import Path
from statistics import median

from bench.errors import BenchError
from bench.gateways.alone import alone
from bench.gateways.linnet import MODEL
from bench.gateways.measure import measured, warm
from bench.gateways.ours import gateway
from bench.gateways.scenarios import SCENARIOS, USER, Scenario
from bench.gateways.stage import Cores, Stage, stage
from bench.gateways.tools import check

REPLICAS, MODELS = 100, 1000
_WHOLE = replace(SCENARIOS["S1c64"], seconds=4)
_OUT = Path(__file__).parents[1] / "results" / "costs.md"
USUAL = "everything"


@dataclass(frozen=True, slots=True)
class Shape:
    """One way to run our gateway: words for its launcher, and who asks it."""

    words: tuple[str, ...] = ()
    replicas: int = 1
    model: str = MODEL
    users: int = _WHOLE.users

    @property
    def scenario(self) -> Scenario:
        """Return the traffic."""
        return replace(_WHOLE, users=self.users)


FEATURES: Mapping[str, Shape] = {
    USUAL: Shape(),
    "without keys and limits": Shape(("--without", "keys,limits")),
    "without limits": Shape(("--without", "limits")),
    "without tallies": Shape(("--without", "tallies")),
    "without slots": Shape(("--without", "slots")),
    "without any of these": Shape(("--without", "keys,limits,tallies,slots")),
    "and an access log": Shape(("--with", "log")),
    "and a shadow of 10 %": Shape(("--with", "shadow")),
    "and traces (OpenTelemetry)": Shape(("--with", "otel")),
}
SCALES: Mapping[str, Shape] = {
    "10 replicas": Shape(replicas=10),
    f"{REPLICAS} replicas": Shape(replicas=REPLICAS),
    "10 replicas, affinity": Shape(("--with", "affinity"), replicas=10),
    f"{REPLICAS} replicas, affinity": Shape(("--with", "affinity"), replicas=REPLICAS),
    "1 model, asked by number": Shape(("--models", "1"), model=USER, users=1),
    f"{MODELS:,} models, one of them asked": Shape(("--models", str(MODELS)), model=USER, users=1),
    f"{MODELS:,} models, asked in turn": Shape(("--models", str(MODELS)), model=USER, users=MODELS),
}
SHAPES = {**FEATURES, **SCALES}

Samples = dict[str, list[float]]  # shape -> CPU us a request, one a round; NaN where it failed


def cost(name: str, scene: Stage) -> float:
    """Return the CPU microseconds of one whole request in a shape. Raises BenchError if an answer is an error."""
    shape = SHAPES[name]
    with gateway(scene, "linnet", shape.words, model=shape.model, replicas=shape.replicas) as target:
        warm(target, scene, [shape.scenario])
        row = measured(target, scene, shape.scenario)
    if row["errors"]:
        raise BenchError(f"{name}: {row['errors']} errors")
    return float(row["cpu_s"]) / float(row["answers"]) * 1e6


def run(rounds: int, cores: Cores, names: Sequence[str]) -> Samples:
    """Measure every shape in every round, each round in another order."""
    samples: Samples = {name: [] for name in names}
    with (
        tempfile.TemporaryDirectory(prefix="lb-", ignore_cleanup_errors=True) as folder,
        stage(Path(folder), cores, candidates=REPLICAS) as scene,
    ):
        for number in range(rounds):
            for name in names if number % 2 == 0 else reversed(names):
                try:
                    samples[name].append(cost(name, scene))
                except BenchError as error:
                    samples[name].append(nan)
                    sys.stderr.write(f"bench: {name}: {error}\n")
                sys.stderr.write(f"bench: round {number + 1}, {name}: {samples[name][-1]:.1f} us\n")
    return samples


def table(samples: Samples, names: Sequence[str], reference: str = USUAL) -> str:
    """Return one row a shape: the median, and the median difference to the reference in the same round."""
    lines = ["| | µs of CPU a request | more than with everything, µs |", "|---|---:|---:|"]
    base = samples.get(reference, [])
    for name in names:
        pairs = [(own, its) for own, its in zip(samples[name], base, strict=False) if not isnan(own - its)]
        if not pairs:
            lines.append(f"| {name} | failed | |")
            continue
        more = sorted(own - its for own, its in pairs)
        told = "" if name == reference else f"{median(more):+.1f} ({more[0]:+.1f} to {more[-1]:+.1f})"
        lines.append(f"| {name} | {median(own for own, _ in pairs):.1f} | {told} |")
    return "\n".join(lines)


def page(samples: Samples, now: datetime) -> str:
    """Return the results as a page."""
    features = [name for name in FEATURES if name in samples]
    scales = [name for name in SCALES if name in samples]
    rounds = max(len(values) for values in samples.values())
    return f"""# What a feature costs

{now:%Y-%m-%d}, {os.cpu_count()} cores. Made by `python -m bench.gateways.costs --rounds {rounds}`; \
[every sample](costs.json).
CPU of the gateway's processes over whole requests (1 KB prompt, {_WHOLE.lines} connections, one worker), medians of \
{rounds} rounds; differences within a round, least to most in parentheses.

{table(samples, features)}

"Everything": an API key with limits per minute and a budget per day, set high; tallies of each answer's usage, cost
and times, flushed to a real Valkey; metrics; slots; a sticky 90/10 split, pushed anew each second. Metrics cannot be
left out.

## Does it grow?

{table(samples, scales)}

Each of {MODELS:,} models has its own release, split and tallies; a flush takes those of 128 attempts, four times a
second. What is dearer when they are asked in turn is memory that has gone cold, and each model's first requests.
Replicas are different ports of one pretended engine.
"""


def main() -> int:
    """Measure and write; 1 if there is no measurement."""
    parser = argparse.ArgumentParser(prog="python -m bench.gateways.costs", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--shapes", default="", help=f"only these, semicolons between them, of {'; '.join(SHAPES)}")
    parser.add_argument("--cores", default="0,1", help="the proxy's core and everybody else's")
    parser.add_argument("--out", type=Path, default=_OUT)
    told = parser.parse_args()
    try:
        check()
        with alone():
            names = [name for name in SHAPES if not told.shapes or name in told.shapes.split(";")]
            samples = run(told.rounds, Cores(*map(int, told.cores.split(","))), names)
    except (BenchError, OSError) as error:
        sys.stderr.write(f"bench: {error}\n")
        return 1
    told.out.with_suffix(".json").write_text(json.dumps(samples, indent=1) + "\n")
    told.out.write_text(page(samples, datetime.now(UTC)))
    print(told.out.read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
