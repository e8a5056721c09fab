"""The mirror: some of the baseline's answers are asked of the candidate as well, later, and compared.

It has its own connections and its own limit; what does not fit is dropped and counted (attempted = mirrored + dropped),
and no answer ever waits for it. Nothing it does reaches an app.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from canary.core.arms import Arm, Endpoint, Split
from canary.scorers import SCORERS
from gateway.door.ask import Ask
from gateway.errors import BadAnswerError, UpstreamError
from gateway.pool.fetch import fetch
from gateway.pool.pool import Pools
from gateway.pool.sending import Errand, head_of
from gateway.pool.sink import Patience
from gateway.record.evidence import Evidence
from gateway.record.metrics import Metrics
from gateway.settings import Limits
from gateway.split.splits import Splits
from serving.errors import ServingError
from serving.teacher import teacher_forced
from serving.wire import Usage, WholeAnswer, read_whole, usage_of

_LOG = logging.getLogger("linnet.gateway")
_KEPT_TEXT = 32_000
_FLOOR_EVERY = 5
_OK = 200
_FAILED_PAIR = -1.0  # a candidate that gives no answer is as bad as one can be
_CHAT = "/v1/chat/completions"
_TEMPLATED = ("messages", "tools", "add_generation_prompt", "continue_final_message", "chat_template_kwargs")


@dataclass(frozen=True, slots=True)
class Mirror:
    """One sampled request, with what the baseline answered."""

    split: Split
    ask: Ask
    path: str
    slice: str
    answer: str
    request_id: str


class Shadow:
    """A bounded set of mirrors under way."""

    def __init__(self, pools: Pools, evidence: Evidence, splits: Splits, metrics: Metrics, limits: Limits) -> None:
        self._pools = pools
        self._evidence = evidence
        self._splits = splits
        self._metrics = metrics
        self._patience = Patience(limits.total_s, limits.between_s, limits.total_s)
        self._answer_bytes = limits.answer_bytes
        self._running: set[asyncio.Task[None]] = set()
        self._pairs = 0

    def offer(self, mirror: Mirror, *, room: bool) -> None:
        """Start a mirror if there is room, at the candidate too; never waits."""
        model = mirror.split.model
        self._metrics.mirror_attempted(model)
        if not room or len(self._running) >= mirror.split.shadow_concurrency:
            self._drop(model, "full" if room else "shed")
            return
        task = asyncio.get_running_loop().create_task(self._run(mirror))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    def keep(self, urls: Collection[str]) -> None:
        """Forget every replica but these."""
        self._pools.keep(urls)

    async def close(self) -> None:
        """End every mirror."""
        running = tuple(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        self._pools.close()

    async def _run(self, mirror: Mirror) -> None:
        """Mirror, and count what came of it; what goes wrong here stays here."""
        model = mirror.split.model
        if not self._wanted(mirror.split):
            self._drop(model, "superseded")
            return
        try:
            result = await self._pair(mirror)
        except (UpstreamError, ServingError, ValueError) as error:
            _LOG.info("shadow of %s: no pair: %s", model, error)
            result = "unscored"
        except Exception:  # noqa: BLE001 - a mirror must never end a worker
            _LOG.exception("shadow of %s failed", model)
            result = "unscored"
        self._metrics.pair(model, result)

    def _wanted(self, split: Split) -> bool:
        """Tell whether the attempt is still under way, and its candidate still asked at all."""
        route = self._splits.route(split.model)
        if route is None or route.reduced or route.split.candidate is None:
            return False
        return (route.split.release, route.split.attempt) == (split.release, split.attempt)

    async def _pair(self, mirror: Mirror) -> str:
        """Make one pair: "scored", "candidate_failed" or "unscored". Raises if the fault is not the candidate's."""
        split = mirror.split
        candidate = split.candidate
        if candidate is None:
            return "unscored"
        self._pairs += 1
        answer = await self._answered(mirror, candidate)
        if answer is None:
            return self._failed(mirror)
        self._agree(mirror, Arm.CANDIDATE, answer)
        if self._pairs % _FLOOR_EVERY == 0 and (again := await self._answered(mirror, split.baseline)) is not None:
            self._agree(mirror, Arm.BASELINE, again)
        prompt = await self._prompt_ids(mirror)
        base = await self._accuracy(mirror, split.baseline, prompt)
        if math.isnan(base):
            raise BadAnswerError("the prompt is too short to be scored")
        try:
            ours = await self._accuracy(mirror, candidate, prompt)
        except (UpstreamError, ServingError):
            return self._failed(mirror)
        self._evidence.ledger(split).pair(split.stage, mirror.slice, ours - base)
        return "scored"

    def _failed(self, mirror: Mirror) -> str:
        """Count the worst pair, unless the candidate was withdrawn meanwhile: its engine may end for that alone."""
        split = mirror.split
        if not self._wanted(split):
            return "unscored"
        self._evidence.ledger(split).pair(split.stage, mirror.slice, _FAILED_PAIR)
        return "candidate_failed"

    def _agree(self, mirror: Mirror, arm: Arm, answer: WholeAnswer) -> None:
        """Count how far an answer agrees with the baseline's; the baseline against itself is the floor."""
        agreement = SCORERS["agreement"](mirror.answer, answer.text)
        kind = "agree" if arm is Arm.CANDIDATE else "floor"
        name = f"{kind}.{round(100 * agreement)}"
        self._evidence.ledger(mirror.split).count(mirror.split.stage, arm.value, mirror.slice, name)
        self._metrics.agreement(mirror.split.model, kind, agreement)

    async def _answered(self, mirror: Mirror, endpoint: Endpoint) -> WholeAnswer | None:
        """Ask for the same answer, whole; None if none came that is good."""
        with suppress(UpstreamError):
            body = mirror.ask.forward_whole(endpoint.served_model)
            status, answer = await self._post(mirror, endpoint, mirror.path, body)
            whole = read_whole(answer, _KEPT_TEXT)
            self._meter(mirror, endpoint, whole.usage)
            return whole if status == _OK and whole.complete else None
        return None

    def _meter(self, mirror: Mirror, endpoint: Endpoint, usage: Usage | None) -> None:
        """Count what an arm was asked, good or not: spend of the release, and no evidence for or against an arm."""
        if usage is None:
            return
        split = mirror.split
        arm = Arm.CANDIDATE if endpoint is split.candidate else Arm.BASELINE
        ledger = self._evidence.ledger(split)
        for kind, count in (("prompt", usage.prompt_tokens), ("completion", usage.completion_tokens)):
            if count:
                ledger.count(split.stage, arm, mirror.slice, f"shadow_{kind}_tokens", count)

    async def _prompt_ids(self, mirror: Mirror) -> Any:
        """Return the prompt as the baseline's tokenizer reads it, chat template included; a text prompt as it is."""
        ask = mirror.ask
        if mirror.path != _CHAT:
            prompt = ask.get("prompt")
            several = isinstance(prompt, list) and bool(prompt) and not isinstance(prompt[0], int)
            return prompt[0] if several else prompt
        endpoint = mirror.split.baseline
        asked = {name: ask.get(name) for name in _TEMPLATED if ask.has(name)}
        asked = {**asked, "model": endpoint.served_model}
        tokens = (await self._object(mirror, endpoint, "/tokenize", asked)).get("tokens")
        if not isinstance(tokens, list) or not tokens:
            raise BadAnswerError("the baseline cannot tokenize the prompt")
        return tokens

    async def _accuracy(self, mirror: Mirror, endpoint: Endpoint, prompt: Any) -> float:
        """Return how often the engine would itself have said the next token of the prompt, 0..1."""
        asked = {
            "model": endpoint.served_model,
            "prompt": prompt,
            "max_tokens": 1,
            "temperature": 0,
            "prompt_logprobs": 0,
        }
        answer = await self._object(mirror, endpoint, "/v1/completions", asked)
        self._meter(mirror, endpoint, usage_of(answer.get("usage")))
        return SCORERS["next_token"](teacher_forced(dict(answer)))

    async def _object(
        self, mirror: Mirror, endpoint: Endpoint, path: str, asked: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """Post JSON and return the JSON object that answers. Raises UpstreamError."""
        status, body = await self._post(mirror, endpoint, path, json.dumps(asked).encode())
        try:
            value = json.loads(body)
        except ValueError:
            value = None
        if status != _OK or not isinstance(value, dict):
            raise BadAnswerError(f"{path} answered {status}")
        return value

    async def _post(self, mirror: Mirror, endpoint: Endpoint, path: str, body: bytes) -> tuple[int, bytes]:
        errand = Errand(path.encode(), head_of(f"shadow-{mirror.request_id}"[:128]), body, self._patience)
        status, _, answer = await fetch(self._pools, endpoint.replicas, errand, self._answer_bytes)
        return status, answer

    def _drop(self, model: str, reason: str) -> None:
        self._metrics.mirror_dropped(model, reason)
