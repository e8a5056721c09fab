"""One arm's try at a request: its reply passed on as it comes, and how it ended."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Final, Protocol

from canary.core.arms import Arm
from canary.core.assignment import mirrored
from canary.core.outcome import Outcome, Result
from gateway.door.client import Client, Header, lines, type_line
from gateway.door.guest import Asked
from gateway.errors import BadAnswerError, LateError, LostError, UpstreamError
from gateway.pool.seats import Pool
from gateway.pool.sending import Errand, Sending
from gateway.pool.sink import Headers
from gateway.relay.account import Clock, Said, examined, found_in, outcome_of
from gateway.relay.answer import StreamedAnswer, clients_fault, whole_reader
from gateway.relay.desk import Desk
from gateway.relay.naming import public_name
from gateway.routes.table import Form, Route
from gateway.split.choice import Choice
from serving.wire import WholeAnswer

_KEPT_TEXT: Final = 32_000  # characters of an answer that a shadow compares, or that are searched for flaws
_OK: Final = 200
_PASSED_BACK: Final = frozenset({b"metadata"})  # where an engine describes an embedding in bytes
_NOTHING: Final = WholeAnswer()
# Enum members are looked up in Python (0.14 us each in 3.11); these are used for every request.
_BASELINE: Final = Arm.BASELINE
_GOOD: Final = Result.OK
_BAD: Final = Result.ERROR
_LATE: Final = Result.TIMEOUT
_STREAM: Final = b"text/event-stream"
_JSON: Final = b"application/json"
_MIRRORED: Final = frozenset({Form.CHAT, Form.COMPLETION})  # what a shadow can ask again and score


class EngineError(UpstreamError):
    """The engine answered, with a failure of its own; the body is passed on where nobody else can answer."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"the engine answered {status}")
        self.answer = status, body


class Story(Protocol):
    """Whose trial it is."""

    ask: Asked
    route: Route
    head: bytes

    def heard(self, at: float) -> None:
        """The client gets its first byte, of what came at that time."""

    def done(self, trial: Trial) -> None:
        """The answer is out."""

    def failed(self, trial: Trial, error: UpstreamError) -> None:
        """The trial failed before the client got a byte."""


class Trial:
    """Hears an arm's reply (a `Sink`) and passes it on to the client."""

    __slots__ = (
        "_began",
        "_client",
        "_ended",
        "_kind",
        "_most",
        "_passed",
        "_paused",
        "_pieces",
        "_said",
        "_sending",
        "_size",
        "_status",
        "_story",
        "_stream",
        "body",
        "choice",
        "pool",
        "result",
        "sampled",
        "sent",
    )

    def __init__(self, story: Story, client: Client, choice: Choice, pool: Pool, *, began: float) -> None:
        self._story = story
        self._client = client
        self.pool = pool
        self._began = began
        self._ended: float | None = None
        self._sending: Sending | None = None
        self._paused = False
        self.choice = choice
        self.sampled = False
        self.sent = False  # whether an engine may have worked for it
        self.result = _GOOD
        self._status = 0
        self._kind = _JSON
        self._passed: list[Header] = []
        self._most = 0
        self._said = _NOTHING
        self._pieces: list[bytes] = []
        self._size = 0
        self._stream: StreamedAnswer | None = None
        self.body: Callable[[bytes, float], None] = self._gather

    def start(self, desk: Desk, now: float) -> None:
        """Send the request to the arm; `now` is monotonic seconds."""
        story, choice, ask = self._story, self.choice, self._story.ask
        self.sent = True
        self._most = desk.limits.answer_bytes
        if choice.evidence and choice.arm is _BASELINE and choice.split.shadow_percent:
            self.sampled = story.route.form in _MIRRORED and mirrored(choice.split, choice.request_id)
        patience = desk.stream_patience if ask.stream else desk.whole_patience
        body = ask.forward(choice.endpoint.served_model)
        errand = Errand(story.route.raw, story.head, body, patience, ask.tokens, choice.affinity)
        sending = desk.pools.send_to(self.pool, errand, self, now)
        if self._ended is None:
            self._sending = sending
            if self._paused:
                sending.pause()

    def abandon(self) -> None:
        """End the engine's work."""
        self._ended = self._ended or monotonic()
        if self._sending is not None:
            self._sending.abandon()

    def let_go(self) -> None:
        """Forget who was asked: trial and sending hold each other, and nobody should have to collect them."""
        self._sending = None
        self.body = _deaf

    def pause(self) -> None:
        """Let the engine wait for the client."""
        self._paused = True
        if self._sending is not None:
            self._sending.pause()

    def resume(self) -> None:
        """Go on."""
        self._paused = False
        if self._stream is not None:
            self._stream.resume(monotonic())
        if self._sending is not None:
            self._sending.resume()

    @property
    def complete(self) -> bool:
        """Whether a stream has said all; its client may leave then, before the engine has ended it."""
        return self._stream is not None and self._stream.reader.complete

    def last_words(self, message: str, code: str) -> bytes:
        """Return how a stream that is cut short ends, in the words of its form."""
        return b"" if self._stream is None else self._stream.end(message, code)

    def answer_text(self) -> str:
        """Return the first choice's text, as far as it was kept."""
        return self._said.text if self._stream is None else self._stream.reader.text

    def outcome(self, result: Result) -> Outcome:
        """Return what this try leaves behind."""
        stream, sending = self._stream, self._sending
        said: Said = self._said if stream is None else stream.reader
        clock = Clock(self._began, self._ended or monotonic())
        if stream is not None:
            clock.first_content, clock.stall = stream.first_content_at, stream.stall
        replica = -1 if sending is None else sending.replica
        found = found_in(said, self.choice, self._story.ask) if result is _GOOD else ()
        return outcome_of(self.choice, result, said, clock, status=self._status, replica=replica, found=found)

    # the engine's connection calls these

    def head(self, status: int, headers: Headers, _at: float) -> None:
        """Learn how the reply comes."""
        self._status = status
        if self._paused and self._sending is not None:  # there was no connection to be paused before
            self._sending.pause()
        for name, value in headers:
            if name == b"content-type":
                self._kind = value
            elif name in _PASSED_BACK:
                self._passed.append((name, value))
        if status == _OK and self._kind.startswith(_STREAM):
            story = self._story
            name_ = public_name(self.choice.endpoint.served_model, story.ask.model)
            asked, kept = story.ask.usage_asked, self._kept_text
            self._stream = StreamedAnswer(name_, usage_asked=asked, keep_text=kept, form=story.route.form)
            self.body = self._relay
            if self._sending is not None:
                self._sending.body = self._relay

    def ended(self, at: float) -> None:
        """The reply is whole."""
        self._ended = at
        if self._stream is None:
            pieces = self._pieces
            self._end_whole(pieces[0] if len(pieces) == 1 else b"".join(pieces), at)
        else:
            self._end_stream(self._stream)

    def failed(self, error: UpstreamError) -> None:
        """The reply broke off, or never came."""
        self._ended = monotonic()
        if self._stream is None or not self._client.answered:
            self._story.failed(self, error)
            return
        self.result = _BAD
        if isinstance(error, LateError):
            self.result = _LATE
            if not self._paused:
                self._stream.cut(self._ended)
        self._end_stream(self._stream)

    def _gather(self, piece: bytes, _at: float) -> None:
        """Keep a piece of a whole answer."""
        self._pieces.append(piece)
        self._size += len(piece)
        if self._size > self._most:
            self._break(BadAnswerError(f"an answer of more than {self._most} bytes"))

    def _relay(self, piece: bytes, at: float) -> None:
        """Pass a piece of a stream on."""
        answer, client = self._stream, self._client
        if answer is None or self._ended is not None:
            return
        kept = answer.take(piece, at)
        if answer.held > self._most:
            self._break(BadAnswerError(f"a frame of more than {self._most} bytes"))
            return
        if not kept:
            return
        if not client.answered:
            if answer.reader.error is not None and self.choice.may_fail_over:
                self._break(LostError("the engine began its stream with an error", heard=True))
                return
            self._story.heard(at)
            client.begin(_OK, type_line(self._kind))
        client.piece(kept)

    def _break(self, error: UpstreamError) -> None:
        """Give the reply up for what it brought."""
        if self._ended is None:
            self.abandon()
            self.failed(error)

    def _end_whole(self, body: bytes, at: float) -> None:
        status = self._status
        if status != _OK and not clients_fault(status):
            self._story.failed(self, EngineError(status, body))
            return
        story, client, head = self._story, self._client, type_line(self._kind)
        if self._passed:
            head += lines(self._passed)
        if status != _OK:
            self.result = Result.CLIENT_ERROR
            story.heard(at)
            client.whole(status, head + b"x-should-retry: false\r\n", body)
        else:
            answer = whole_reader(story.route.form, self._kind)(body, self._kept_text)
            self._said = answer
            if not answer.complete:
                if self.choice.may_fail_over:
                    story.failed(self, EngineError(status, body))
                    return
                self.result = _BAD
            story.heard(at)
            client.whole(status, head, public_name(self.choice.endpoint.served_model, story.ask.model).body(body))
        story.done(self)

    @property
    def _kept_text(self) -> int:
        return _KEPT_TEXT if self.sampled or examined(self.choice) else 0

    def _end_stream(self, answer: StreamedAnswer) -> None:
        client = self._client
        if not client.answered:
            self._story.failed(self, LostError("the engine ended its stream before it began", heard=True))
            return
        last = answer.end()
        if self.result is _GOOD and not answer.reader.complete:
            self.result = _BAD
        if last:
            client.piece(last)
        client.end()
        self._story.done(self)


def _deaf(_: bytes, _at: float) -> None:
    """Hear nothing more."""
