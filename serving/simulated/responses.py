"""/v1/responses in vLLM's shapes: one message, whole or as typed events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from serving.responses import response_error
from serving.simulated.ask import Ask
from serving.simulated.language import Speaker
from serving.simulated.shapes import dumped


class ResponseShape:
    """What every event and every answer of one request carries; events are numbered as they are made."""

    def __init__(self, ask: Ask, request_id: str, created: int, cached_tokens: int) -> None:
        self._ask = ask
        self._id = request_id
        self._created = created  # unix seconds
        self._cached = cached_tokens
        self._said: list[str] = []
        self._number = 0

    def opening(self, _choice: int) -> bytes:
        """The events before the first text."""
        response = self._response("in_progress", [], None)
        item = {**self._item("in_progress"), "content": []}
        return b"".join(
            [
                self._event("response.created", response=response),
                self._event("response.in_progress", response=response),
                self._event("response.output_item.added", item=item, output_index=0),
                self._place("response.content_part.added", part=_part("")),
            ]
        )

    def token(self, _choice: int, text: str, _finish: str | None) -> bytes:
        """The event of one token."""
        self._said.append(text)
        return self._place("response.output_text.delta", delta=text, logprobs=[])

    def closing(self, completion_tokens: int, finish: str) -> bytes:
        """The events after the last text; like vLLM `completed`, whatever the response's own status says."""
        text = "".join(self._said)
        return b"".join(
            [
                self._place("response.output_text.done", text=text, logprobs=[]),
                self._place("response.content_part.done", part=_part(text)),
                self._event("response.output_item.done", item=self._item("completed"), output_index=0),
                self._event("response.completed", response=self._ended(completion_tokens, finish)),
            ]
        )

    def failure(self, message: str, kind: str, _code: int) -> bytes:
        """An error event."""
        return response_error(message, kind, self._number)

    def whole(self, texts: Sequence[str], tokens: int, finish: str, _speaker: Speaker) -> dict[str, Any]:
        """The answer in one body."""
        self._said = list(texts)
        return self._ended(tokens, finish)

    def _ended(self, tokens: int, finish: str) -> dict[str, Any]:
        prompt = len(self._ask.ids)
        usage = {
            "input_tokens": prompt,
            "input_tokens_details": {"cached_tokens": self._cached, "cache_write_tokens": 0},
            "output_tokens": tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": prompt + tokens,
        }
        if finish == "stop":
            return self._response("completed", [self._item("completed")], usage)
        cut = {"incomplete_details": {"reason": "max_output_tokens"}}
        return self._response("incomplete", [self._item("incomplete")], usage) | cut

    def _response(self, status: str, output: Sequence[Any], usage: Any) -> dict[str, Any]:
        return {
            "id": f"resp_{self._id}",
            "created_at": self._created,
            "incomplete_details": None,
            "instructions": None,
            "metadata": {},
            "model": self._ask.model,
            "object": "response",
            "output": list(output),
            "parallel_tool_calls": True,
            "temperature": 1.0,
            "tool_choice": "auto",
            "tools": [],
            "top_p": 1.0,
            "background": False,
            "max_output_tokens": self._ask.limit,
            "service_tier": "auto",
            "status": status,
            "truncation": "disabled",
            "usage": usage,
        }

    def _item(self, status: str) -> dict[str, Any]:
        content = [_part("".join(self._said))]
        return {"id": f"msg_{self._id}", "content": content, "role": "assistant", "status": status, "type": "message"}

    def _place(self, kind: str, **more: Any) -> bytes:
        return self._event(kind, content_index=0, item_id=f"msg_{self._id}", output_index=0, **more)

    def _event(self, kind: str, **more: Any) -> bytes:
        # The fields stand in the order of the alphabet, as OpenAI's generated types have them.
        data = dict(sorted({**more, "sequence_number": self._number, "type": kind}.items()))
        self._number += 1
        return f"event: {kind}\ndata: ".encode() + dumped(data) + b"\n\n"


def _part(text: str) -> dict[str, Any]:
    return {"annotations": [], "text": text, "type": "output_text", "logprobs": None}
