"""How the replicas of one public model are used: both of its arms by the same rules.

`pydantic.TypeAdapter(PoolOptions).validate_python(mapping)` reads it from a file: unknown names and values out of range
are errors.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field

Count = Annotated[int, Field(ge=0, strict=True)]
Some = Annotated[int, Field(ge=1, strict=True)]
Seconds = Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)]
Part = Annotated[float, Field(ge=0, le=1)]


class Balance(StrEnum):
    """How a replica is picked."""

    LEAST_TOKENS = "least_tokens"  # the lighter of two drawn at random
    AFFINITY = "affinity"  # a conversation stays on its replica, so that its prefix is cached there


@dataclass(frozen=True, slots=True)
class PoolOptions:
    """One model's rules. Slots and queues are each worker's and each arm's own; `_s` means seconds."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    balance: Balance = Balance.LEAST_TOKENS
    load_bound: Annotated[float, Field(gt=1, le=10)] = 1.25  # a conversation's replica takes this times the mean load
    load_floor: Count = 8192  # outstanding tokens below which no replica counts as overloaded
    slow_start_s: Seconds = 15.0  # a replica that just became usable takes its full share after this

    slots: Count = 0  # requests an arm may have in hand; 0 is no limit
    queue: Count = 128  # requests that may wait for a slot
    queue_s: Positive = 5.0  # how long one may wait

    failures: Some = 5  # in a row: the replica is left alone
    failure_rate: Annotated[float, Field(gt=0, le=1)] = 0.5  # or this part of a window's results
    window_s: Positive = 10.0
    window_least: Some = 20  # results below which a window says nothing
    open_s: Positive = 1.0  # left alone for this long at first, twice as long each time it fails again
    open_most_s: Positive = 30.0

    health_s: Seconds = 5.0  # between two active checks of a replica; 0 is never
    health_timeout_s: Positive = 3.0
    health_failures: Some = 3  # in a row: the replica is down

    retry_part: Part = 0.2  # fail-overs and retries, as a part of the requests
    retry_per_s: Annotated[float, Field(ge=0, le=1000)] = 1.0  # and this many a second in any case
    retry_burst: Count = 100  # that may be saved up; as many are there at first
