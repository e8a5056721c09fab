"""What a request is billed to its key, whether or not it came to its end (pure)."""

from __future__ import annotations

from typing import Final

from canary.core.arms import Endpoint
from canary.core.outcome import Outcome, Result

_WORKED: Final = frozenset({Result.OK, Result.CANCELLED, Result.TIMEOUT})


def bill(outcome: Outcome, prompt_estimate: int, endpoint: Endpoint, *, sent: bool = True) -> tuple[int, float]:
    """Return the tokens and the USD of one request; `sent` tells whether it had reached an engine.

    An answer that broke off has no usage, nor have some good ones (audio, embeddings as bytes): its chunks stand for
    tokens, and the prompt is estimated. So is that of a client that leaves before it hears anything: its engine has
    worked. A request that failed without a word costs nothing.
    """
    completion = outcome.completion_tokens
    worked = completion or (sent and outcome.result in _WORKED)
    if outcome.prompt_tokens or not worked:
        return outcome.prompt_tokens + completion, outcome.cost_usd or 0.0
    if endpoint.price is None:
        return prompt_estimate + completion, 0.0
    request, prompt, answer = endpoint.price
    return prompt_estimate + completion, request + prompt * prompt_estimate + answer * completion
