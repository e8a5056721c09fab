from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from canary.core.arms import Split
from tests.gateway.record.sample import sample
from tests.gateway.record.test_otel import PARENT, SAMPLED, TRACE, Collector, collector  # noqa: F401 - a fixture
from tests.gateway.rig import MODEL, House, Sim, gateway, until

SECRET = "sk-7Hq2"  # noqa: S105 - of nobody
WORDS = st.text(st.characters(codec="latin-1", exclude_categories=["Cc", "Z"]), min_size=12, max_size=40)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the access log is."""
    return tmp_path / "access.log"


@pytest.fixture
async def telling(base: Sim, tmp_path: Path, path: Path) -> AsyncIterator[House]:
    """A worker that writes an access log."""
    async with gateway(tmp_path, Split(MODEL, 0, base.endpoint()), access_log=str(path)) as house:
        yield house


def lines(path: Path) -> list[dict[str, Any]]:
    """What the log says so far."""
    return [json.loads(line) for line in path.read_text().splitlines()]


async def test_a_request_leaves_one_line(telling: House, path: Path):
    """Who was asked for what, who answered, how long it took; streamed or whole."""
    await telling.ask(stream=True, headers={"x-request-id": "req-7"})
    await until(lambda: lines(path), "the line")
    (said,) = lines(path)
    assert said["unix_ms"] > 1_600_000_000_000
    assert 0 < said["ttft_ms"] <= said["e2e_ms"] < 20_000
    expected = {
        "request_id": "req-7",
        "model": MODEL,
        "path": "/v1/chat/completions",
        "status": 200,
        "result": "ok",
        "arm": "baseline",
        "stream": True,
        "completion_tokens": 8,
        "finish_reason": "length",
        "failed_over": False,
    }
    assert {name: said[name] for name in expected} == expected


async def test_neither_prompts_nor_keys_nor_addresses_are_written(telling: House, base: Sim, path: Path):
    """Whatever a client puts a secret into, and wherever the engine lives."""
    secret = {"authorization": f"Bearer {SECRET}", "x-linnet-slice": SECRET, "x-linnet-session": SECRET}
    await telling.ask(SECRET, headers=secret, user=SECRET, metadata={"x": SECRET}, stop=[SECRET])
    await telling.ask(SECRET, headers=secret, model=SECRET)
    await telling.http.get(f"/v1/models/{SECRET}", headers=secret)
    await telling.http.post(f"/v1/completions?key={SECRET}", json={"model": MODEL, "prompt": SECRET})
    base.kill()
    await telling.ask(SECRET, headers=secret)
    said = await until(lambda: text if "error" in (text := path.read_text()) else "", "the failure's line")
    assert SECRET not in said
    assert base.url.removeprefix("http://") not in said


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=WORDS)
async def test_no_text_of_a_client_becomes_a_label(telling: House, text: str):
    """Model, headers, slice, path: nothing but configuration is on the page."""
    headers = {name: text.encode("latin-1") for name in ("x-linnet-slice", "x-linnet-session", "x-request-id")}
    body = {"model": text, "messages": [{"role": text, "content": text}], "user": text}
    await telling.http.post("/v1/chat/completions", json=body, headers=headers)
    await telling.http.post("/v1/chat/completions", json={**body, "model": MODEL, "max_tokens": 1}, headers=headers)
    await telling.http.post("/v1/completions", params={"x": text}, json={"model": [text]})
    sums = telling.app.desk.metrics.snapshot().sums
    assert text not in {value for rows in sums.values() for labels in rows for value in labels}


async def test_requests_in_flight_come_back_to_none(telling: House, base: Sim):
    """Also those that were refused, failed or left."""
    metrics = telling.app.desk.metrics
    base.behave(tpot_ms=100)
    asked = {"model": MODEL, "prompt": "x", "max_tokens": 200, "ignore_eos": True, "stream": True}
    async with telling.http.stream("POST", "/v1/completions", json=asked):
        assert base.running
        assert sample(metrics, "linnet_requests_in_flight") == 1
    await telling.ask(model="unknown")
    base.behave(error_rate=1.0)
    await telling.ask()
    await until(lambda: sample(metrics, "linnet_requests_in_flight") == 0, "none")


async def test_a_trace_goes_through_the_gateway(base: Sim, tmp_path: Path, collector: Collector):  # noqa: F811
    """The engine is told of the gateway's span, the collector gets it, under the client's."""
    async with gateway(tmp_path, Split(MODEL, 0, base.endpoint()), otel_endpoint=collector.url) as house:
        answer = await house.ask(headers={"traceparent": SAMPLED.decode(), "tracestate": "a=1"})
        assert answer.status_code == 200
    told = dict(base.engine.last["headers"])
    (span,) = [
        span
        for body in collector.posted["/v1/traces"]
        for span in ExportTraceServiceRequest.FromString(body).resource_spans[0].scope_spans[0].spans
    ]
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    assert told["traceparent"] == f"00-{TRACE}-{span.span_id.hex()}-01"
    assert told["tracestate"] == "a=1"


async def test_without_tracing_the_clients_context_passes_as_it_came(telling: House, base: Sim):
    """Byte for byte; and where there is none, none is made up."""
    await telling.ask(headers={"traceparent": SAMPLED.decode(), "tracestate": "a=1"})
    told = dict(base.engine.last["headers"])
    assert (told["traceparent"], told["tracestate"]) == (SAMPLED.decode(), "a=1")
    await telling.ask()
    assert not re.search("trace", str(base.engine.last["headers"]))
