"""What can happen to a release, each with its cause, and what is to be done about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

from canary.core.arms import Split
from canary.core.finding import Finding

Price: TypeAlias = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Cause:
    """Who, why and when (Unix seconds)."""

    actor: str
    reason: str
    now: float


@dataclass(frozen=True, slots=True)
class Heard:
    """What the live workers route by.

    `generation` is the oldest of theirs, `slowest` the worker that has it, `unix_ms` when the last acknowledged.
    """

    workers: int = 0
    generation: int = -1
    slowest: str = ""
    unix_ms: int = 0


NOBODY = Heard()


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a look saw.

    `samples` are the candidate's finished requests in this stage, `pairs` the attempt's scored shadow pairs.
    `missing` says what preflight lacks, each with the command to run; `unready` which engines cannot serve;
    `spend_usd` includes what was spent before; `prices` are the load test's, by arm. `heard` is what the workers have
    acknowledged. `rps` are requests a second of the model, `baseline_rps` what its baseline was seen to serve under
    load, None where unknown; `unmet` says which of the card's success thresholds are not proved.
    """

    samples: int = 0
    pairs: int = 0
    findings: tuple[Finding, ...] = ()
    missing: tuple[str, ...] = ()
    unready: tuple[str, ...] = ()
    frozen: str = ""
    spend_usd: float = 0.0
    prices: Mapping[str, Price] = field(default_factory=dict)
    heard: Heard = NOBODY
    rps: float | None = None
    baseline_rps: float | None = None
    unmet: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "findings": [finding.to_dict() for finding in self.findings]}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Evidence:
        """Read what `to_dict` wrote."""
        return cls(
            **{
                **value,
                "findings": tuple(Finding.from_dict(finding) for finding in value["findings"]),
                "missing": tuple(value["missing"]),
                "unready": tuple(value["unready"]),
                "heard": Heard(**value.get("heard", {})),
                "unmet": tuple(value.get("unmet", ())),
                "prices": {arm: (price[0], price[1], price[2]) for arm, price in value["prices"].items()},
            }
        )


@dataclass(frozen=True, slots=True)
class Look:
    """The controller looked; `at` is where the release stood (Release.at), "" for here.

    `seen` is when the sums were read (Unix seconds), None for the cause's own time: the cause is the decision's.
    """

    cause: Cause
    evidence: Evidence
    at: str = ""
    seen: float | None = None


@dataclass(frozen=True, slots=True)
class Tripped:
    """A worker's tripwire fired at `unix_ms`."""

    cause: Cause
    release: str
    attempt: int
    unix_ms: int


@dataclass(frozen=True, slots=True)
class Relocated:
    """Engines serve elsewhere now: engine -> base URLs."""

    cause: Cause
    replicas: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class ClockJumped:
    """The controller's clock jumped by so many seconds, forward above 0.

    It did so at or after `since` (Unix seconds of the clock as it is now): times from then on are right.
    """

    cause: Cause
    by: float
    since: float


@dataclass(frozen=True, slots=True)
class Pause:
    """A person stops automation from advancing."""

    cause: Cause


@dataclass(frozen=True, slots=True)
class Resume:
    """A person hands back to automation."""

    cause: Cause


@dataclass(frozen=True, slots=True)
class SetWeight:
    """A person sets the candidate's share, 0..100; it gets there in `ramp` seconds, 0 at once."""

    cause: Cause
    percent: float
    ramp: float = 0.0


@dataclass(frozen=True, slots=True)
class Promote:
    """A person says: on to the next step, as the evidence permits; or, skipping analysis, all the way."""

    cause: Cause
    evidence: Evidence | None = None
    skip_analysis: bool = False


@dataclass(frozen=True, slots=True)
class Abort:
    """A person changed their mind; nothing is judged."""

    cause: Cause


@dataclass(frozen=True, slots=True)
class Rollback:
    """A person says that the candidate is bad."""

    cause: Cause


@dataclass(frozen=True, slots=True)
class Retry:
    """A person lets a candidate that was stopped try again; its tokens cost `tokens_usd` in the attempt before."""

    cause: Cause
    tokens_usd: float = 0.0


@dataclass(frozen=True, slots=True)
class Freeze:
    """Nothing advances until Unfreeze."""

    cause: Cause


@dataclass(frozen=True, slots=True)
class Unfreeze:
    """Advancing is allowed again."""

    cause: Cause


@dataclass(frozen=True, slots=True)
class Supersede:
    """Another release takes this one's place."""

    cause: Cause


Event: TypeAlias = (
    Look
    | Tripped
    | Relocated
    | ClockJumped
    | Pause
    | Resume
    | SetWeight
    | Promote
    | Abort
    | Rollback
    | Retry
    | Freeze
    | Unfreeze
    | Supersede
)


@dataclass(frozen=True, slots=True)
class Publish:
    """Workers are to route by this split."""

    split: Split


@dataclass(frozen=True, slots=True)
class Note:
    """The audit is to know: what, by whom, why."""

    what: str
    actor: str
    why: str
    unix_ms: int


@dataclass(frozen=True, slots=True)
class Quarantine:
    """This digest was found bad."""

    digest: str
    reason: str


@dataclass(frozen=True, slots=True)
class Absolve:
    """This digest may try again."""

    digest: str


@dataclass(frozen=True, slots=True)
class Count:
    """This attempt of the release began."""

    release: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Conclude:
    """The attempt ended so."""

    result: str


Effect: TypeAlias = Publish | Note | Quarantine | Absolve | Count | Conclude
