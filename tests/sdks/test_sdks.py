"""The SDKs that apps are written with work unchanged against a gateway on real vLLM.

Each `sdk_*` file is one SDK's script; it prints what it saw, and the tests hold that against what it should have seen.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from canary.core.events import Cause
from canary.storage.apikeys import ApiKeys, KeyLimits, checked
from canary.storage.link import open_redis
from serving import environment
from tests.sdks import toolbox
from tests.support.engines import VllmPair
from tests.support.gateway import GatewayProcess, entry
from tests.support.stack import until
from tests.support.valkey import Valkey

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

WHOLE = {"model": "support", "finish": "length", "tokens": 8}
STREAMED = {"same": True, "tokens": 8}
RESPONDED = {
    "model": "support",
    "same": True,
    "tokens": 8,
    "events": ["response.created", "response.completed"],
    "models": ["support"],
}
COMMON = {
    "aborted": 3,
    "whole": WHOLE,
    "structured": ["axis", "keep"],
    "unknown": [404, "model_not_found"],
    "stranger": [401, "invalid_api_key"],
    "retried": True,
}
LEFT = 'linnet_requests_total{arm="baseline",model="support",outcome="cancelled"}'
SHED = 'linnet_shed_total{model="busy",reason="queue_full"}'
SUM = {"name": "sum", "arguments": ["axis"]}
SEEN = {
    "sdk_openai.py": {
        "models": ["busy", "support"],
        "model": "support",
        "streamed": {**STREAMED, "models": ["support"]},
        "tool": SUM,
        "completed": {"same": True, "logprobs": 4},
        "responded": RESPONDED,
    },
    "sdk_langchain.py": {
        "streamed": {**STREAMED, "several": True},
        "tool": {"name": "Reduction", "arguments": ["axis", "keep"]},
        "batched": 3,
        "responded": {"model": "support", "tokens": 8},
    },
    "sdk_litellm.py": {"streamed": STREAMED, "tool": SUM, "completed": True, "unknown": 404, "stranger": 401},
    "sdk_openai.mjs": {
        "models": ["busy", "support"],
        "streamed": {**STREAMED, "models": ["support"]},
        "tool": SUM,
        "completed": {"same": True},
        "responded": RESPONDED,
    },
    "sdk_vercel.mjs": {"streamed": {**STREAMED, "model": "support"}, "tool": SUM, "completed": True},
}


@dataclass(frozen=True, slots=True)
class Served:
    """A gateway, and a key to it."""

    gateway: GatewayProcess
    key: str

    def counted(self, series: str) -> float:
        """Return what the gateway counts in a series."""
        page = httpx.get(f"{self.gateway.ops}/metrics", trust_env=False).text
        return sum(float(row.rpartition(" ")[2]) for row in page.splitlines() if row.startswith(series))


@pytest.fixture(scope="module")
def served(vllm_pair: VllmPair, valkey_session: Valkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A gateway that asks for keys, in front of one real engine: `support`, and `busy`, which has one slot."""
    key = asyncio.run(_new_key(valkey_session.url))
    url = vllm_pair.baseline.url
    models = {
        "support": entry(url, served_model=vllm_pair.model),
        "busy": entry(url, served_model=vllm_pair.model, slots=1, queue=0),
    }
    folder = tmp_path_factory.mktemp("sdks")
    with GatewayProcess(folder, models, LINNET_REDIS_URL=valkey_session.url) as gateway:
        yield Served(gateway, key)
        assert "Traceback" not in gateway.err


async def _new_key(url: str) -> str:
    redis = open_redis(url)
    try:
        wish = checked("sdks", ["inference"], KeyLimits())
        _, secret = await ApiKeys(redis, url).create(wish, Cause("tests", "the SDKs", time.time()))
    finally:
        await redis.aclose()
    return secret


def run(script: str, served: Served, folder: Path) -> dict[str, Any]:
    """Run an SDK's script in its own environment, and return what it saw."""
    cache, source = environment.cache_dir(), toolbox.HERE / script
    program = toolbox.python(cache)
    if source.suffix == ".mjs":  # Node looks for packages beside the script
        program, source = toolbox.node(cache), Path(shutil.copy(source, folder))
        (folder / "node_modules").symlink_to(toolbox.node_modules(cache) / "node_modules")
    env = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    env["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else its import fetches a list of prices from the internet
    done = subprocess.run(
        [program, source, served.gateway.url, served.key],
        env=env, cwd=folder, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


@pytest.mark.parametrize("script", SEEN)
def test_an_sdk_works_unchanged(served: Served, tmp_path: Path, script: str) -> None:
    """Chat, streams, objects, tools, errors, retries as the SDK tells them; a stream it leaves is over."""
    before = [served.counted(series) for series in (LEFT, SHED)]
    assert run(script, served, tmp_path) == COMMON | SEEN[script]
    until(lambda: served.counted(LEFT) > before[0], "the stream that was left")
    assert served.counted(SHED) > before[1]
