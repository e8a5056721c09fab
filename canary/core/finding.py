"""What a guardrail found, with its numbers: the sentence an operator reads at three in the morning."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """Pass and fail are proved; inconclusive is not yet; unknown means the evidence itself cannot be trusted."""

    PASS = "pass"  # noqa: S105 - a verdict, not a password
    INCONCLUSIVE = "inconclusive"
    FAIL = "fail"
    UNKNOWN = "unknown"


class OnBreach(StrEnum):
    """What a failing guardrail does."""

    ROLLBACK = "rollback"
    PAUSE = "pause"
    WARN = "warn"


@dataclass(frozen=True, slots=True)
class Finding:
    """One guardrail on one slice, now.

    `estimate`, `low`, `high` and `margin` share the guardrail's unit (a ratio, or a difference); `evidence` and
    `threshold` are natural logs of e-values: the verdict is fail when evidence >= threshold and the estimate lies
    beyond the margin; `passing` and `pass_threshold` are the same of what speaks for it. `n` counts the candidate's
    observations. `reason` says it in one line, numbers included.
    """

    guardrail: str
    slice: str
    verdict: Verdict
    reason: str
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    margin: float | None = None
    evidence: float | None = None
    threshold: float | None = None
    n: int = 0
    on_breach: OnBreach = OnBreach.ROLLBACK
    passing: float | None = None
    pass_threshold: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Finding:
        """Read what `to_dict` wrote; unknown verdicts raise ValueError."""
        return cls(**{**value, "verdict": Verdict(value["verdict"]), "on_breach": OnBreach(value["on_breach"])})


def dumps(findings: tuple[Finding, ...]) -> str:
    """One line of JSON for a list of findings."""
    return json.dumps([finding.to_dict() for finding in findings], separators=(",", ":"))


def loads(text: str | bytes) -> tuple[Finding, ...]:
    """Read what `dumps` wrote."""
    return tuple(Finding.from_dict(value) for value in json.loads(text))
