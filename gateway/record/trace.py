"""Traces and GenAI metrics by OpenTelemetry, if they are wanted: what a request asks of them.

Nothing of OpenTelemetry is imported until an endpoint is set. Without one, a client's own trace context passes to the
engine as it came.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import import_module
from typing import Protocol
from urllib.parse import urlsplit

from gateway.errors import SettingsError
from gateway.record.log import Entry

Headers = list[tuple[bytes, bytes]]
CONTEXT = (b"traceparent", b"tracestate")
_PLAIN = re.compile(rb"[\x20-\x7e]{1,512}")
_OTEL = "gateway.record.otel"


class Span(Protocol):
    """One request in a trace, from its last byte read to its answer's last byte sent."""

    def headers(self) -> Headers:
        """Return the context for the engine, in place of the client's: what the engine does is below this span."""

    def end(self, entry: Entry) -> None:
        """Say how it ended; call it once."""


class Tracer(Protocol):
    """Begins spans. Neither this nor a span ever waits for the network."""

    def begin(self, traceparent: bytes | None, tracestate: bytes | None) -> Span:
        """Begin a request under the client's context, or a trace of its own if that is absent or not valid."""

    async def close(self) -> None:
        """Send what is left, for two seconds at most."""


def given_context(headers: Mapping[bytes, bytes]) -> Headers:
    """Return a client's own context as it came, without what could break a line."""
    return [(name, value) for name in CONTEXT if (value := headers.get(name)) and _PLAIN.fullmatch(value)]


def open_tracer(endpoint: str, worker: str) -> Tracer:
    """Return the tracer that sends to a collector's OTLP/HTTP base URL. Raises SettingsError as `check` does."""
    check(endpoint)
    tracer: Tracer = import_module(_OTEL).sending_to(endpoint.rstrip("/"), worker)
    return tracer


def check(endpoint: str) -> None:
    """Raise SettingsError with one line unless traces can be sent; the process that starts the workers asks."""
    try:
        parts = urlsplit(endpoint)
        whole = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        whole = False
    if not whole:
        raise SettingsError(f"LINNET_OTEL_ENDPOINT: {endpoint}: no base URL; write one such as http://127.0.0.1:4318")
    try:
        import_module(_OTEL)
    except ModuleNotFoundError as error:
        lacks = f"{error.name} is not installed"
        raise SettingsError(f"LINNET_OTEL_ENDPOINT: {lacks}; install linnet[otel] or unset it") from None
