"""One request's story: choose, open, relay, observe.

It is told by events: the engine's bytes, the client's leaving, a limit that passed. Nothing waits and no task runs; a
callback does its part and returns. If the candidate fails before its first byte has gone out, the baseline answers, and
the failure still counts as the candidate's: who was assigned to it is who is counted (intention to treat). After the
first byte nothing is retried.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from time import monotonic
from typing import Final

from canary.core.arms import Arm, Endpoint
from canary.core.outcome import Outcome, Result
from canary.core.tally import CONTROL
from canary.core.watchdog import Watchdog
from gateway.door.ask import Ask
from gateway.door.client import Client, Header, lines
from gateway.door.guest import Asked, Guest
from gateway.errors import ApiError, LateError, UpstreamError, of_upstream
from gateway.pool.admission import OverloadedError, Ticket
from gateway.pool.seats import Pool
from gateway.pool.sending import head_of
from gateway.record.evidence import Waiter
from gateway.record.log import Entry
from gateway.record.shadow import Mirror
from gateway.record.trace import CONTEXT, Span, given_context
from gateway.relay.bill import bill
from gateway.relay.desk import Desk
from gateway.relay.trial import EngineError, Trial
from gateway.split.choice import Choice

_JSON: Final = b"application/json"
_NOT_FOUND: Final = 404
_SERVER_ERRORS: Final = 500


class Exchange:
    """One request between its client and the arms; `began` is when its last byte was read, in monotonic seconds."""

    __slots__ = (
        "_arrived",
        "_began",
        "_client",
        "_desk",
        "_dog",
        "_guest",
        "_span",
        "_ticket",
        "_trial",
        "ask",
        "choice",
        "head",
        "route",
    )

    def __init__(self, desk: Desk, client: Client, choice: Choice, ask: Asked, guest: Guest, *, began: float) -> None:
        self._desk = desk
        self._client = client
        self._guest = guest
        self._arrived = self._began = began
        self._trial: Trial | None = None
        self._ticket: Ticket | None = None
        self._dog: Watchdog[Waiter] | None = None
        self._span: Span | None = None
        self.choice = choice
        self.ask = ask
        self.route = guest.route
        self.head = head_of(choice.request_id, self._context(guest.headers), ask.content_type)

    def start(self) -> None:
        """Ask the chosen arm."""
        desk, choice = self._desk, self.choice
        desk.metrics.in_flight += 1
        if choice.evidence and choice.split.release and self.route.evidence:
            ledger, stage = desk.evidence.ledger(choice.split), choice.split.stage
            ledger.assigned(stage, choice.arm, choice.slice, choice.unit, control=choice.control)
        pool = self._pool(choice)
        pool.budget.asked()
        self._try(choice, pool)

    # the client's connection calls these

    def left(self) -> None:
        """The client is gone: the engine need not go on."""
        if self._trial is not None:
            self._quit(self._trial)

    def pause(self) -> None:
        """The client cannot take more."""
        if self._trial is not None:
            self._trial.pause()

    def resume(self) -> None:
        """The client takes more."""
        if self._trial is not None:
            self._trial.resume()

    def cut(self, error: ApiError) -> None:
        """End the answer now, in whichever way is left."""
        trial = self._trial
        if trial is None:
            return
        self._quit(trial)
        if self._client.answered:
            if last := trial.last_words(str(error), error.code):  # an empty chunk would be the end
                self._client.piece(last)
            self._client.end()
        else:
            self._client.refuse(error)

    # its trial calls these

    def heard(self, at: float) -> None:
        """The client gets its first byte: this arm does not hang."""
        dog, self._dog = self._dog, None
        if dog is not None and self._trial is not None:
            dog.heard(self._trial.choice.arm, self, at)

    def done(self, trial: Trial) -> None:
        """The trial's answer is out, as well as it went."""
        self._over(trial, trial.result)

    def failed(self, trial: Trial, error: UpstreamError) -> None:
        """The trial failed before the client got a byte."""
        self._end(trial, Result.TIMEOUT if isinstance(error, LateError) else Result.ERROR, error)

    # the watchdog calls this

    def hung(self) -> None:
        """The candidate is found broken: whoever waits for it is answered by the baseline."""
        trial = self._trial
        if trial is not None and not self._client.answered:
            trial.abandon()
            self.failed(trial, LateError("the candidate hangs"))

    def _try(self, choice: Choice, pool: Pool) -> None:
        """Ask an arm as soon as it has a slot."""
        desk, split = self._desk, choice.split
        self._client.name_arm(choice.arm, split.release, split.generation)
        now = monotonic()
        desk.metrics.own_time(split.model, now - self._began)
        self._trial = trial = Trial(self, self._client, choice, pool, began=self._began)
        try:
            self._ticket = ticket = pool.gate.enter(self._ready, self._too_late, now)
        except OverloadedError as error:
            desk.metrics.shed(split.model, "queue_full")
            self._end(trial, Result.ERROR, error)
            return
        if ticket.inside:
            self._enter(now)

    def _ready(self) -> None:
        """A slot came free; a candidate or control that was withdrawn while this waited is asked no more."""
        trial = self._trial
        if trial is not None and trial.choice.may_fail_over and not self._desk.evidence.asked(trial.choice.split):
            self._count(trial, Result.CANCELLED)
            self._fail_over()
        else:
            self._enter(monotonic())

    def _enter(self, now: float) -> None:
        """Send the request, and have it watched if an arm is on trial."""
        trial = self._trial
        if trial is None:
            return
        choice = trial.choice
        if choice.split.candidate is not None and not choice.forced and self.route.evidence:
            self._dog = dog = self._desk.evidence.watchdog(choice.split, stream=self.ask.stream)
            if dog is not None:
                dog.sent(choice.arm, self, now, self.ask.tokens)
        trial.start(self._desk, now)

    def _too_late(self) -> None:
        """No slot came free in time."""
        if self._trial is not None:
            choice = self._trial.choice
            self._desk.metrics.shed(choice.split.model, "deadline")
            self._end(self._trial, Result.ERROR, self._trial.pool.gate.too_late())

    def _end(self, trial: Trial, result: Result, error: UpstreamError | OverloadedError) -> None:
        """Let the baseline answer if it may, else say what failed."""
        choice = trial.choice
        if choice.may_fail_over and trial.pool.budget.take(monotonic()):
            self._count(trial, result)
            self._fail_over()
        else:
            self._over(trial, result)
            self._give_up(error)

    def _fail_over(self) -> None:
        """Let the baseline's own replicas answer; no evidence, because chance did not send this request there."""
        self._desk.metrics.fail_over(self.choice.split.model)
        self._began = monotonic()
        choice = self.choice.at_baseline()
        self._try(choice, self._pool(choice))

    def _give_up(self, error: UpstreamError | OverloadedError) -> None:
        """Pass the engine's own error on, else say what failed."""
        status, body = error.answer if isinstance(error, EngineError) else (0, b"")
        # A route that the engine does not serve is the client's choice; a model that it does not know is ours.
        no_route = status == _NOT_FOUND and b"model" not in body
        if (status >= _SERVER_ERRORS or no_route) and body.startswith(b"{"):
            retry = b"false" if no_route else b"true"
            self._client.whole(status, lines([(b"content-type", _JSON), (b"x-should-retry", retry)]), body)
        else:
            self._client.refuse(of_upstream(error) if isinstance(error, UpstreamError) else error)

    def _pool(self, choice: Choice) -> Pool:
        return self._pool_of(choice, CONTROL if choice.control else choice.arm, choice.endpoint)

    def _pool_of(self, choice: Choice, arm: str, endpoint: Endpoint) -> Pool:
        return self._desk.pools.pool(choice.split.model, arm, endpoint.replicas, choice.pool)

    def _quit(self, trial: Trial) -> None:
        """Stop before the end; an answer that had said all was a good one."""
        trial.abandon()
        self._over(trial, Result.OK if trial.complete else Result.CANCELLED)

    def _over(self, trial: Trial, result: Result) -> None:
        """Leave behind what the request has to leave."""
        desk = self._desk
        desk.metrics.in_flight -= 1
        outcome = self._count(trial, result)
        self._trial = None
        if self._guest.caller.limits is not None:
            tokens, usd = 0, 0.0  # the engine's tokenizer is nobody's expense
            if self.route.evidence:
                tokens, usd = bill(outcome, self.ask.prompt_tokens, trial.choice.endpoint, sent=trial.sent)
            desk.quota.settle(self._guest.caller, self.ask.tokens, tokens, usd, at=self._arrived, now=monotonic())
        if desk.log is not None or self._span is not None:
            self._tell(trial.choice, outcome)

    def _count(self, trial: Trial, result: Result) -> Outcome:
        """Count how one arm did, and mirror what the baseline answered well."""
        desk, choice = self._desk, trial.choice
        dog, ticket, self._dog, self._ticket = self._dog, self._ticket, None, None
        if dog is not None:
            dog.gone(choice.arm, self)
        if ticket is not None:
            ticket.leave()  # others are let in from within: by now nothing can call this request
        outcome = trial.outcome(result)
        trial.let_go()
        desk.metrics.observe(choice.split.model, outcome)
        if not self.route.evidence:
            return outcome
        if outcome.evidence:
            desk.evidence.record(choice.split, outcome)
        elif not choice.forced:
            desk.evidence.watch(choice.split, outcome)
        if trial.sampled and result is Result.OK and isinstance(self.ask, Ask):
            text = trial.answer_text()
            mirror = Mirror(choice.split, self.ask, self.route.path, choice.slice, text, choice.request_id)
            desk.shadow.offer(mirror, room=self._room(choice))
        return outcome

    def _room(self, choice: Choice) -> bool:
        """Tell whether the candidate has room for a mirror: shadow traffic is shed first."""
        candidate = choice.split.candidate
        return candidate is not None and self._pool_of(choice, Arm.CANDIDATE, candidate).gate.spare

    def _context(self, headers: Mapping[bytes, bytes]) -> list[Header]:
        """Return the trace context for the engine: the span's, or the client's own as it came."""
        given = given_context(headers) if b"traceparent" in headers else []
        if self._desk.tracer is None:
            return given
        self._span = self._desk.tracer.begin(*(dict(given).get(name) for name in CONTEXT))
        return self._span.headers()

    def _tell(self, choice: Choice, outcome: Outcome) -> None:
        """Write the request's line, and end its span."""
        entry = Entry(
            unix_ms=int(time.time() * 1000),
            request_id=choice.request_id,
            model=choice.split.model,
            path=self.route.path,
            status=self._client.status or outcome.status,
            result=outcome.result.value,
            e2e_ms=(monotonic() - self._arrived) * 1000,
            arm=choice.arm.value,
            release=choice.split.release,
            generation=choice.split.generation,
            stream=self.ask.stream,
            ttft_ms=None if outcome.ttft is None else outcome.ttft * 1000,
            prompt_tokens=outcome.prompt_tokens,
            completion_tokens=outcome.completion_tokens,
            cost_usd=outcome.cost_usd,
            finish_reason=outcome.finish_reason,
            key_id=self._guest.caller.key_id,
            slice=choice.slice,
            failed_over=choice is not self.choice,
        )
        if self._desk.log is not None:
            self._desk.log.write(entry)
        if self._span is not None:
            self._span.end(entry)
