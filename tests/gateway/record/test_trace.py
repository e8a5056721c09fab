from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from gateway.errors import SettingsError
from gateway.record.trace import given_context, open_tracer


@pytest.mark.parametrize(
    "endpoint", ["", "localhost:4318", "grpc://127.0.0.1:4317", "http://", "http://[::1", "http://a:b"]
)
def test_an_endpoint_that_is_no_url_is_one_line(endpoint: str):
    """Rather no start than traces that go nowhere."""
    with pytest.raises(SettingsError, match=r"LINNET_OTEL_ENDPOINT: .*no base URL"):
        open_tracer(endpoint, "w")


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    """The extra is optional; asking for it without having it is the operator's mistake, not a traceback."""
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    monkeypatch.delitem(sys.modules, "gateway.record.otel", raising=False)
    with pytest.raises(SettingsError, match=r"opentelemetry.* is not installed; install linnet\[otel\] or unset it"):
        open_tracer("http://127.0.0.1:1", "w")
    monkeypatch.undo()
    importlib.import_module("gateway.record.otel")


def test_a_worker_that_sends_no_traces_imports_nothing_of_it():
    """Nor what only the page of the metrics needs: memory is counted per worker."""
    heavy = {"opentelemetry.sdk.trace", "opentelemetry.exporter", "prometheus_client", "requests"}
    code = f"import sys, gateway.worker; print({heavy} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "set()\n"


def test_a_clients_context_passes_as_it_came_unless_it_could_break_a_line():
    """In a fixed order, and only what is there."""
    parent = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    assert given_context({b"tracestate": b"a=1", b"traceparent": parent, b"x": b"y"}) == [
        (b"traceparent", parent),
        (b"tracestate", b"a=1"),
    ]
    assert given_context({b"traceparent": b"a\r\nx: y", b"tracestate": b""}) == []
