from __future__ import annotations

import asyncio
import logging
import re
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from gateway.record import otel
from gateway.record.otel import _OPERATIONS, OtelTracer
from gateway.record.trace import open_tracer
from gateway.routes.table import PROXIED
from tests.gateway.record.test_log import ENTRY

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = f"00-{TRACE}-{PARENT}-01".encode()


class Kept:
    """A tracer whose spans and numbers stay here."""

    def __init__(self) -> None:
        self.spans = InMemorySpanExporter()
        self.reader = InMemoryMetricReader()
        self.tracer = OtelTracer("w1", SimpleSpanProcessor(self.spans), self.reader)

    @property
    def span(self) -> ReadableSpan:
        """The only span."""
        (span,) = self.spans.get_finished_spans()
        return span

    def points(self) -> dict[str, list[Any]]:
        """What the instruments hold, by name."""
        (resource,) = self.reader.get_metrics_data().resource_metrics
        return {metric.name: list(metric.data.data_points) for metric in resource.scope_metrics[0].metrics}


@pytest.fixture
def kept() -> Kept:
    """A fresh one."""
    return Kept()


def test_a_span_says_what_the_conventions_ask_for(kept: Kept):
    """And which arm of which release answered."""
    kept.tracer.begin(SAMPLED, None).end(ENTRY)
    assert kept.span.name == "chat support"
    assert kept.span.kind is SpanKind.CLIENT
    assert kept.span.status.status_code is StatusCode.UNSET
    assert dict(kept.span.attributes) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "linnet",
        "gen_ai.request.model": "support",
        "gen_ai.request.stream": True,
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.response.time_to_first_chunk": 0.00125,
        "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.output_tokens": 20,
        "http.response.status_code": 200,
        "linnet.arm": "candidate",
        "linnet.release": "r1",
        "linnet.generation": 3,
        "linnet.result": "ok",
        "linnet.request_id": "req-1",
        "linnet.slice": "domain",
        "linnet.failed_over": True,
        "linnet.cost_usd": 0.000125,
    }


@pytest.mark.parametrize(("result", "status", "error"), [
    ("error", 502, "502"), ("timeout", 0, "timeout"), ("cancelled", 0, "cancelled"), ("client_error", 400, "400"),
    ("error", 200, "error"), ("refused", 429, "429"),
])  # fmt: skip
def test_a_failure_is_an_error_span(kept: Kept, result: str, status: int, error: str):
    """Its class is a status or a word of ours, never an engine's text."""
    kept.tracer.begin(SAMPLED, None).end(replace(ENTRY, result=result, status=status))
    assert kept.span.status.status_code is StatusCode.ERROR
    assert kept.span.attributes["error.type"] == error
    assert kept.points()["gen_ai.server.request.duration"][0].attributes["error.type"] == error
    assert "gen_ai.server.time_to_first_token" not in kept.points()


def test_the_engine_is_below_the_gateway_and_the_gateway_below_the_client(kept: Kept):
    """One trace, three levels; the vendor's state goes with it."""
    span = kept.tracer.begin(SAMPLED, b"congo=t61rcWkgMzE,rojo=00f067aa0ba902b7")
    headers = dict(span.headers())
    span.end(ENTRY)
    made = f"{kept.span.context.span_id:016x}"
    assert headers == {
        b"traceparent": f"00-{TRACE}-{made}-01".encode(),
        b"tracestate": b"congo=t61rcWkgMzE,rojo=00f067aa0ba902b7",
    }
    assert made != PARENT
    assert f"{kept.span.parent.span_id:016x}" == PARENT


def test_a_client_that_is_not_sampled_is_not_recorded(kept: Kept):
    """Its context still reaches the engine, with its flag; the numbers still count it."""
    span = kept.tracer.begin(f"00-{TRACE}-{PARENT}-00".encode(), None)
    assert re.fullmatch(rf"00-{TRACE}-[0-9a-f]{{16}}-00".encode(), dict(span.headers())[b"traceparent"])
    span.end(ENTRY)
    assert kept.spans.get_finished_spans() == ()
    assert kept.points()["gen_ai.server.request.duration"][0].count == 1


@settings(deadline=None)
@given(
    traceparent=st.none() | st.binary() | st.text("0123456789abcdef-", min_size=50, max_size=56).map(str.encode),
    tracestate=st.none() | st.binary(),
)
def test_whatever_a_client_sends_the_engine_gets_a_valid_context(traceparent: bytes | None, tracestate: bytes | None):
    """Nothing raises, and no header can carry a line break."""
    span = Kept().tracer.begin(traceparent, tracestate)
    headers = dict(span.headers())
    parts = re.fullmatch(rb"00-([0-9a-f]{32})-([0-9a-f]{16})-0[0-9a-f]", headers.pop(b"traceparent"))
    assert parts
    assert int(parts[1], 16)
    assert int(parts[2], 16)
    assert all(re.fullmatch(rb"[\x20-\x7e]+", value) for value in headers.values())
    span.end(ENTRY)


def test_the_instruments_have_the_conventions_names_and_bounds(kept: Kept):
    """Duration, first token, further tokens, usage; seconds and tokens."""
    kept.tracer.begin(None, None).end(ENTRY)
    points = kept.points()
    common = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "linnet",
        "gen_ai.request.model": "support",
        "linnet.arm": "candidate",
    }
    sums = {name: [point.sum for point in each] for name, each in points.items()}
    assert sums == {
        "gen_ai.server.request.duration": [pytest.approx(0.020345)],
        "gen_ai.server.time_to_first_token": [pytest.approx(0.00125)],
        "gen_ai.server.time_per_output_token": [pytest.approx((0.020345 - 0.00125) / 19)],
        "gen_ai.client.token.usage": [10, 20],
    }
    assert points["gen_ai.server.request.duration"][0].attributes == common
    assert points["gen_ai.server.request.duration"][0].explicit_bounds[-1] == 81.92
    assert points["gen_ai.client.token.usage"][1].attributes == {**common, "gen_ai.token.type": "output"}
    assert points["gen_ai.client.token.usage"][0].explicit_bounds[-1] == 67108864


def test_every_proxied_route_has_an_operation():
    """A new route must say what it does."""
    assert {route.path for route in PROXIED.values()} <= set(_OPERATIONS)


class Collector:
    """A collector on loopback: what was posted to it, by path."""

    def __init__(self, status: int = 200) -> None:
        posted: dict[str, list[bytes]] = {}

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                posted.setdefault(self.path, []).append(self.rfile.read(int(self.headers["content-length"])))
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.posted = posted
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()


@pytest.fixture
def collector() -> Iterator[Collector]:
    """One that takes everything."""
    collector = Collector()
    yield collector
    collector.server.shutdown()
    collector.thread.join()
    collector.server.server_close()


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    """An exporter that was given up tries and complains for a while: to nobody, and not into the next test."""
    yield
    logging.getLogger("opentelemetry").handlers = [logging.NullHandler()]
    for thread in threading.enumerate():
        if thread.name == "last spans":
            thread.join(20)


async def test_a_collector_gets_spans_and_numbers(collector: Collector, monkeypatch: pytest.MonkeyPatch):
    """Over OTLP/HTTP, as any backend reads it; closing sends what is left."""
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    tracer = open_tracer(collector.url + "/", "w1")
    for _ in range(3):
        tracer.begin(SAMPLED, None).end(ENTRY)
    await tracer.close()
    (spans,) = [ExportTraceServiceRequest.FromString(body) for body in collector.posted["/v1/traces"]]
    resource = {each.key: each.value.string_value for each in spans.resource_spans[0].resource.attributes}
    assert resource["service.name"] == "linnet-gateway"
    assert resource["service.instance.id"] == "w1"
    assert resource["deployment.environment.name"] == "test"
    sent = spans.resource_spans[0].scope_spans[0].spans
    assert [(span.name, span.trace_id.hex(), span.parent_span_id.hex()) for span in sent] == [
        ("chat support", TRACE, PARENT)
    ] * 3
    numbers = ExportMetricsServiceRequest.FromString(collector.posted["/v1/metrics"][-1])
    metrics = {metric.name: metric for metric in numbers.resource_metrics[0].scope_metrics[0].metrics}
    assert metrics["gen_ai.server.request.duration"].histogram.data_points[0].count == 3
    assert metrics["gen_ai.client.token.usage"].unit == "{token}"


async def test_a_collector_that_hangs_delays_nothing(monkeypatch: pytest.MonkeyPatch):
    """It takes the connection and never answers: requests and the end go on."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "10")
    monkeypatch.setattr(otel, "_CLOSE_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        tracer = open_tracer(f"http://127.0.0.1:{silent.getsockname()[1]}", "w1")
        slowest = 0.0
        for _ in range(2000):  # several batches
            began = time.monotonic()
            tracer.begin(None, None).end(ENTRY)
            slowest = max(slowest, time.monotonic() - began)
        began = time.monotonic()
        await tracer.close()
    assert slowest < 5
    assert time.monotonic() - began < 5


async def test_a_dead_collector_delays_nothing(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch):
    """Neither a request nor the end; it is one line in the log."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "10")  # longer than the end waits
    monkeypatch.setattr(otel, "_CLOSE_S", 0.5)
    tracer = open_tracer("http://127.0.0.1:1", "w1")
    tracer.begin(None, None).end(ENTRY)
    ticks = asyncio.ensure_future(_ticks())
    began = time.monotonic()
    await tracer.close()
    assert time.monotonic() - began < 5
    ticks.cancel()
    told = [record.getMessage() for record in caplog.records if "telemetry" in record.getMessage()]
    assert len(told) == 1
    assert "\n" not in told[0]


async def _ticks() -> None:
    """The loop goes on."""
    while True:
        before = time.monotonic()
        await asyncio.sleep(0.01)
        assert time.monotonic() - before < 1
