"""OpenAI's shapes as vLLM speaks them, and the one rule of a good chat answer (pure).

A streamed answer is good only with finish_reason, usage and `[DONE]`, and no error object; a whole one needs the same
without the `[DONE]`. The gateway, the shadow and the load test all ask here. `usage` comes only to those who send
`stream_options: {"include_usage": true}`. The other routes: `serving.responses`, `serving.plain`; scores of given
tokens: `serving.teacher`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from serving.kept import NOTHING, Kept
from serving.quick import loads
from serving.sse import payload

DONE: Final = b"data: [DONE]\n\n"
_CHAT_USAGE: Final = ("prompt_tokens", "completion_tokens", "prompt_tokens_details")
_RESPONSES_USAGE: Final = ("input_tokens", "output_tokens", "input_tokens_details")
_BROKEN_FINISHES: Final = frozenset({"abort", "error"})  # vLLM's own words for an answer that its engine gave up
_CONTENT_FIELDS: Final = ("content", "reasoning_content", "reasoning", "tool_calls", "function_call", "refusal")


class FrameKind(StrEnum):
    """What one frame of a stream brings."""

    CONTENT = "content"  # text, reasoning or a tool call: the first of these is the first token
    OTHER = "other"  # a role, a finish_reason alone
    USAGE = "usage"  # the usage-only chunk: choices is []
    DONE = "done"
    ERROR = "error"
    COMMENT = "comment"  # no data at all


@dataclass(slots=True)  # one is made for every request: frozen ones cost three times as much
class Usage:
    """Tokens of one request; `cached_tokens` of the prompt were found in the prefix cache."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0


@dataclass(slots=True)  # as Usage
class WholeAnswer:
    """An answer that came in one body."""

    finish_reason: str = ""
    usage: Usage | None = None
    error: str | None = None
    kept: Kept = NOTHING

    @property
    def text(self) -> str:
        """The first choice's text, as far as it was kept."""
        return self.kept.text

    @property
    def content_chunks(self) -> int:
        """In how many chunks content came: in none. What a stream's reader tells, this tells too."""
        return 0

    @property
    def complete(self) -> bool:
        """Whether this was a good answer."""
        return bool(self.finish_reason) and self.usage is not None and self.error is None


class AnswerReader:
    """Reads one streamed answer frame by frame and remembers what decides whether it was good.

    `keep_text` is how many characters of the first choice's words are kept (0: none). With several choices
    `finish_reason` is the last one seen, and the answer is complete only when every choice has finished.
    """

    __slots__ = ("_open", "content_chunks", "done", "error", "finish_reason", "kept", "usage")

    def __init__(self, keep_text: int = 0) -> None:
        self.finish_reason = ""
        self.usage: Usage | None = None
        self.error: str | None = None
        self.done = False
        self.content_chunks = 0
        self.kept = Kept(keep_text)
        self._open: set[int] = set()

    @property
    def text(self) -> str:
        """The first choice's text, as far as it was kept."""
        return self.kept.text

    @property
    def ended(self) -> bool:
        """Whether every choice finished and `[DONE]` came."""
        return bool(self.finish_reason) and not self._open and self.done

    @property
    def complete(self) -> bool:
        """Whether this was a good answer: finish_reason, usage and `[DONE]`, and no error."""
        return self.ended and self.usage is not None and self.error is None

    def frame(self, frame: bytes) -> FrameKind:
        """Take the next raw frame and say what it brought. Never raises: what cannot be read is an error."""
        data = payload(frame)
        if not data:
            return FrameKind.COMMENT
        if data.strip() == b"[DONE]":
            self.done = True
            return FrameKind.DONE
        chunk = parsed(data)
        if chunk is None:
            return self._failed("the engine sent a data frame that is not a JSON object")
        message = error_message(chunk)
        return self._failed(message) if message is not None else self._chunk(chunk)

    def _failed(self, message: str) -> FrameKind:
        self.error = self.error or message
        return FrameKind.ERROR

    def _chunk(self, chunk: dict[str, Any]) -> FrameKind:
        usage = usage_of(chunk.get("usage"))
        if usage is not None:
            self.usage = usage
        choices = objects(chunk.get("choices"))
        # A loop, not any(): every choice must be read.
        brought = [self._choice(choice) for choice in choices]
        if any(brought):
            self.content_chunks += 1
            return FrameKind.CONTENT
        return FrameKind.USAGE if usage is not None and not choices else FrameKind.OTHER

    def _choice(self, choice: dict[str, Any]) -> bool:
        """Read one choice of a chunk; tell whether it brought content."""
        index = choice.get("index", 0)
        self._finish(index if isinstance(index, int) else 0, choice.get("finish_reason"))
        delta = choice.get("delta")
        if self.kept.room and index == 0:
            _keep(self.kept, choice, delta)
        if isinstance(delta, dict):
            return any(delta.get(field) for field in _CONTENT_FIELDS)
        return bool(choice.get("text"))

    def _finish(self, index: int, reason: object) -> None:
        if not reason:
            self._open.add(index)
            return
        self._open.discard(index)
        self.finish_reason = str(reason)
        if reason in _BROKEN_FINISHES:
            self.error = self.error or f"the engine gave the answer up (finish_reason {reason})"


def read_whole(body: bytes, keep_text: int = 0) -> WholeAnswer:
    """Read an answer that came in one body. Never raises: what cannot be read is an error."""
    answer = parsed(body)
    if answer is None:
        return WholeAnswer(error="the engine's answer is not a JSON object")
    message = error_message(answer)
    if message is not None:
        return WholeAnswer(error=message)
    choices = objects(answer.get("choices"))
    reason, error = _finish(choices)
    kept = NOTHING
    if keep_text and choices:
        kept = Kept(keep_text)
        _keep(kept, choices[0], choices[0].get("message"))
    return WholeAnswer(reason, usage_of(answer.get("usage")), error, kept)


def _finish(choices: list[dict[str, Any]]) -> tuple[str, str | None]:
    """Return the last choice's finish_reason, "" unless all have one, and the error if an engine gave one up."""
    last, unfinished, broken = "", False, ""
    for choice in choices:
        last = str(choice.get("finish_reason") or "")
        unfinished = unfinished or not last
        if last in _BROKEN_FINISHES:
            broken = min(broken or last, last)
    error = f"the engine gave the answer up (finish_reason {broken})" if broken else None
    return "" if unfinished else last, error


def readable(frame: bytes) -> bool:
    """Tell whether a raw frame holds data that a client can read: `[DONE]` or a JSON object."""
    data = payload(frame) or b""
    return data.strip() == b"[DONE]" or parsed(data) is not None


def error_body(message: str, type_: str, code: int | str | None, param: str | None = None) -> bytes:
    """Return OpenAI's error object as JSON; vLLM's `code` is the HTTP status as an integer."""
    error = {"message": message, "type": type_, "param": param, "code": code}
    return json.dumps({"error": error}, ensure_ascii=False).encode("utf-8", "replace")


def error_event(message: str, type_: str, code: int | str | None, param: str | None = None) -> bytes:
    """Return the same error as one frame of a stream; `DONE` should follow it."""
    return b"data: " + error_body(message, type_, code, param) + b"\n\n"


def parsed(data: bytes) -> dict[str, Any] | None:
    """Return a JSON object; None if the bytes are anything else."""
    try:
        value = loads(data, "surrogatepass")
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def objects(value: object) -> list[dict[str, Any]]:
    """Return the objects of a list, whatever else it holds."""
    if not isinstance(value, list):
        return []
    if len(value) == 1:  # as nearly always
        return value if isinstance(value[0], dict) else []
    return [item for item in value if isinstance(item, dict)]


def error_message(value: Mapping[str, Any]) -> str | None:
    """Return the message of an error object; None if there is none. Older vLLM sent the error's fields bare."""
    error = value if value.get("object") == "error" else value.get("error")
    if not error:
        return None
    if isinstance(error, Mapping):
        return str(error.get("message") or "the engine sent an error without a message")
    return str(error)


def usage_of(value: object) -> Usage | None:
    """Return a `usage` object's tokens, in the words of chat or of /v1/responses; None if there is none."""
    if not isinstance(value, dict):
        return None
    prompt, completion, details = _CHAT_USAGE if "prompt_tokens" in value else _RESPONSES_USAGE
    if prompt not in value:
        return None  # audio may be billed by its length
    usage = Usage(count(value[prompt]), count(value.get(completion)))
    detailed = value.get(details)
    if isinstance(detailed, dict):
        usage.cached_tokens = count(detailed.get("cached_tokens"))
    return usage


def count(value: object) -> int:
    """Return a number of tokens; nonsense is 0."""
    return value if isinstance(value, int) and value > 0 else 0


def _keep(kept: Kept, choice: dict[str, Any], said: Any) -> None:
    """Keep what a choice brought, in a chunk's delta or a whole message, else as bare text."""
    if not isinstance(said, dict):
        kept.say(choice.get("text"))
        return
    kept.say(said.get("content"))
    if said.get("refusal"):
        kept.refused = True
    for place, call in enumerate(objects(said.get("tool_calls"))):
        number, function = call.get("index"), call.get("function")
        arguments = function.get("arguments") if isinstance(function, dict) else None
        kept.call(number if isinstance(number, int) else place, arguments)
