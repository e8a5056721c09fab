"""/v1/responses as vLLM and OpenAI speak it: whole, or a stream of typed events that ends without `[DONE]` (pure).

A streamed answer is good only with `response.completed` or `response.incomplete`, usage in it, and no error; a whole
one needs the same of its `status`. The ends have chat's names here ("stop", "length"), so that both routes can be
counted together.
"""

from __future__ import annotations

import json
from typing import Any

from serving.kept import NOTHING, Kept
from serving.sse import payload
from serving.wire import FrameKind, Usage, WholeAnswer, error_message, objects, parsed, usage_of

_LAST = frozenset({"response.completed", "response.incomplete", "response.failed", "response.cancelled", "error"})
_TEXT = "response.output_text.delta"
_ARGUMENTS = "response.function_call_arguments.delta"
_REFUSAL = "response.refusal.delta"
_BEGUN = "response.output_item.added"
_FINISHES = {"max_output_tokens": "length"}
_BROKEN = frozenset({"failed", "cancelled"})


class ResponsesReader:
    """Reads one streamed response event by event: the same face as `AnswerReader`.

    `done` is True once the stream has said how it ended, `sequence` is the number that the next event would carry.
    """

    __slots__ = ("content_chunks", "done", "error", "finish_reason", "kept", "sequence", "usage")

    def __init__(self, keep_text: int = 0) -> None:
        self.finish_reason = ""
        self.usage: Usage | None = None
        self.error: str | None = None
        self.done = False
        self.content_chunks = 0
        self.sequence = 0
        self.kept = Kept(keep_text)

    @property
    def text(self) -> str:
        """The answer's text, as far as it was kept."""
        return self.kept.text

    @property
    def complete(self) -> bool:
        """Whether this was a good answer: its last event came, with usage, and no error."""
        return bool(self.finish_reason) and self.usage is not None and self.error is None

    def frame(self, frame: bytes) -> FrameKind:
        """Take the next raw frame and say what it brought. Never raises: what cannot be read is an error."""
        data = payload(frame)
        if not data:
            return FrameKind.COMMENT
        if data.strip() == b"[DONE]":
            return FrameKind.DONE  # not of this protocol, and no harm
        event = parsed(data)
        if event is None:
            return self._failed("the engine sent a data frame that is not a JSON object")
        number = event.get("sequence_number")
        self.sequence = number + 1 if isinstance(number, int) else self.sequence + 1
        return self._event(str(event.get("type") or ""), event)

    def _event(self, kind: str, event: dict[str, Any]) -> FrameKind:
        self.done = self.done or kind in _LAST
        response = event.get("response")
        message = _event_error(kind, event)
        if message is not None:
            return self._failed(message)
        if kind in _LAST:
            ended = _ended(response if isinstance(response, dict) else {})
            self.finish_reason, self.usage, self.error = ended.finish_reason, ended.usage, self.error or ended.error
        delta = event.get("delta")
        if self.kept.room:
            _keep_event(self.kept, kind, event, delta)
        if not kind.endswith(".delta") or not delta:
            return FrameKind.OTHER
        self.content_chunks += 1
        return FrameKind.CONTENT

    def _failed(self, message: str) -> FrameKind:
        self.error = self.error or message
        return FrameKind.ERROR


def read_response(body: bytes, keep_text: int = 0) -> WholeAnswer:
    """Read a response that came in one body. Never raises: what cannot be read is an error."""
    answer = parsed(body)
    if answer is None:
        return WholeAnswer(error="the engine's answer is not a JSON object")
    return _ended(answer, keep_text)


def response_error(message: str, code: str, sequence: int) -> bytes:
    """Return an error as the last event of a stream: OpenAI's `error` event, which the SDKs know."""
    event = {"type": "error", "code": code, "message": message, "param": None, "sequence_number": sequence}
    return b"event: error\ndata: " + json.dumps(event, ensure_ascii=False).encode("utf-8", "replace") + b"\n\n"


def _event_error(kind: str, event: dict[str, Any]) -> str | None:
    """Return an error event's message; None for any other event. vLLM sends chat's error object here too."""
    if kind == "error" and not event.get("error"):
        return str(event.get("message") or "the engine sent an error without a message")
    return error_message(event)


def _ended(response: dict[str, Any], keep_text: int = 0) -> WholeAnswer:
    """Read a response object that should be the end of an answer."""
    status = str(response.get("status") or "")
    details = response.get("incomplete_details")
    reason = str(details.get("reason") or "") if isinstance(details, dict) else ""
    error = error_message(response)
    if error is None and status in _BROKEN:
        error = f"the engine gave the answer up (status {status})"
    return WholeAnswer(
        finish_reason=_finish(status, reason),
        usage=usage_of(response.get("usage")),
        error=error,
        kept=_whole_kept(response, keep_text) if keep_text else NOTHING,
    )


def _finish(status: str, reason: str) -> str:
    """Say in chat's words why an answer ended; "" if it has not."""
    if status == "incomplete":
        return _FINISHES.get(reason, reason or status)
    return "stop" if status == "completed" else ""


def _keep_event(kept: Kept, kind: str, event: dict[str, Any], delta: object) -> None:
    """Keep what one event brought: text, or a piece of a tool call, which is known by the place of its item."""
    number, item = event.get("output_index"), event.get("item")
    if kind == _TEXT:
        kept.say(delta)
    elif kind == _REFUSAL:
        kept.refused = True
    elif isinstance(number, int) and (kind == _ARGUMENTS or (kind == _BEGUN and _is_call(item))):
        kept.call(number, delta)  # an item that begins has no delta: its arguments follow


def _is_call(item: object) -> bool:
    return isinstance(item, dict) and item.get("type") == "function_call"


def _whole_kept(response: dict[str, Any], room: int) -> Kept:
    """Return what a whole response says."""
    kept = Kept(room)
    for number, item in enumerate(objects(response.get("output"))):
        if _is_call(item):
            kept.call(number, item.get("arguments"))
        for part in objects(item.get("content")):
            if part.get("type") == "output_text":
                kept.say(part.get("text"))
            elif part.get("type") == "refusal":
                kept.refused = True
    return kept
