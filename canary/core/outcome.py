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
    `stall` is the longest wait between two pieces of content, None below two. `flaws` names what is wrong with a good
    answer's text, if it was examined: "refusal", "malformed", "repetition".

    `at` is when its arm was drawn, in Unix seconds (0: not known), `stage` the split's stage at that moment. `evidence`
    is False for requests that chance did not assign (forced testers): they are counted in the metrics and kept out of
    the sums. `unit` numbers who sticks to an arm (a session, a user), 0 for a request that stands for itself. `cold`
    says that it was drawn while the arms warmed up, `control` that the baseline's control answered, `replica` which
    one of its endpoint did (-1: not known).
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
    unit: int = 0
    cold: bool = False
    control: bool = False
    replica: int = -1
    stall: float | None = None
    flaws: tuple[str, ...] = ()
    cached_tokens: int = 0

    @property
    def failed(self) -> bool:
        """True if the arm, not the client, is to blame."""
        return self.result in FAILURES
