"""An answer on its way through: what the client gets of it, when its content came, how it ended (pure).

Bytes pass as they came, piece by piece; only a frame that the network has cut waits for its other half, because no one
can tell from half a frame whether it is the usage-only chunk of a client that did not ask for one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from canary.core.arms import Arm, Endpoint
from canary.core.outcome import Outcome, Result
from gateway.relay.naming import PublicName
from gateway.relay.template import CountedTemplate, Reader, Template, learn, learn_event
from gateway.routes.table import Form
from serving.cost import cost_of
from serving.plain import TranscriptReader, read_bytes, read_plain, read_transcript
from serving.responses import ResponsesReader, read_response, response_error
from serving.sse import FrameSplitter
from serving.wire import DONE, AnswerReader, FrameKind, Usage, WholeAnswer, error_event, read_whole, readable

_BROKEN: Final = "the model's engine ended the answer before it was complete"
_BYTES: Final = b"application/octet-stream"
_LESSONS: Final = 8  # templates tried in one stream: frames that differ each time are parsed, not learned from
_NAMED: Final = frozenset({FrameKind.CONTENT, FrameKind.OTHER, FrameKind.USAGE})


@dataclass(frozen=True, slots=True)
class Manner:
    """How the answers of one form are read: frame by frame, whole, and by comparison with a frame read before."""

    stream: Callable[[int], Reader]
    whole: Callable[[bytes, int], WholeAnswer]
    learn: Callable[[bytes, PublicName], Template | CountedTemplate | None] = learn


_CHAT: Final = Manner(AnswerReader, read_whole)
MANNERS: Mapping[Form, Manner] = {
    Form.CHAT: _CHAT,
    Form.COMPLETION: _CHAT,
    Form.RESPONSES: Manner(ResponsesReader, read_response, learn_event),
    Form.PLAIN: Manner(AnswerReader, read_plain),  # none of them streams
    Form.UPLOAD: Manner(TranscriptReader, read_transcript),
}


def whole_reader(form: Form, content_type: bytes) -> Callable[[bytes, int], WholeAnswer]:
    """Return what reads a whole answer of this form and content type."""
    if form is Form.PLAIN and content_type.startswith(_BYTES):
        return read_bytes
    return MANNERS[form].whole


class StreamedAnswer:
    """One streamed answer. `first_content_at` is the time of the piece that brought the first content."""

    __slots__ = ("_learn", "_lessons", "_name", "_splitter", "_template", "_usage_asked", "first_content_at", "reader")

    def __init__(self, name: PublicName, *, usage_asked: bool, keep_text: int = 0, form: Form = Form.CHAT) -> None:
        manner = MANNERS[form]
        self._name = name
        self._splitter = FrameSplitter()
        self._usage_asked = usage_asked
        self._learn = manner.learn
        self._lessons = _LESSONS
        self._template: Template | CountedTemplate | None = None
        self.reader = manner.stream(keep_text)
        self.first_content_at: float | None = None

    @property
    def held(self) -> int:
        """How many bytes wait for the rest of their frame."""
        return self._splitter.held

    def take(self, piece: bytes, now: float) -> bytes:
        """Return what the client gets of one piece; b"" if all of it has to wait or is not the client's."""
        # Most pieces are one frame like the last one. A template comes only after the first content.
        if self._template is not None and not self._splitter.held:
            like = self._template.take(piece, self.reader)
            if like is not None:
                return like
        return b"".join([kept for frame in self._splitter.feed(piece) if (kept := self._frame(frame, now))])

    def end(self, message: str = _BROKEN, code: str = "engine_failed") -> bytes:
        """Return what the client gets last: a frame without its blank line, and an ending if the engine gave none."""
        rest = self._splitter.rest
        if self.reader.done:
            return rest
        if rest:
            # Half a frame says nothing, and is no JSON to a client; a whole one lacks its blank line only.
            rest = self._kept(self.reader.frame(rest), rest) if readable(rest) else b""
        # A client would read what we add as part of a frame that was not ended; end that one first.
        closed = rest + b"\n\n" if rest else b""
        return closed if self.reader.done else closed + self._ending(message, code)

    def _ending(self, message: str, code: str) -> bytes:
        """Say that the answer is broken, unless the engine has said so, in the words of its form."""
        reader = self.reader
        if isinstance(reader, ResponsesReader):
            return b"" if reader.error else response_error(message, code, reader.sequence)
        return DONE if reader.error else error_event(message, "server_error", code) + DONE

    def _frame(self, frame: bytes, now: float) -> bytes:
        if self._template is not None:
            like = self._template.take(frame, self.reader)
            if like is not None:
                return like
        kind = self.reader.frame(frame)
        if kind is FrameKind.CONTENT:
            self._took_content(frame, now)
        elif kind is not FrameKind.COMMENT:
            self._template = None  # what was learned holds until something else is said
        return self._kept(kind, frame)

    def _took_content(self, frame: bytes, now: float) -> None:
        """Time the first content, and learn from the frame how the next ones will look."""
        if self.first_content_at is None:
            self.first_content_at = now
        self._template = None
        if self._lessons and not self.reader.room:  # a text that is kept has to be parsed
            self._lessons -= 1
            self._template = self._learn(frame, self._name)

    def _kept(self, kind: FrameKind, frame: bytes) -> bytes:
        """Return what the client gets of one frame."""
        if kind is FrameKind.USAGE and not self._usage_asked:
            return b""
        return self._name.frame(frame) if kind in _NAMED else frame


class Said(Protocol):
    """What an answer said about itself, whichever way it came: a stream's reader, or a whole answer."""

    @property
    def finish_reason(self) -> str:
        """Why it ended, "" if it does not say."""

    @property
    def usage(self) -> Usage | None:
        """Its tokens, None if it does not say."""

    @property
    def content_chunks(self) -> int:
        """How many pieces brought content."""


@dataclass(slots=True)  # one is made for every request: frozen ones cost three times as much
class Clock:
    """When things happened, in monotonic seconds; `began` is the last byte of the request."""

    began: float
    ended: float
    first_content: float | None = None


def outcome_of(
    arm: Arm,
    endpoint: Endpoint,
    result: Result,
    said: Said,
    clock: Clock,
    *,
    slice_: str = "",
    stage: int = 0,
    status: int = 0,
    evidence: bool = True,
    at: float = 0.0,
) -> Outcome:
    """Make the outcome. Without usage the chunks stand for tokens, and there is no price."""
    usage, price = said.usage, endpoint.price
    prompt, completion, cost = 0, said.content_chunks, None
    if usage is not None:
        prompt, completion = usage.prompt_tokens, usage.completion_tokens
        cost = None if price is None else cost_of(price, usage)
    e2e, ttft, tpot = clock.ended - clock.began, None, None
    if clock.first_content is not None:
        ttft = clock.first_content - clock.began
        tpot = None if completion < 2 else (e2e - ttft) / (completion - 1)  # noqa: PLR2004
    reason = said.finish_reason
    return Outcome(arm, result, slice_, stage, status, e2e, ttft, tpot, prompt, completion, reason, cost, evidence, at)
