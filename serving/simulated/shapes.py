"""The JSON an engine answers with, in vLLM's shapes (pure)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from serving.simulated.ask import Ask
from serving.simulated.language import Speaker, encode


@dataclass(frozen=True, slots=True)
class Shape:
    """What every chunk and every answer of one request carries."""

    ask: Ask
    request_id: str
    model: str
    created: int  # unix seconds
    cached_tokens: int

    def opening(self, choice: int) -> bytes:
        """The chunk that names the role, before a chat's first token; nothing for completions."""
        return self._chunk([self._delta(choice, {"role": "assistant", "content": ""}, None)]) if self.ask.chat else b""

    def token(self, choice: int, text: str, finish: str | None) -> bytes:
        """The chunk of one token; the last one carries finish_reason."""
        if self.ask.chat:
            return self._chunk([self._delta(choice, {"content": text}, finish)])
        return self._chunk([{"index": choice, "text": text, "logprobs": None, "finish_reason": finish}])

    def closing(self, completion_tokens: int) -> bytes:
        """The usage-only chunk, if it was asked for."""
        return self._chunk([], usage=self._usage(completion_tokens)) if self.ask.usage else b""

    def whole(self, texts: Sequence[str], tokens: int, finish: str, speaker: Speaker) -> bytes:
        """The answer in one body: `tokens` of each choice."""
        choices = [self._choice(index, text, finish, speaker) for index, text in enumerate(texts)]
        name = "chat.completion" if self.ask.chat else "text_completion"
        return json.dumps(self._head(name) | {"choices": choices, "usage": self._usage(tokens * len(texts))}).encode()

    def _choice(self, index: int, text: str, finish: str, speaker: Speaker) -> dict[str, Any]:
        said = {"message": {"role": "assistant", "content": text}} if self.ask.chat else {"text": text}
        choice: dict[str, Any] = {
            "index": index,
            **said,
            "logprobs": None,
            "finish_reason": finish,
            "stop_reason": None,
        }
        if self.ask.teacher:
            choice["prompt_logprobs"] = _prompt_logprobs(self.ask.ids, speaker)
        if self.ask.token_ids:
            choice |= {"prompt_token_ids": list(self.ask.ids), "token_ids": encode(text)}
        return choice

    def _delta(self, choice: int, delta: Mapping[str, str], finish: str | None) -> dict[str, Any]:
        return {"index": choice, "delta": delta, "logprobs": None, "finish_reason": finish}

    def _chunk(self, choices: Sequence[Mapping[str, Any]], **more: Any) -> bytes:
        name = "chat.completion.chunk" if self.ask.chat else "text_completion"
        return b"data: " + json.dumps(self._head(name) | {"choices": choices, **more}).encode() + b"\n\n"

    def _head(self, name: str) -> dict[str, Any]:
        kind = "chatcmpl" if self.ask.chat else "cmpl"
        return {"id": f"{kind}-{self.request_id}", "object": name, "created": self.created, "model": self.model}

    def _usage(self, completion_tokens: int) -> dict[str, Any]:
        prompt = len(self.ask.ids)
        return {
            "prompt_tokens": prompt,
            "total_tokens": prompt + completion_tokens,
            "completion_tokens": completion_tokens,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
        }


def _prompt_logprobs(ids: Sequence[int], speaker: Speaker) -> list[dict[str, Any] | None]:
    scores = speaker.scores(ids)
    entries: list[dict[str, Any] | None] = [
        {str(token): {"logprob": logprob, "rank": rank, "decoded_token": ""}}
        for token, (logprob, rank) in zip(ids, scores, strict=True)
    ]
    return [None, *entries[1:]]


def model_list(model: str, created: int, longest: int) -> bytes:
    """/v1/models."""
    card = {"id": model, "object": "model", "created": created, "owned_by": "vllm", "root": model, "parent": None}
    return json.dumps({"object": "list", "data": [card | {"max_model_len": longest}]}).encode()


def exposition(model: str, values: Mapping[str, tuple[str, float]]) -> bytes:
    """/metrics: name -> (type, value), in Prometheus' text format under vLLM's prefix and labels."""
    lines = [
        f'# TYPE vllm:{name} {kind}\nvllm:{name}{{engine="0",model_name="{model}"}} {value:g}\n'
        for name, (kind, value) in values.items()
    ]
    return "".join(lines).encode()
