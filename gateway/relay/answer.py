"""An answer on its way through: what the client gets of it, when its content came, how it ended (pure).

Bytes pass as they came, piece by piece; only a frame that the network has cut waits for its other half, because no one
can tell from half a frame whether it is the usage-only chunk of a client that did not ask for one.
"""

from __future__ import annotations

from dataclasses import dataclass

from canary.core.arms import Arm, Endpoint
from canary.core.outcome import Outcome, Result
from gateway.relay.naming import PublicName
from serving.cost import Price
from serving.sse import FrameSplitter
from serving.wire import DONE, AnswerReader, FrameKind, Usage, WholeAnswer, error_event, readable

_BROKEN = "the model's engine ended the answer before it was complete"


class StreamedAnswer:
    """One streamed answer. `first_content_at` is the time of the piece that brought the first content."""

    __slots__ = ("_name", "_splitter", "_usage_asked", "first_content_at", "reader")

    def __init__(self, name: PublicName, *, usage_asked: bool, keep_text: int = 0) -> None:
        self._name = name
        self._splitter = FrameSplitter()
        self._usage_asked = usage_asked
        self.reader = AnswerReader(keep_text)
        self.first_content_at: float | None = None

    @property
    def held(self) -> int:
        """How many bytes wait for the rest of their frame."""
        return self._splitter.held

    def take(self, piece: bytes, now: float) -> bytes:
        """Return what the client gets of one piece; b"" if all of it has to wait or is not the client's."""
        return b"".join([kept for frame in self._splitter.feed(piece) if (kept := self._frame(frame, now))])

    def end(self) -> bytes:
        """Return what the client gets last: a frame without its blank line, and an ending if the engine gave none."""
        rest = self._splitter.rest
        if rest and not self.reader.done:
            # Half a frame says nothing, and is no JSON to a client; a whole one lacks its blank line only.
            rest = self._kept(self.reader.frame(rest), rest) if readable(rest) else b""
        if self.reader.done:
            return rest
        # A client would read what we add as part of a frame that was not ended; end that one first.
        closed = rest + b"\n\n" if rest else b""
        told = b"" if self.reader.error else error_event(_BROKEN, "server_error", "engine_failed")
        return closed + told + DONE

    def _frame(self, frame: bytes, now: float) -> bytes:
        kind = self.reader.frame(frame)
        if kind is FrameKind.CONTENT and self.first_content_at is None:
            self.first_content_at = now
        return self._kept(kind, frame)

    def _kept(self, kind: FrameKind, frame: bytes) -> bytes:
        """Return what the client gets of one frame."""
        if kind is FrameKind.USAGE and not self._usage_asked:
            return b""
        return self._name.frame(frame) if kind in _NAMED else frame


_NAMED = frozenset({FrameKind.CONTENT, FrameKind.OTHER, FrameKind.USAGE})


@dataclass(frozen=True, slots=True)
class Told:
    """What an answer said about itself, whichever way it came."""

    finish_reason: str = ""
    usage: Usage | None = None
    chunks: int = 0
    complete: bool = False


def told_by_stream(reader: AnswerReader) -> Told:
    """Read it off a stream, finished or not."""
    return Told(reader.finish_reason, reader.usage, reader.content_chunks, reader.complete)


def told_by_whole(answer: WholeAnswer) -> Told:
    """Read it off a whole answer."""
    return Told(answer.finish_reason, answer.usage, 0, answer.complete)


@dataclass(frozen=True, slots=True)
class Clock:
    """When things happened, in monotonic seconds; `began` is the last byte of the request."""

    began: float
    ended: float
    first_content: float | None = None


def outcome_of(
    arm: Arm,
    endpoint: Endpoint,
    result: Result,
    told: Told,
    clock: Clock,
    *,
    slice_: str = "",
    stage: int = 0,
    status: int = 0,
    evidence: bool = True,
) -> Outcome:
    """Make the outcome. Without usage the chunks stand for tokens, and there is no price."""
    usage = told.usage
    completion = told.chunks if usage is None else usage.completion_tokens
    ttft = None if clock.first_content is None else clock.first_content - clock.began
    e2e = clock.ended - clock.began
    return Outcome(
        arm=arm,
        result=result,
        slice=slice_,
        stage=stage,
        status=status,
        e2e=e2e,
        ttft=ttft,
        tpot=None if ttft is None or completion < 2 else (e2e - ttft) / (completion - 1),  # noqa: PLR2004
        prompt_tokens=0 if usage is None else usage.prompt_tokens,
        completion_tokens=completion,
        finish_reason=told.finish_reason,
        cost_usd=None if usage is None or endpoint.price is None else Price.from_tuple(endpoint.price).of(usage),
        evidence=evidence,
    )
