"""OpenTelemetry's side of `trace.py`: the only file that imports it.

Names and bounds are those of the GenAI semantic conventions (status: development), gen-ai-spans.md and
gen-ai-metrics.md of open-telemetry/semantic-conventions-genai. No prompt, no answer and no address is ever sent.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Mapping

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.metrics import Histogram
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from canary.core.outcome import Result
from gateway.record.log import Entry
from gateway.record.trace import Headers

_LOG = logging.getLogger("linnet.gateway")
_CLOSE_S = 2.0
_WARN_S = 60.0
_NAME = "linnet"

# What each route does, in the conventions' words where they have one.
_OPERATIONS: Mapping[str, str] = {
    "/v1/chat/completions": "chat",
    "/v1/responses": "chat",
    "/v1/completions": "text_completion",
    "/v1/embeddings": "embeddings",
    "/rerank": "rerank",
    "/v1/rerank": "rerank",
    "/v2/rerank": "rerank",
    "/score": "score",
    "/v1/score": "score",
    "/tokenize": "tokenize",
    "/detokenize": "detokenize",
    "/v1/audio/transcriptions": "transcription",
    "/v1/audio/translations": "translation",
}
_DURATION = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_FIRST = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_TOKEN = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
_USAGE = tuple(4**power for power in range(14))

Attributes = dict[str, str | int | float | bool | list[str]]


class OtelTracer:
    """Spans and instruments of one worker; where they go is the processor's and the reader's business."""

    def __init__(self, worker: str, processor: SpanProcessor, reader: MetricReader) -> None:
        # What the operator says in OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES wins.
        ours = Resource.create({"service.name": "linnet-gateway", "service.instance.id": worker})
        resource = ours.merge(OTELResourceDetector().detect())
        self._spans = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._spans.add_span_processor(processor)
        self._meters = MeterProvider([reader], resource=resource, shutdown_on_exit=False)
        self._tracer = self._spans.get_tracer(_NAME)
        self._context = TraceContextTextMapPropagator()
        self._instruments = _Instruments(self._meters)

    def begin(self, traceparent: bytes | None, tracestate: bytes | None) -> OtelSpan:
        """Begin one request; the sampler decides whether it is recorded (OTEL_TRACES_SAMPLER)."""
        given = {
            name: value.decode("latin-1")
            for name, value in (("traceparent", traceparent), ("tracestate", tracestate))
            if value
        }
        parent = self._context.extract(given) if traceparent else None
        span = self._tracer.start_span(_NAME, context=parent, kind=SpanKind.CLIENT)
        return OtelSpan(span, self._instruments)

    async def close(self) -> None:
        """Send what is left; a collector that does not answer is not waited for."""
        sending = threading.Thread(target=self._shut_down, name="last spans", daemon=True)
        sending.start()
        await asyncio.to_thread(sending.join, _CLOSE_S)

    def _shut_down(self) -> None:
        self._spans.shutdown()
        self._meters.shutdown()


class OtelSpan:
    """One request's span, and what the instruments hear of it."""

    __slots__ = ("_instruments", "_span")

    def __init__(self, span: Span, instruments: _Instruments) -> None:
        self._span = span
        self._instruments = instruments

    def headers(self) -> Headers:
        """Return this span's context in W3C form."""
        context = self._span.get_span_context()
        parent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
        headers = [(b"traceparent", parent.encode())]
        state = context.trace_state.to_header()
        return [*headers, (b"tracestate", state.encode("latin-1"))] if state else headers

    def end(self, entry: Entry) -> None:
        """Say how it ended."""
        self._instruments.observe(entry)
        if self._span.is_recording():
            self._span.update_name(f"{_operation(entry)} {entry.model}")
            self._span.set_attributes(attributes(entry))
            if error := error_of(entry):
                self._span.set_status(StatusCode.ERROR, error)
        self._span.end()


class _Instruments:
    """The conventions' histograms."""

    def __init__(self, provider: MeterProvider) -> None:
        meter = provider.get_meter(_NAME)

        def histogram(name: str, unit: str, text: str, bounds: tuple[float, ...]) -> Histogram:
            return meter.create_histogram(name, unit, text, explicit_bucket_boundaries_advisory=bounds)

        self._duration = histogram("gen_ai.server.request.duration", "s", "Time to the last byte.", _DURATION)
        self._first = histogram("gen_ai.server.time_to_first_token", "s", "Time to the first token.", _FIRST)
        self._token = histogram("gen_ai.server.time_per_output_token", "s", "Time per token after the first.", _TOKEN)
        self._usage = histogram("gen_ai.client.token.usage", "{token}", "Tokens read and written.", _USAGE)

    def observe(self, entry: Entry) -> None:
        """Count one request; times of tokens only where the answer was good."""
        common = _common(entry)
        error = error_of(entry)
        self._duration.record(entry.e2e_ms / 1000, {**common, "error.type": error} if error else common)
        if entry.prompt_tokens:
            self._usage.record(entry.prompt_tokens, {**common, "gen_ai.token.type": "input"})
        if entry.completion_tokens:
            self._usage.record(entry.completion_tokens, {**common, "gen_ai.token.type": "output"})
        if error or entry.ttft_ms is None:
            return
        self._first.record(entry.ttft_ms / 1000, common)
        if entry.completion_tokens > 1:
            per_token = (entry.e2e_ms - entry.ttft_ms) / (entry.completion_tokens - 1)
            self._token.record(per_token / 1000, common)


def _operation(entry: Entry) -> str:
    return _OPERATIONS.get(entry.path, "other")


def error_of(entry: Entry) -> str:
    """Return the class of what went wrong: an HTTP status, else a word of `Result`; "" for a good answer."""
    if entry.result == Result.OK:
        return ""
    return str(entry.status) if entry.status >= 400 else entry.result  # noqa: PLR2004


def _common(entry: Entry) -> Attributes:
    """What spans and instruments share."""
    return {
        "gen_ai.operation.name": _operation(entry),
        "gen_ai.provider.name": _NAME,
        "gen_ai.request.model": entry.model,
        "linnet.arm": entry.arm,
    }


def attributes(entry: Entry) -> Attributes:
    """Return a span's attributes; what is not known is not there."""
    known: Attributes = {
        **_common(entry),
        "gen_ai.request.stream": entry.stream,
        "gen_ai.usage.input_tokens": entry.prompt_tokens,
        "gen_ai.usage.output_tokens": entry.completion_tokens,
        "http.response.status_code": entry.status,
        "linnet.release": entry.release,
        "linnet.generation": entry.generation,
        "linnet.result": entry.result,
        "linnet.request_id": entry.request_id,
        "linnet.slice": entry.slice,
        "linnet.failed_over": entry.failed_over,
    }
    if error := error_of(entry):
        known["error.type"] = error
    if entry.finish_reason:
        known["gen_ai.response.finish_reasons"] = [entry.finish_reason]
    if entry.ttft_ms is not None:
        known["gen_ai.response.time_to_first_chunk"] = entry.ttft_ms / 1000
    if entry.cost_usd is not None:
        known["linnet.cost_usd"] = entry.cost_usd
    return known


class _Brief(logging.Handler):
    """What the exporter complains of, as one line of ours, at most once a minute: a collector may be away for long."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._next = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        """Pass one complaint on."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _WARN_S
            _LOG.warning("telemetry: %s", " ".join(record.getMessage().split()))


def sending_to(endpoint: str, worker: str) -> OtelTracer:
    """Return a tracer whose threads send to a collector."""
    complaints = logging.getLogger("opentelemetry")
    complaints.propagate = False
    complaints.handlers = [_Brief()]
    spans = BatchSpanProcessor(OTLPSpanExporter(f"{endpoint}/v1/traces"))
    reader = PeriodicExportingMetricReader(OTLPMetricExporter(f"{endpoint}/v1/metrics"))
    return OtelTracer(worker, spans, reader)
