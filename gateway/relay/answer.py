"""An answer on its way through: what the client gets of it, when its content came, how it ended (pure).

Bytes pass as they came, piece by piece; only a frame that the network has cut waits for its other half, because no one
can tell from half a frame whether it is the usage-only chunk of a client that did not ask for one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from gateway.relay.naming import PublicName
from gateway.relay.template import CountedTemplate, Reader, Template, learn, learn_event
from gateway.routes.table import Form
from serving.plain import TranscriptReader, read_bytes, read_plain, read_transcript
from serving.responses import ResponsesReader, read_response, response_error
from serving.sse import FrameSplitter
from serving.wire import DONE, AnswerReader, FrameKind, WholeAnswer, error_event, read_whole, readable

_BROKEN: Final = "the model's engine ended the answer before it was complete"
_BYTES: Final = b"application/octet-stream"
_LESSONS: Final = 8  # templates tried in one stream: frames that differ each time are parsed, not learned from
_SERVER_ERRORS: Final = 500
# A client cannot have caused these: it chose neither the engine nor the name it is served by.
_ARMS_FAULT: Final = frozenset({401, 403, 404, 405, 408, 429})
_NAMED: Final = frozenset({FrameKind.CONTENT, FrameKind.OTHER, FrameKind.USAGE})


class Learner(Protocol):
    """What makes a template of a frame, if it can; `keeping` tells whether the reader keeps what is said."""

    def __call__(self, frame: bytes, name: PublicName, *, keeping: bool) -> Template | CountedTemplate | None:
        """Return a template of a frame that brought content."""


@dataclass(frozen=True, slots=True)
class Manner:
    """How the answers of one form are read: frame by frame, whole, and by comparison with a frame read before."""

    stream: Callable[[int], Reader]
    whole: Callable[[bytes, int], WholeAnswer]
    learn: Learner = learn


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


def clients_fault(status: int) -> bool:
    """Tell whether a status says that the request was at fault, and not the arm."""
    return 400 <= status < _SERVER_ERRORS and status not in _ARMS_FAULT  # noqa: PLR2004


class StreamedAnswer:
    """One streamed answer. `first_content_at` is the time of the piece that brought the first content.

    `lessons` is how many templates may be learned: at 0 every frame is parsed.
    """

    __slots__ = (
        "_content_at",
        "_learn",
        "_lessons",
        "_longest",
        "_name",
        "_splitter",
        "_template",
        "_usage_asked",
        "first_content_at",
        "reader",
    )

    def __init__(
        self,
        name: PublicName,
        *,
        usage_asked: bool,
        keep_text: int = 0,
        form: Form = Form.CHAT,
        lessons: int = _LESSONS,
    ) -> None:
        manner = MANNERS[form]
        self._name = name
        self._splitter = FrameSplitter()
        self._usage_asked = usage_asked
        self._learn = manner.learn
        self._lessons = lessons
        self._template: Template | CountedTemplate | None = None
        self.reader = manner.stream(keep_text)
        self.first_content_at: float | None = None
        self._content_at = 0.0  # the last of it
        self._longest = 0.0

    @property
    def stall(self) -> float | None:
        """The longest wait between two pieces that brought content, in seconds; None if there were no two."""
        return self._longest or None

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
                wait = now - self._content_at
                self._content_at = now
                if wait > self._longest:  # noqa: PLR1730  max() takes longer, and this is for every piece
                    self._longest = wait
                return like
        chunks = self.reader.content_chunks
        passed = b"".join([kept for frame in self._splitter.feed(piece) if (kept := self._frame(frame))])
        if self.reader.content_chunks > chunks:
            self._brought_content(now)
        return passed

    def cut(self, now: float) -> None:
        """End the wait for more content: none will come."""
        if self.first_content_at is not None:
            self._longest = max(self._longest, now - self._content_at)

    def resume(self, now: float) -> None:
        """Wait from now on: the client took its time, and the engine had to."""
        self._content_at = now

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

    def _brought_content(self, now: float) -> None:
        """Time a piece."""
        if self.first_content_at is None:
            self.first_content_at = now
        else:
            self._longest = max(self._longest, now - self._content_at)
        self._content_at = now

    def _frame(self, frame: bytes) -> bytes:
        if self._template is not None:
            like = self._template.take(frame, self.reader)
            if like is not None:
                return like
        kind = self.reader.frame(frame)
        if kind is FrameKind.CONTENT:
            self._learn_from(frame)
        elif kind is not FrameKind.COMMENT:
            self._template = None  # what was learned holds until something else is said
        return self._kept(kind, frame)

    def _learn_from(self, frame: bytes) -> None:
        """Learn from a frame with content how the next ones will look."""
        self._template = None
        if self._lessons:
            self._lessons -= 1
            self._template = self._learn(frame, self._name, keeping=self.reader.kept.room > 0)

    def _kept(self, kind: FrameKind, frame: bytes) -> bytes:
        """Return what the client gets of one frame."""
        if kind is FrameKind.USAGE and not self._usage_asked:
            return b""
        return self._name.frame(frame) if kind in _NAMED else frame
