"""One request's story: choose, open, relay, observe.

It is told by events: the engine's bytes, the client's leaving, a limit that passed. Nothing waits and no task runs; a
callback does its part and returns. If the candidate fails before its first byte has gone out, the baseline answers, and
the failure still counts as the candidate's: who was assigned to it is who is counted (intention to treat). After the
first byte nothing is retried.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from time import monotonic

from canary.core.arms import Arm
from canary.core.outcome import Result
from gateway.door.ask import Ask
from gateway.door.client import Client, Header
from gateway.errors import ApiError, LateError, UpstreamError, of_upstream
from gateway.pool.pool import Pools, head_of
from gateway.record.evidence import Evidence
from gateway.record.metrics import Metrics
from gateway.record.shadow import Mirror, Shadow
from gateway.relay.trial import EngineError, Trial
from gateway.routes.table import Route
from gateway.settings import Limits
from gateway.split.choice import Choice

_JSON = b"application/json"
_SERVER_ERRORS = 500


@dataclass(frozen=True, slots=True)
class Desk:
    """What every exchange of a worker shares."""

    pools: Pools
    evidence: Evidence
    metrics: Metrics
    shadow: Shadow
    limits: Limits


class Exchange:
    """One request between its client and the arms; `began` is when its last byte was read, in monotonic seconds."""

    __slots__ = ("_began", "_client", "_desk", "_trial", "ask", "choice", "head", "route")

    def __init__(
        self,
        desk: Desk,
        client: Client,
        choice: Choice,
        ask: Ask,
        *,
        route: Route,
        passed: Sequence[Header],
        began: float,
    ) -> None:
        self._desk = desk
        self._client = client
        self._began = began
        self._trial: Trial | None = None
        self.choice = choice
        self.ask = ask
        self.route = route
        self.head = head_of(choice.request_id, passed, ask.content_type)

    def start(self) -> None:
        """Ask the chosen arm."""
        choice = self.choice
        self._desk.metrics.in_flight += 1
        if choice.evidence and choice.split.release:
            self._desk.evidence.ledger(choice.split).assigned(choice.split.stage, choice.arm, choice.slice)
        self._try(choice)

    # the client's connection calls these

    def left(self) -> None:
        """The client is gone: the engine need not go on."""
        if self._trial is not None:
            self._trial.abandon()
            self._over(self._trial, Result.CANCELLED)

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
        trial.abandon()
        self._over(trial, Result.CANCELLED)
        if self._client.answered:
            self._client.piece(trial.last_words(str(error), error.code))
            self._client.end()
        else:
            self._client.refuse(error)

    # its trial calls these

    def done(self, trial: Trial) -> None:
        """The trial's answer is out, as well as it went."""
        self._over(trial, trial.result)

    def failed(self, trial: Trial, error: UpstreamError) -> None:
        """The trial failed before the client got a byte."""
        self._over(trial, Result.TIMEOUT if isinstance(error, LateError) else Result.ERROR)
        if trial.choice.may_fail_over:
            self._fail_over()
        else:
            self._give_up(error)

    def _try(self, choice: Choice) -> None:
        desk, client = self._desk, self._client
        client.name_arm(choice.arm, choice.split.release, choice.split.generation)
        self._trial = trial = Trial(self, client, choice, desk.limits, self._began)
        desk.metrics.own_time(choice.split.model, monotonic() - self._began)
        trial.start(desk.pools)

    def _fail_over(self) -> None:
        """Let the baseline answer; no evidence for it, because chance did not send this request there."""
        self._desk.metrics.fail_over(self.choice.split.model)
        self._desk.metrics.in_flight += 1
        self._began = monotonic()
        self._try(replace(self.choice, arm=Arm.BASELINE, evidence=False))

    def _give_up(self, error: UpstreamError) -> None:
        """Pass the engine's own error on, else say what failed."""
        status, body = error.answer if isinstance(error, EngineError) else (0, b"")
        if status >= _SERVER_ERRORS and body.startswith(b"{"):
            self._client.whole(status, [(b"content-type", _JSON), (b"x-should-retry", b"true")], body)
        else:
            self._client.refuse(of_upstream(error))

    def _over(self, trial: Trial, result: Result) -> None:
        """Count how one arm did, and mirror what the baseline answered well."""
        self._trial = None
        desk, choice = self._desk, trial.choice
        desk.metrics.in_flight -= 1
        outcome = trial.outcome(result)
        desk.metrics.observe(choice.split.model, outcome)
        if not self.route.evidence:
            return
        if outcome.evidence:
            desk.evidence.record(choice.split, outcome)
        elif not choice.forced:
            desk.evidence.watch(choice.split, outcome)
        if result is Result.OK and trial.sampled:
            text = trial.answer_text()
            mirror = Mirror(choice.split, self.ask, self.route.path, choice.slice, text, choice.request_id)
            desk.shadow.offer(mirror)
