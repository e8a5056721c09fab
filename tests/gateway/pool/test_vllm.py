"""What affinity is for, on real vLLM: a conversation that stays on its replica finds its prefix cached."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from random import Random

import httpx
import pytest

from canary.core.arms import Endpoint, Split
from gateway.pool.options import Balance, PoolOptions
from tests.gateway.rig import LIMITS, MODEL, House, gateway
from tests.support.engines import VllmPair

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

TALKS, TURNS, WORDS = 6, 6, 140
COUNTED = re.compile(r"^vllm:prefix_cache_(hits|queries)_total\{[^}]*\} (\S+)$", re.MULTILINE)
VOCABULARY = (
    "return",
    "the",
    "sum",
    "of",
    "two",
    "numbers",
    "and",
    "a",
    "list",
    "with",
    "each",
    "value",
    "from",
    "this",
)


async def counted(urls: tuple[str, ...]) -> dict[str, float]:
    """Tokens looked up and found in the prefix caches of all engines so far."""
    sums = {"hits": 0.0, "queries": 0.0}
    async with httpx.AsyncClient(timeout=20) as http:
        for url in urls:
            for kind, value in COUNTED.findall((await http.get(f"{url}/metrics")).text):
                sums[kind] += float(value)
    return sums


async def talk(house: House, words: Random, nonce: str) -> None:
    """Hold some conversations at once, each turn of each with all that was said before."""
    said = {number: f"{nonce} {number}" for number in range(TALKS)}
    for _ in range(TURNS):
        for number, text in said.items():
            said[number] = f"{text} {' '.join(words.choice(VOCABULARY) for _ in range(WORDS))}"
            body = {"model": MODEL, "prompt": said[number], "max_tokens": 1}
            session = {"X-Linnet-Session": f"{nonce}-{number}"}
            assert (await house.http.post("/v1/completions", json=body, headers=session)).status_code == 200


async def test_a_conversation_that_stays_finds_its_prefix_cached(vllm_pair: VllmPair, tmp_path: Path):
    """Six talks of six turns over two engines: of the tokens looked up, far more are found than by load alone."""
    urls = (vllm_pair.baseline.url, vllm_pair.candidate.url)
    split = Split(MODEL, 0, Endpoint("base", vllm_pair.model, urls))
    limits = replace(LIMITS, first_byte_s=60, between_s=60, total_s=60)
    found = {}
    for balance in Balance:
        pools = {MODEL: PoolOptions(balance=balance)}
        async with gateway(tmp_path / balance, split, limits=limits, pools=pools) as house:
            before = await counted(urls)
            await talk(house, Random(balance), balance)
            after = await counted(urls)
        hits, queries = (after[kind] - before[kind] for kind in ("hits", "queries"))
        found[balance] = hits / queries
    assert found[Balance.AFFINITY] > 1.2 * found[Balance.LEAST_TOKENS]
