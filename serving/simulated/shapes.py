"""The JSON an engine answers with, in vLLM's shapes (pure)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from serving.simulated.ask import Ask
from serving.simulated.language import Speaker, encode
from serving.wire import DONE, error_event


@dataclass(frozen=True, slots=True)
class Shape:
    """What every chunk and every answer of one request carries."""

    ask: Ask
    request_id: str
    created: int  # unix seconds
    cached_tokens: int

    @property
    def chat(self) -> bool:
        """Whether the answer is a chat's."""
        return self.ask.form == "chat"

    def opening(self, choice: int) -> bytes:
        """The chunk that names the role, before a chat's first token; nothing for completions."""
        return self._chunk([self._delta(choice, {"role": "assistant", "content": ""}, None)]) if self.chat else b""

    def token(self, choice: int, text: str, finish: str | None) -> bytes:
        """The chunk of one token; the last one carries finish_reason."""
        if self.chat:
            return self._chunk([self._delta(choice, {"content": text}, finish)])
        return self._chunk([{"index": choice, "text": text, "logprobs": None, "finish_reason": finish}])

    def closing(self, completion_tokens: int, _finish: str) -> bytes:
        """The usage-only chunk, if it was asked for, and the end."""
        return (self._chunk([], usage=self._usage(completion_tokens)) if self.ask.usage else b"") + DONE

    def failure(self, message: str, kind: str, code: int) -> bytes:
        """An error where a chunk should be."""
        return error_event(message, kind, code) + DONE

    def whole(self, texts: Sequence[str], tokens: int, finish: str, speaker: Speaker) -> dict[str, Any]:
        """The answer in one body: `tokens` of each choice."""
        choices = [self._choice(index, text, finish, speaker) for index, text in enumerate(texts)]
        name = "chat.completion" if self.chat else "text_completion"
        return self._head(name) | {"choices": choices, "usage": self._usage(tokens * len(texts))}

    def _choice(self, index: int, text: str, finish: str, speaker: Speaker) -> dict[str, Any]:
        said = {"message": {"role": "assistant", "content": text}} if self.chat else {"text": text}
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
        name = "chat.completion.chunk" if self.chat else "text_completion"
        return b"data: " + dumped(self._head(name) | {"choices": choices, **more}) + b"\n\n"

    def _head(self, name: str) -> dict[str, Any]:
        kind = "chatcmpl" if self.chat else "cmpl"
        return {"id": f"{kind}-{self.request_id}", "object": name, "created": self.created, "model": self.ask.model}

    def _usage(self, completion_tokens: int) -> dict[str, Any]:
        prompt = len(self.ask.ids)
        return {
            "prompt_tokens": prompt,
            "total_tokens": prompt + completion_tokens,
            "completion_tokens": completion_tokens,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
        }


class TranscriptShape(Shape):
    """A transcript: chat's chunks without an index, and whole in the format that was asked for."""

    __slots__ = ()

    def opening(self, _choice: int) -> bytes:
        """Nothing comes before the first words."""
        return b""

    def token(self, _choice: int, text: str, finish: str | None) -> bytes:
        """The chunk of one token."""
        ended = {"finish_reason": finish, "stop_reason": None} if finish else {}
        return self._chunk([{"delta": {"content": text}, **ended}])

    def whole(self, texts: Sequence[str], _tokens: int, _finish: str, _speaker: Speaker) -> dict[str, Any]:
        """The transcript in one body."""
        if self.ask.form == "verbose_json":
            return {"duration": 1.0, "language": "en", "text": texts[0], "segments": [], "words": None}
        return {"text": texts[0], "usage": {"type": "duration", "seconds": 1}}

    def _head(self, _name: str) -> dict[str, Any]:
        name = "transcription.chunk"
        return {"id": f"trsc-{self.request_id}", "object": name, "created": self.created, "model": self.ask.model}


def _prompt_logprobs(ids: Sequence[int], speaker: Speaker) -> list[dict[str, Any] | None]:
    scores = speaker.scores(ids)
    entries: list[dict[str, Any] | None] = [
        {str(token): {"logprob": logprob, "rank": rank, "decoded_token": ""}}
        for token, (logprob, rank) in zip(ids, scores, strict=True)
    ]
    return [None, *entries[1:]]


def model_list(names: Sequence[str], created: int, longest: int) -> dict[str, Any]:
    """/v1/models: the base model, then its adapters."""
    card = {"object": "model", "created": created, "owned_by": "vllm"}
    base = {"id": names[0], **card, "root": names[0], "parent": None, "max_model_len": longest}
    adapters = [{"id": name, **card, "root": name, "parent": names[0], "max_model_len": None} for name in names[1:]]
    return {"object": "list", "data": [base, *adapters]}


def dumped(value: Mapping[str, Any]) -> bytes:
    """JSON without spaces, as vLLM writes it."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")


def exposition(model: str, values: Mapping[str, tuple[str, float]]) -> bytes:
    """/metrics: name -> (type, value), in Prometheus' text format under vLLM's prefix and labels."""
    lines = [
        f'# TYPE vllm:{name} {kind}\nvllm:{name}{{engine="0",model_name="{model}"}} {value:g}\n'
        for name, (kind, value) in values.items()
    ]
    return "".join(lines).encode()
