"""When each request is due: an absolute schedule, fixed before the first is sent (pure).

Open loop: a slow engine gets no rest, because the next arrival does not wait for an answer. That is how users behave,
and closed loops hide slowness behind it (coordinated omission).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate, chain, count
from pathlib import Path
from random import Random

from loadtest.errors import WorkloadError


class Pattern(StrEnum):
    """How arrivals are spaced."""

    POISSON = "poisson"  # as independent users come: exponential gaps
    CONSTANT = "constant"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a workload: what is asked, and the slice it counts under."""

    prompt: str
    slice: str = ""


def plan(pattern: Pattern, rate: float, warmup: float, duration: float | None, chance: Random) -> Iterator[float]:
    """Yield the seconds after the start at which requests are due: the warm-up's, then the measurement's.

    Each part has its own arrivals, so the measured ones are as many as asked for. `duration` None never ends.
    """
    early = arrivals(pattern, rate, warmup, chance)
    measured = arrivals(pattern, rate, math.inf if duration is None else duration, chance)
    return chain(early, (warmup + due for due in measured))


def arrivals(pattern: Pattern, rate: float, seconds: float, chance: Random) -> Iterator[float]:
    """Yield the seconds after the start at which requests are due, ascending, below `seconds` (may be infinite).

    `rate` is per second and must be positive. The same `chance` gives the same schedule. A finite Poisson schedule is
    the process given its expected count (as many uniform draws, sorted), so the run's size is not left to chance.
    """
    if not (rate > 0 and math.isfinite(rate)):
        raise ValueError(f"a rate is a positive number of requests per second, not {rate!r}")
    if pattern is Pattern.CONSTANT:
        return _constant(rate, seconds)
    return _poisson(rate, chance) if math.isinf(seconds) else _poisson_given_count(rate, seconds, chance)


def _poisson(rate: float, chance: Random) -> Iterator[float]:
    return accumulate(chance.expovariate(rate) for _ in count())


def _poisson_given_count(rate: float, seconds: float, chance: Random) -> Iterator[float]:
    return iter(sorted(seconds * chance.random() for _ in range(round(rate * seconds))))


def _constant(rate: float, seconds: float) -> Iterator[float]:
    for number in count():
        due = number / rate  # not a running sum: its rounding would drift
        if due >= seconds:
            return
        yield due


def draw(lines: Sequence[Line], chance: Random) -> Iterator[Line]:
    """Yield lines without end: all in random order, then all again in another, so that prompts repeat late."""
    while True:
        yield from chance.sample(lines, len(lines))


def load_workload(path: Path) -> tuple[Line, ...]:
    """Read JSON lines of {"prompt", "slice"}. Raises WorkloadError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise WorkloadError(f"{path}: the workload cannot be read ({error}); give a JSONL file of prompts") from None
    numbered = enumerate(text.split("\n"), start=1)
    lines = tuple(_line(raw, f"{path}:{number}") for number, raw in numbered if raw.strip())
    if not lines:
        raise WorkloadError(f'{path}: the workload is empty; each line is {{"prompt": "...", "slice": "..."}}')
    return lines


def _line(raw: str, where: str) -> Line:
    try:
        value = json.loads(raw)
        prompt, slice_ = value["prompt"], value.get("slice") or ""
    except (ValueError, KeyError, TypeError, AttributeError):
        prompt = slice_ = None
    if not isinstance(prompt, str) or not isinstance(slice_, str) or not prompt:
        raise WorkloadError(f'{where}: not a line of a workload; each is {{"prompt": "...", "slice": "..."}}')
    return Line(prompt, slice_)
