from __future__ import annotations

import json
import random

import pytest

from canary.core.arms import Endpoint
from canary.errors import Refused, Unreachable
from canary.evaluate import Thresholds, report
from canary.examine import examine, score

CHANCE = random.Random(7)
PASSAGES = {"domain": [" ".join(str(CHANCE.randrange(10**6)) for _ in range(12)) for _ in range(30)]}


def endpoint(engine, *more: str) -> Endpoint:
    """Where a simulated engine is served."""
    return Endpoint(engine.model, engine.model, (engine.url, *more), f"sha256:{engine.model}")


async def test_both_arms_are_scored_passage_by_passage(simulated):
    """A better predictor shows a higher accuracy and a lower perplexity, with a proved difference."""
    base, better = simulated(model="base", accuracy=0.2), simulated(model="better", accuracy=0.6)
    arms = endpoint(base), endpoint(better)
    found = report("m", arms, 1, await examine(*arms, PASSAGES), Thresholds({"domain": 0.1}, None))
    assert found["verdict"] == "pass"
    assert found["slices"]["domain"]["baseline"]["accuracy"] == pytest.approx(0.2, abs=0.1)
    assert found["slices"]["domain"]["candidate"]["accuracy"] == pytest.approx(0.6, abs=0.1)
    assert json.loads(json.dumps(found)) == found


async def test_the_passages_are_shared_among_the_replicas(simulated):
    """Every replica of an arm gets its part."""
    first, second, other = simulated(model="base"), simulated(model="base"), simulated(model="new")
    await examine(endpoint(first, second.url), endpoint(other), PASSAGES)
    assert (first.counts["started"], second.counts["started"], other.counts["started"]) == (15, 15, 30)


async def test_an_engine_that_is_not_there_is_named(simulated):
    """No answer: exit code 3, and which replica."""
    gone = Endpoint("gone", "gone", ("http://127.0.0.1:9",), "d")
    with pytest.raises(Unreachable, match=r"engine http://127.0.0.1:9: no answer"):
        await examine(endpoint(simulated()), gone, PASSAGES)


async def test_an_engines_refusal_carries_its_reason(simulated):
    """The engine's own words are in the one line."""
    engine = simulated(model="base")
    wrong = Endpoint("base", "another", (engine.url,), "d")
    with pytest.raises(Refused, match="HTTP 404"):
        await examine(wrong, endpoint(engine), PASSAGES)


async def test_an_arm_without_replicas_is_refused():
    """Nothing to ask: say so."""
    with pytest.raises(Refused, match="no replica is known"):
        await examine(Endpoint("a", "a", ()), Endpoint("b", "b", ()), PASSAGES)


def test_an_answer_without_scores_is_refused():
    """An engine that cannot teacher-force cannot be evaluated."""
    with pytest.raises(Refused, match="no prompt_logprobs"):
        score({"choices": [{"text": "", "prompt_logprobs": [None]}]}, "http://e")
