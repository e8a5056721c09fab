"""What a request is billed to its key, whether or not it came to its end (pure)."""

from __future__ import annotations

from canary.core.arms import Endpoint
from canary.core.outcome import Outcome, Result


def bill(outcome: Outcome, prompt_estimate: int, endpoint: Endpoint) -> tuple[int, float]:
    """Return the tokens and the USD of one request.

    An answer that broke off has no usage, nor have some good ones (audio, embeddings as bytes): its chunks stand for
    tokens, and the prompt is estimated. A request that brought nothing costs nothing.
    """
    completion = outcome.completion_tokens
    if outcome.prompt_tokens or not (completion or outcome.result is Result.OK):
        return outcome.prompt_tokens + completion, outcome.cost_usd or 0.0
    if endpoint.price is None:
        return prompt_estimate + completion, 0.0
    request, prompt, answer = endpoint.price
    return prompt_estimate + completion, request + prompt * prompt_estimate + answer * completion
