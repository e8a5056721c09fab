"""The whole stack on two real vLLM engines: clients, a client that leaves, and a candidate killed in mid-canary."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator

import httpx
import pytest
from openai import OpenAI

from tests.e2e.story import acknowledged, audit, engine_ports, in_canary
from tests.support.stack import LocalStack, until
from tests.support.users import Users

pytestmark = [pytest.mark.vllm, pytest.mark.e2e]


@pytest.fixture(scope="module")
def vllm_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """`linnet up` as it comes: the demo's two models on real engines."""
    stack = LocalStack(tmp_path_factory.mktemp("vllm"), engine="vllm")
    try:
        stack.up(patience_s=240)
        yield stack
        said = stack.end()
        stack.nothing_runs(1)
        assert (said.code, said.err) == (130, "")
    finally:
        stack.clear()


def test_any_openai_client_is_served(vllm_stack: LocalStack) -> None:
    """openai-python, chat and completions, whole and streamed; curl streamed and whole."""
    words = [{"role": "user", "content": "Return the sum of two matrices"}]
    with OpenAI(base_url=f"{vllm_stack.gateway}/v1", api_key="none", max_retries=0) as client:
        whole = client.chat.completions.create(model="mathdocs", messages=words, max_tokens=8)  # type: ignore[call-overload]
        assert (whole.model, whole.usage.completion_tokens) == ("mathdocs", 8)
        with client.chat.completions.create(  # type: ignore[call-overload]
            model="mathdocs", messages=words, max_tokens=8, stream=True, stream_options={"include_usage": True}
        ) as stream:
            chunks = list(stream)
        assert chunks[-1].usage.completion_tokens == 8
        assert client.completions.create(model="mathdocs", prompt="A matrix", max_tokens=4).choices[0].text
    assert _curl(vllm_stack, stream=True).endswith("data: [DONE]\n\n200")
    assert json.loads(_curl(vllm_stack, stream=False).removesuffix("200"))["model"] == "mathdocs"


def test_a_client_that_leaves_frees_the_engine(vllm_stack: LocalStack) -> None:
    """The engine's running requests fall to 0 soon after a streaming client has gone."""
    body = {"model": "mathdocs", "prompt": "A set", "max_tokens": 1000, "ignore_eos": True, "stream": True}
    with httpx.stream("POST", f"{vllm_stack.gateway}/v1/completions", json=body, trust_env=False) as answer:
        assert answer.status_code == 200
        until(lambda: _running(vllm_stack) == 1, "the request in the engine's own count", 2)
        left = time.monotonic()
    until(lambda: _running(vllm_stack) == 0, "an idle engine", 5)
    assert time.monotonic() - left < 2.5  # a thousand tokens take longer


def test_a_killed_candidate_is_rolled_back_and_nobody_notices(vllm_stack: LocalStack) -> None:
    """SIGKILL in mid-canary under streams: no error before a first byte; rolled back with the reason; audited."""
    stack = vllm_stack
    with Users(stack.gateway, count=6, max_tokens=24) as users:
        in_canary(stack)
        until(lambda: users.count("candidate") >= 10, "the candidate's answers")
        killed_ms = time.time() * 1000
        stack.signal("math-w8a8")
        waited = stack.linnet("status", "--wait", "rolled_back", "--timeout", "30s", "--json")
        assert waited.code == 0, waited
        record = until(lambda: acknowledged(stack), "the audit's word on every worker")
        later = users.count()
        until(lambda: users.count() > later + 10, "further answers")
    status = json.loads(waited.out)
    assert users.early_errors() == []
    assert all(answer.arm == "candidate" for answer in users.errors())
    assert status["desired"]["candidate"] == 0.0
    assert re.search(r"candidate.*\d", status["reason"]), status["reason"]
    assert killed_ms <= record["breach_ms"] <= record["decided_ms"] <= record["acknowledged_ms"]
    assert [e["why"] for e in audit(stack) if e["what"] == "rolled_back"] == [status["reason"]]


def _curl(stack: LocalStack, *, stream: bool) -> str:
    body = json.dumps({"model": "mathdocs", "prompt": "A set", "max_tokens": 4, "stream": stream})
    return subprocess.run(
        ["curl", "-sSN", "-w", "%{http_code}", f"{stack.gateway}/v1/completions",
         "-H", "Content-Type: application/json", "-d", body],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip


def _running(stack: LocalStack) -> float:
    """Return how many requests the baseline's engine says it runs."""
    page = httpx.get(f"http://127.0.0.1:{engine_ports(stack)['base']}/metrics", trust_env=False).text
    found = re.search(r"^vllm:num_requests_running\{[^}]*\} (\S+)$", page, re.MULTILINE)
    assert found is not None
    return float(found[1])
