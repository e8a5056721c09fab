"""What one request left behind: the only thing the gateway tells the control plane about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from canary.core.arms import Arm


class Result(StrEnum):
    """How a request ended. Only `error` and `timeout` are the arm's fault."""

    OK = "ok"
    ERROR = "error"  # refused connection, 5xx, an error object, a stream without finish_reason, usage or [DONE]
    TIMEOUT = "timeout"  # one of the gateway's limits passed
    CLIENT_ERROR = "client_error"  # 4xx: the request was at fault
    CANCELLED = "cancelled"  # the client went away


FAILURES: Final = frozenset({Result.ERROR, Result.TIMEOUT})


@dataclass(slots=True)  # one is made for every request: frozen ones cost three times as much
class Outcome:
    """One request as its arm answered it; nobody changes it.

    Times are seconds from the request's last byte read by the gateway. `ttft` is to the first content chunk, None if
    none came or the answer was whole; `tpot` is (e2e - ttft) / (completion_tokens - 1), None below two tokens.
    `at` is when its arm was drawn, in Unix seconds (0: not known), `stage` the split's stage at that moment. `evidence`
    is False for requests that chance did not assign (forced testers): they are counted in the metrics and kept out of
    the sums.
    """

    arm: Arm
    result: Result
    slice: str = ""
    stage: int = 0
    status: int = 0
    e2e: float = 0.0
    ttft: float | None = None
    tpot: float | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    finish_reason: str = ""
    cost_usd: float | None = None
    evidence: bool = True
    at: float = 0.0

    @property
    def failed(self) -> bool:
        """True if the arm, not the client, is to blame."""
        return self.result in FAILURES
