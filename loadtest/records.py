"""What a load test sends and what it keeps: values only (pure)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from loadtest.schedule import Pattern


@dataclass(frozen=True, slots=True)
class Saturation:
    """The closed loop after the schedule: `in_flight` users for `duration` seconds; none of it by default."""

    in_flight: int = 0
    duration: float = 0.0


@dataclass(frozen=True, slots=True)
class Job:
    """One run of the Locust file. Times in seconds, `rate` in requests per second.

    `arm` is forced by the X-Linnet-Arm header; empty leaves the choice to the gateway, as for any user. `duration`
    None runs until it is stopped. The first `warmup` seconds are sent and not measured. `in_flight` is the most
    requests at a time; what would go beyond is not sent, and counted. `session` makes the sessions of two runs differ.
    `saturation` follows the schedule, and its records go to `saturation_out`.
    """

    gateway: str
    model: str
    workload: str
    out: str
    rate: float
    duration: float | None
    max_tokens: int
    session: str
    seed: int = 0
    arm: str = ""
    pattern: Pattern = Pattern.POISSON
    warmup: float = 0.0
    in_flight: int = 256
    timeout: float = 60.0
    drain: float = 5.0
    saturation: Saturation = Saturation()

    @property
    def saturation_out(self) -> str:
        """The file of the saturation run's records."""
        return f"{self.out}.saturation"

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Job:
        """Read what `to_json` wrote."""
        value = json.loads(text)
        typed = {"pattern": Pattern(value["pattern"]), "saturation": Saturation(**value["saturation"])}
        return cls(**{**value, **typed})


@dataclass(frozen=True, slots=True)
class Record:
    """One arrival, as its user saw it.

    `unix` is when it was due (unix seconds), `at` the same in seconds after the measurement began (negative: warm-up).
    `lag_ms` is how late it was sent, and every other time counts from when it was *due*, not from when it was sent.
    In a saturation run, a request is due when its user's last one has ended, and `at` counts from the run's beginning.
    `arm` is the answer's X-Linnet-Arm. `ttft_ms` is to the first content chunk; `e2e_ms` to the end of the answer;
    `tpot_ms` is (e2e - ttft) / (tokens - 1), None below two tokens; tokens come from usage, never from chunks.
    """

    unix: float
    at: float
    arm: str = ""
    slice: str = ""
    status: int = 0
    ok: bool = False
    ttft_ms: float | None = None
    tpot_ms: float | None = None
    e2e_ms: float | None = None
    tokens: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    lag_ms: float = 0.0
    sent: bool = True
    error: str = ""

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps({name: getattr(self, name) for name in _RECORD}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Record:
        """Read what `to_json` wrote."""
        return cls(**json.loads(text))


_RECORD = tuple(field.name for field in fields(Record))


@dataclass(frozen=True, slots=True)
class Client:
    """How the load test's own process fared: a client at its limit measures itself."""

    cpu_seconds: float
    wall_seconds: float
    sent: int

    @property
    def cpu_share(self) -> float:
        """How busy the one thread was, 0..1."""
        return self.cpu_seconds / self.wall_seconds if self.wall_seconds > 0 else 0.0

    @property
    def cpu_ms_per_request(self) -> float:
        """What one streamed request costs the client."""
        return 1000 * self.cpu_seconds / self.sent if self.sent else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Trace:
    """What one loop left behind: its records, and how the client fared meanwhile."""

    records: Sequence[Record]
    client: Client
