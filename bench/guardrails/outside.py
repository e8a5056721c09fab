"""Whether noise beyond the assumptions is named: `python -m bench.guardrails.outside`.

Blocks of TTFT (sd 0.5 of a request's log) at 20 requests a second, equal arms, one machine's own slow noise; the
product's own `Course` and `Reference` take them. Seeded. Writes bench/results/outside.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from canary.core.course import Course
from canary.core.location import Arm, Block
from canary.core.noise import most_noise
from canary.core.reference import Reference
from canary.core.signals import NOISE
from canary.core.tally import BLOCK_S, GROWTH

RATE, SD, BUCKET = 20.0, 0.5, 400
RUNS, REFERENCES = 200, 40
REQUESTS = 10_000  # of the candidate
MOST = most_noise(NOISE["ttft"], 1, 1)
_OUT = Path(__file__).parents[1] / "results" / "outside.md"


@dataclass(frozen=True, slots=True)
class Noise:
    """One machine's own: standard deviation in log units, correlation time in seconds."""

    name: str
    sd: float
    tau: float
    claimed: bool = True


NOISES = (
    Noise("none", 0.0, 60.0),
    *(Noise(f"as assumed, {tau / 60:g} min", NOISE["ttft"], tau) for tau in (60.0, 180.0, 600.0)),
    Noise("twice as large, 3 min", 2 * NOISE["ttft"], 180.0, claimed=False),
    Noise("three times as large, 3 min", 3 * NOISE["ttft"], 180.0, claimed=False),
    Noise("as large, 30 min", NOISE["ttft"], 1800.0, claimed=False),
)


def blocks(noise: Noise, share: float, count: int, chance: np.random.Generator) -> Iterator[Block]:
    """Yield blocks of an equal candidate whose machine has the noise."""
    keep = math.exp(-BLOCK_S / noise.tau)
    x = chance.normal(0, noise.sd)
    for number in range(count):
        candidate, baseline = (max(1, chance.poisson(RATE * BLOCK_S * part)) for part in (share, 1 - share))
        yield Block(BLOCK_S * number, _arm(candidate, x, chance), _arm(baseline, 0.0, chance))
        x = keep * x + chance.normal(0, noise.sd * math.sqrt(1 - keep * keep))


def _arm(n: int, mean: float, chance: np.random.Generator) -> Arm:
    buckets = np.ceil(BUCKET + chance.normal(mean, SD, n) / math.log(GROWTH)).astype(int)
    return Arm(n, int(buckets.sum()), int((buckets * buckets).sum()))


def in_course(noise: Noise, share: float, seed: int) -> bool:
    """Tell whether an attempt of 10,000 candidate requests names it by its end."""
    chance, course = np.random.default_rng([seed, 1]), Course.begin(MOST)
    for block in blocks(noise, share, round(REQUESTS / (RATE * share * BLOCK_S)), chance):
        course = course.take({(block.start, 1): block})
    return course.outside


def in_reference(noise: Noise, hours: float, seed: int) -> bool:
    """Tell whether a reference of so many hours names it, or, where it is within the set, leaves it out by mistake."""
    chance, found = np.random.default_rng([seed, 2]), Reference(MOST)
    for block in blocks(noise, 0.5, round(hours * 3600 / BLOCK_S), chance):
        found = found.take({block.start: block})
    return found.outside


COLUMNS: tuple[tuple[str, int, Callable[[Noise, int], bool]], ...] = (
    ("attempt at 50 %, 17 min", RUNS, lambda noise, seed: in_course(noise, 0.5, seed)),
    ("attempt at 5 %, 2.8 h", REFERENCES, lambda noise, seed: in_course(noise, 0.05, seed)),
    ("reference, 6 h", REFERENCES, lambda noise, seed: in_reference(noise, 6.0, seed)),
)


def _cell(column: int, noise: int, seed: int) -> bool:
    return COLUMNS[column][2](NOISES[noise], seed)


def main() -> None:
    """Tell all stories and write the table."""
    made = (
        f"{datetime.now(UTC):%Y-%m-%d}. Made by `python -m bench.guardrails.outside`: how many of so many attempts, or "
        "references, say *noisier than assumed* at their end. Equal arms, TTFT, one machine's own noise; attempts have "
        "no reference. One of six hours may speak of half an hour, so that is within its assumptions."
    )
    heads = " | ".join(name for name, _, _ in COLUMNS)
    rows = ["# Noise beyond the assumptions, named", "", made, "", f"| own noise | {heads} |"]
    rows.append("|---|" + "---:|" * len(COLUMNS))
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        for number, noise in enumerate(NOISES):
            told = [
                f"{sum(pool.map(partial(_cell, column, number), range(runs), chunksize=5))} of {runs}"
                for column, (_, runs, _) in enumerate(COLUMNS)
            ]
            rows.append(f"| {noise.name}{'' if noise.claimed else ' (*outside*)'} | {' | '.join(told)} |")
            print(rows[-1], flush=True)
    _OUT.write_text("\n".join([*rows, ""]))


if __name__ == "__main__":
    main()
