"""One request's story: choose, open, relay, observe.

If the candidate fails before its first byte has gone out, the baseline answers, and the failure still counts as the
candidate's: who was assigned to it is who is counted (intention to treat). After the first byte nothing is retried.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from time import monotonic

from canary.core.arms import Arm
from canary.core.assignment import mirrored
from canary.core.outcome import Outcome, Result
from gateway.door.ask import Ask
from gateway.door.client import Client, Header
from gateway.errors import BadAnswerError, LateError, LostError, UpstreamError, of_upstream
from gateway.pool.connection import Patience, Reply
from gateway.pool.pool import Head, Pools
from gateway.record.evidence import Evidence
from gateway.record.metrics import Metrics
from gateway.record.shadow import Mirror, Shadow
from gateway.relay.answer import Clock, StreamedAnswer, Told, outcome_of, told_by_stream, told_by_whole
from gateway.relay.naming import PublicName
from gateway.settings import Limits
from gateway.split.choice import Choice
from serving.wire import read_whole

_KEPT_TEXT = 32_000  # characters of an answer that a shadow compares
_OK = 200
_SERVER_ERRORS = 500
# A client cannot have caused these: it chose neither the engine nor the name it is served by.
_ARMS_FAULT = frozenset({401, 403, 404, 405, 408, 429})
_STREAM = b"text/event-stream"
_JSON = b"application/json"


@dataclass(frozen=True, slots=True)
class Desk:
    """What every exchange of a worker shares."""

    pools: Pools
    evidence: Evidence
    metrics: Metrics
    shadow: Shadow
    limits: Limits


def _clients_fault(status: int) -> bool:
    """Tell whether a status says that the request was at fault, and not the arm."""
    return 400 <= status < _SERVER_ERRORS and status not in _ARMS_FAULT  # noqa: PLR2004


class EngineError(UpstreamError):
    """The engine answered, with a failure of its own; the body is passed on where nobody else can answer."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"the engine answered {status}")
        self.answer = status, body


class Exchange:
    """One request between its client and the arms; `began` is when its last byte was read, in monotonic seconds."""

    def __init__(
        self, desk: Desk, client: Client, choice: Choice, ask: Ask, *, path: str, passed: Sequence[Header], began: float
    ) -> None:
        self._desk = desk
        self._client = client
        self._choice = choice
        self._ask = ask
        self._path = path
        self._head = Head(path, choice.request_id, passed)
        self._began = began

    async def run(self) -> None:
        """Answer the client, and tell what happened."""
        choice = self._choice
        if choice.evidence and choice.split.release:
            self._desk.evidence.ledger(choice.split).assigned(choice.split.stage, choice.arm, choice.slice)
        try:
            await self._try(choice)
        except UpstreamError as error:
            if choice.may_fail_over:
                await self._fail_over()
            else:
                await self._give_up(error)

    async def _fail_over(self) -> None:
        """Let the baseline answer; no evidence for it, because chance did not send this request there."""
        self._desk.metrics.fail_over(self._choice.split.model)
        self._began = monotonic()
        try:
            await self._try(replace(self._choice, arm=Arm.BASELINE, evidence=False))
        except UpstreamError as error:
            await self._give_up(error)

    async def _give_up(self, error: UpstreamError) -> None:
        """Pass the engine's own error on, else say what failed; a stream that has begun has been ended already."""
        if self._client.answered:
            return
        status, body = error.answer if isinstance(error, EngineError) else (0, b"")
        if status >= _SERVER_ERRORS and body.startswith(b"{"):
            await self._client.whole(status, [(b"content-type", _JSON), (b"x-should-retry", b"true")], body)
        else:
            await self._client.refuse(of_upstream(error))

    async def _try(self, choice: Choice) -> None:
        """Ask one arm, and record how it ended. Raises UpstreamError if it failed before the client got a byte."""
        trial = _Trial(choice, self._ask, self._began)
        try:
            reply = await self._open(choice)
            try:
                await self._relay(trial, reply)
            finally:
                reply.abort()
        except asyncio.CancelledError:
            self._record(trial, Result.CANCELLED)
            raise
        except UpstreamError as error:
            self._record(trial, Result.TIMEOUT if isinstance(error, LateError) else Result.ERROR)
            raise
        self._record(trial, trial.result)

    async def _open(self, choice: Choice) -> Reply:
        """Send the request to the arm and wait for the head of its reply."""
        endpoint, limits = choice.endpoint, self._desk.limits
        body = self._ask.forward(endpoint.served_model)
        first = limits.first_byte_s if self._ask.stream else limits.total_s
        self._desk.metrics.own_time(choice.split.model, monotonic() - self._began)
        self._client.name_arm(choice)
        patience = Patience(first, limits.between_s, limits.total_s)
        return await self._desk.pools.ask(endpoint.replicas, self._head, body, patience)

    async def _relay(self, trial: _Trial, reply: Reply) -> None:
        """Pass one reply on."""
        trial.status = reply.status
        streams = reply.header(b"content-type").startswith(_STREAM)
        if reply.status == _OK and streams:
            await self._relay_stream(trial, reply)
        else:
            await self._relay_whole(trial, reply)

    async def _relay_whole(self, trial: _Trial, reply: Reply) -> None:
        body = await reply.read(self._desk.limits.answer_bytes)
        status = reply.status
        if status != _OK and not _clients_fault(status):
            raise EngineError(status, body)
        headers = [(b"content-type", reply.header(b"content-type", _JSON))]
        if status != _OK:
            trial.result = Result.CLIENT_ERROR
            await self._client.whole(status, [*headers, (b"x-should-retry", b"false")], body)
            return
        answer = read_whole(body, trial.keep_text)
        trial.told, trial.text = told_by_whole(answer), answer.text
        if not answer.complete and trial.choice.may_fail_over:
            raise EngineError(status, body)
        trial.result = Result.OK if answer.complete else Result.ERROR
        await self._client.whole(status, headers, trial.name.body(body))

    async def _relay_stream(self, trial: _Trial, reply: Reply) -> None:
        """Pass a stream on, piece by piece. Raises UpstreamError only while the client has got nothing."""
        answer = StreamedAnswer(trial.name, usage_asked=self._ask.usage_asked, keep_text=trial.keep_text)
        trial.stream = answer
        try:
            while (piece := await reply.piece()) is not None:
                kept = answer.take(piece, monotonic())
                if answer.held > self._desk.limits.answer_bytes:
                    raise BadAnswerError(f"a frame of more than {self._desk.limits.answer_bytes} bytes")
                if answer.reader.error is not None and not self._client.answered and trial.choice.may_fail_over:
                    raise LostError("the engine began its stream with an error", heard=True)
                if kept:
                    await self._send_piece(reply, kept)
            if not self._client.answered:
                raise LostError("the engine ended its stream before it began", heard=True)
        except UpstreamError as error:
            if not self._client.answered:
                raise
            trial.result = Result.TIMEOUT if isinstance(error, LateError) else Result.ERROR
        last = answer.end()
        if trial.result is Result.OK and not answer.reader.complete:
            trial.result = Result.ERROR
        if last:
            await self._client.piece(last)
        trial.ended = monotonic()
        await self._client.end()

    async def _send_piece(self, reply: Reply, piece: bytes) -> None:
        if not self._client.answered:
            await self._client.begin(_OK, [(b"content-type", reply.header(b"content-type"))])
        await self._client.piece(piece)

    def _record(self, trial: _Trial, result: Result) -> None:
        """Count one arm's outcome, and mirror what the baseline answered well."""
        outcome = trial.outcome(result)
        choice = trial.choice
        self._desk.metrics.observe(choice.split.model, outcome)
        if outcome.evidence:
            self._desk.evidence.record(choice.split, outcome)
        elif not choice.forced:
            self._desk.evidence.watch(choice.split, outcome)
        if result is Result.OK and trial.sampled:
            mirror = Mirror(choice.split, self._ask, self._path, choice.slice, trial.answer_text(), choice.request_id)
            self._desk.shadow.offer(mirror)


class _Trial:
    """One arm's try at a request, as it goes."""

    __slots__ = (
        "_began",
        "choice",
        "ended",
        "keep_text",
        "name",
        "result",
        "sampled",
        "status",
        "stream",
        "text",
        "told",
    )

    def __init__(self, choice: Choice, ask: Ask, began: float) -> None:
        self.choice = choice
        self.name = PublicName(choice.endpoint.served_model, ask.model)
        drawn = choice.evidence and choice.arm is Arm.BASELINE
        self.sampled = drawn and mirrored(choice.split, choice.request_id)
        self.keep_text = _KEPT_TEXT if self.sampled else 0
        self.result = Result.OK
        self.status = 0
        self.text = ""
        self.told = Told()
        self.stream: StreamedAnswer | None = None
        self.ended: float | None = None
        self._began = began

    def answer_text(self) -> str:
        """The first choice's text, as far as it was kept."""
        return self.text if self.stream is None else self.stream.reader.text

    def outcome(self, result: Result) -> Outcome:
        """What this try leaves behind."""
        choice, stream = self.choice, self.stream
        first = None if stream is None else stream.first_content_at
        return outcome_of(
            choice.arm,
            choice.endpoint,
            result,
            self.told if stream is None else told_by_stream(stream.reader),
            Clock(self._began, self.ended or monotonic(), first),
            slice_=choice.slice,
            stage=choice.split.stage,
            status=self.status,
            evidence=choice.evidence,
        )
