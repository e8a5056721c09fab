"""Ask both engines for the evaluation's scores: straight to the replicas, a few passages at a time."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import httpx

from canary.core.arms import Endpoint
from canary.errors import Refused, Unreachable
from canary.evaluate import PassageScore
from serving.teacher import teacher_forced

CONCURRENCY = 4  # passages in flight per engine
TIMEOUT_S = 120.0

T = TypeVar("T")
Scores = dict[str, tuple[list[PassageScore], list[PassageScore]]]


async def examine(baseline: Endpoint, candidate: Endpoint, passages: Mapping[str, Sequence[str]]) -> Scores:
    """Score every slice's passages on both arms at once; the lists of a pair are parallel.

    Raises Unreachable if a replica does not answer, Refused if it answers with an error.
    """
    async with httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False) as http:
        both = await _together(_arm(http, endpoint, passages) for endpoint in (baseline, candidate))
    return {name: (both[0][name], both[1][name]) for name in passages}


async def _arm(
    http: httpx.AsyncClient, endpoint: Endpoint, passages: Mapping[str, Sequence[str]]
) -> dict[str, list[PassageScore]]:
    if not endpoint.replicas:
        raise Refused(f"engine {endpoint.engine}: no replica is known; start it, or list replicas in the spec")
    slots = asyncio.Semaphore(CONCURRENCY)
    replicas = itertools.cycle(endpoint.replicas)

    async def one(text: str) -> PassageScore:
        async with slots:
            return await _passage(http, next(replicas), endpoint.served_model, text)

    return {name: await _together(map(one, texts)) for name, texts in passages.items()}


async def _together(calls: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Await all; the first error cancels the rest and is raised alone."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(call) for call in calls]
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]


async def _passage(http: httpx.AsyncClient, replica: str, model: str, text: str) -> PassageScore:
    body = {"model": model, "prompt": text, "max_tokens": 1, "temperature": 0, "prompt_logprobs": 0}
    try:
        answer = await http.post(f"{replica.rstrip('/')}/v1/completions", json=body)
    except httpx.HTTPError as error:
        raise Unreachable(f"engine {replica}: no answer ({type(error).__name__}); start it, then repeat") from error
    if answer.is_error:
        raise Refused(
            f"engine {replica}: HTTP {answer.status_code} ({_message(answer)}); mend the passages or the engine"
        )
    return score(answer.json(), replica)


def score(body: dict[str, Any], replica: str = "") -> PassageScore:
    """Sum one answer's prompt log-probabilities; Refused if there are none."""
    tokens = teacher_forced(body)
    if not tokens:
        raise Refused(f"engine {replica}: no prompt_logprobs in its answer; evaluation needs an engine that gives them")
    right = sum(token.rank == 1 for token in tokens)
    return PassageScore(tokens=len(tokens), right=right, logprob=float(sum(token.logprob for token in tokens)))


def _message(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"]["message"]).splitlines()[0][:160]
    except (ValueError, KeyError, TypeError, IndexError):
        return "no reason given"
