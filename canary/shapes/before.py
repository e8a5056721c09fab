"""What is foreseen before a release, in JSON: the types of `linnet plan --json` and `linnet simulate --json`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from canary.core.premise import Baseline
from canary.core.timetable import Saving
from canary.shapes.release import Number, Reference, Shape
from canary.trials.world import Traffic


class Reached(Shape):
    """When a verdict is reached: seconds into the step, requests of the guardrail's own slice."""

    seconds: float
    requests: int


class Wait(Shape):
    """How long a guardrail needs; `pass` if both arms are equal, `fail` if worse by `worse_by`; null is never."""

    name: str
    slice: str
    margin: float
    worse_by: float
    passed: Annotated[Reached | None, Field(alias="pass")]
    fail: Reached | None
    fail_in_noise_s: Number
    located: bool
    load_matched: bool


class Step(Shape):
    """How long a step takes at least, and what decides that."""

    step: str
    percent: float
    proof_needed: bool
    manual: bool
    seconds: Number
    decides: str
    slowest: str | None
    guardrails: list[Wait]


class Forecast(Shape):
    """What `plan` foresees; `seconds` null is never. Parts of the traffic are 0..1, noise the sd of the log."""

    model: str
    release: str
    rps: float
    slices: dict[str, float]
    replicas: int
    control: int
    reference_hours: float
    reference: dict[str, Reference | None]
    own_noise: dict[str, float]
    pairs_per_second: Number
    worse: float
    assumed: Baseline
    limit_requests: int
    seconds: Number
    steps: list[Step]
    faster: list[Saving]


class Recorded(Shape):
    """What a gateway's access log held: requests, and how many `with` a latency or a cost."""

    requests: int
    seconds: float
    rate: float
    error: float
    known: Annotated[dict[str, int], Field(alias="with")]
    slices: dict[str, float]
    slices_missing: list[str]
    left_out: dict[str, int]


class Share(Shape):
    """A share of the traffic in percent, and for how many seconds."""

    percent: float
    seconds: float


class FalseRollback(Shape):
    """How often an equal candidate was rolled back, in 0..1; `holds` null where the runs are too few to tell."""

    scenario: str
    count: int
    rate: float
    low95: float
    high95: float
    holds: bool | None
    runs_needed: int


class Detection(Shape):
    """How often a worse candidate was rolled back, in 0..1, and after how many seconds; null is not reached."""

    share: float
    median: Number
    p90: Number
    missed: int


class Scenario(Shape):
    """One candidate, many stories: `by` counts the rollbacks by guardrail."""

    name: str
    equal: bool
    runs: int
    rolled_back: int
    low95: float
    high95: float
    median_requests: Number
    median_seconds: Number
    p90_seconds: Number
    longest_requests: Number
    longest_seconds: Number
    by: dict[str, int]


class Trials(Shape):
    """How often an equal candidate is rolled back, and how soon a worse one."""

    model: str
    release: str
    seed: int
    every_seconds: int
    runs: int
    traffic: Traffic
    log: Recorded | None
    made_up: list[str]
    steps: list[Share]
    alpha: float
    false_rollback: FalseRollback
    detection: dict[str, Detection]
    untold: list[str]
    sliced: bool
    scenarios: list[Scenario]
