"""What the store keeps, as values: batches of sums, trips, and one change of a release."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from hashlib import sha256

from canary.core.events import Cause
from canary.core.units import Claim
from canary.storage.chain import sealed

_WORD = 40  # characters of a verdict


@dataclass(frozen=True, slots=True)
class Batch:
    """A worker's sums for one attempt: field "{stage}|{arm}|{slice}|{name}" -> increment.

    Names that start with "sum." are real numbers, all others whole ones. `claims` are events of units, of which the
    store knows whether they are the first of their kind.
    """

    model: str
    release: str
    attempt: int
    fields: Mapping[str, int | float]
    claims: tuple[Claim, ...] = ()

    def increments(self) -> Iterator[str]:
        """Yield command, field and increment for each field. Raises ValueError on a number that is not finite."""
        for name, value in self.fields.items():
            real = name.rpartition("|")[2].startswith("sum.")
            if not math.isfinite(value):
                raise ValueError(f"{name}: {value} cannot be summed")
            yield from ("HINCRBYFLOAT", name, repr(float(value))) if real else ("HINCRBY", name, str(int(value)))

    def claimed(self) -> str:
        """Return the claims as a JSON list of (offset, fresh, again), "" for none."""
        if not self.claims:
            return ""
        return json.dumps([(claim.offset, dict(claim.fresh), dict(claim.again)) for claim in self.claims])


@dataclass(frozen=True, slots=True)
class Trip:
    """A worker's tripwire fired (T0): the candidate is plainly broken. `unix_ms` is when."""

    model: str
    release: str
    attempt: int
    stage: int
    worker: str
    reason: str
    unix_ms: int

    def to_fields(self) -> dict[str, str]:
        """Flat fields for a stream entry."""
        return {name: str(value) for name, value in asdict(self).items()}

    @classmethod
    def from_fields(cls, value: Mapping[str, str]) -> Trip:
        """Read what `to_fields` wrote. Raises KeyError or ValueError on anything else."""
        return cls(
            model=value["model"],
            release=value["release"],
            attempt=int(value["attempt"]),
            stage=int(value["stage"]),
            worker=value["worker"],
            reason=value["reason"],
            unix_ms=int(value["unix_ms"]),
        )


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to decide: every write of a controller is checked against it."""

    holder: str
    token: int

    @property
    def fence(self) -> str:
        """What stands in the store while this lease holds."""
        return f"{self.holder}:{self.token}"


@dataclass(frozen=True, slots=True)
class Change:
    """One step of a release, written in one script: state, split, audit entry and what goes with them.

    `before` is the text of the state that the decision was made on ("" for none); `split` is "" when workers need not
    know; `fence` is the controller's lease ("" for an operator's command); `key` and `reply` remember a command.
    """

    model: str
    before: str
    after: str
    audit: Mapping[str, str]
    split: str = ""
    fence: str = ""
    key: str = ""
    reply: str = ""
    quarantine: Mapping[str, str] = field(default_factory=dict)
    absolve: tuple[str, ...] = ()
    attempt: Mapping[str, int] = field(default_factory=dict)
    result: str = ""

    def to_json(self) -> str:
        """Return what the script reads beside the texts."""
        return json.dumps(
            {
                "model": self.model,
                "fence": self.fence,
                "reply": self.reply if self.key else "",
                "quarantine": dict(self.quarantine),
                "absolve": list(self.absolve),
                "attempt": dict(self.attempt),
                "result": self.result,
                "audit": sealed(self.audit),
            }
        )


@dataclass(frozen=True, slots=True)
class Committed:
    """What became of a change: "ok", "conflict" (`detail` is the state that stands), "fenced", "replayed"."""

    code: str
    detail: str = ""


def reported(model: str, kind: str, digest: str, text: str, cause: Cause) -> dict[str, str]:
    """Return the audit entry of a gate's report that is kept as `text` (JSON): evidence, and no step of a release.

    Its SHA-256 shows whether the report is still the one that was put there.
    """
    report = json.loads(text)
    verdict = str(report.get("verdict") or "none")[:_WORD]
    found = {"kind": kind, "digest": digest, "verdict": verdict, "sha256": sha256(text.encode()).hexdigest()}
    return {
        "who": cause.actor,
        "what": f"{kind} report: {verdict}",
        "why": cause.reason,
        "before": "",
        "after": "",
        "generation": "",
        "evidence": json.dumps(found, separators=(",", ":")),
        "unix_ms": str(round(cause.now * 1000)),
        "model": model,
        "release": "",
        "attempt": "",
    }
