"""Teacher forcing: how likely an engine finds tokens that were given to it (pure)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from serving.errors import ServingError


class WireError(ServingError):
    """An engine's answer does not have the shape it should have."""


@dataclass(frozen=True, slots=True)
class TokenScore:
    """How likely an engine found a token that was given to it: natural log, and 1 for its own first choice."""

    logprob: float
    rank: int


def teacher_forced(body: dict[str, Any]) -> list[TokenScore]:
    """Read how likely each prompt token after the first was, from `/v1/completions` with `prompt_logprobs`.

    The first token has no score (null) and is left out. With more than one candidate a position, the prompt's own token
    is found by `prompt_token_ids`, else it is the first, where vLLM puts it. Raises WireError on any other shape.
    """
    try:
        choice = body["choices"][0]
        positions = choice["prompt_logprobs"]
        ids = choice.get("prompt_token_ids") or [None] * len(positions)
        scored = zip(positions, ids, strict=True)
        return [_score(position, token) for position, token in scored if position is not None]
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise WireError(
            f"the engine's answer has no usable prompt_logprobs ({error!r}); ask /v1/completions "
            "with prompt_logprobs and without stream"
        ) from None


def _score(position: dict[str, Any], token: int | None) -> TokenScore:
    entry = position[str(token)] if token is not None else next(iter(position.values()), None)
    if entry is None:
        raise ValueError("a position without candidates")
    return TokenScore(logprob=float(entry["logprob"]), rank=int(entry["rank"]))
