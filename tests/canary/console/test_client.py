from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from canary.console.client import Http, only_model
from canary.errors import Conflict, LinnetError, Refused, TimedOut, Unreachable, Usage


class Canned(BaseHTTPRequestHandler):
    """Answers everything with what the test put on the server."""

    def do_GET(self):
        """Answer."""
        status, body = self.server.answer
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815 - the library's name

    def log_message(self, *args):
        """Say nothing."""


@pytest.fixture
def canned() -> Iterator[ThreadingHTTPServer]:
    """A server on a real socket that answers as told."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Canned) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def client(server: ThreadingHTTPServer) -> Http:
    """A client of that server."""
    return Http(f"http://127.0.0.1:{server.server_port}")


@pytest.mark.parametrize(
    ("code", "kind"), [(1, Refused), (2, Usage), (3, Unreachable), (4, Conflict), (5, TimedOut), (99, Refused)]
)
def test_an_error_keeps_its_words_and_its_exit_code(canned, code, kind):
    """The control plane's error object becomes the same error here."""
    canned.answer = (409, json.dumps({"error": {"message": "what; mend", "exit_code": code}}).encode())
    with pytest.raises(kind, match="what; mend"):
        client(canned).status("m")


@pytest.mark.parametrize(
    ("status", "body"),
    [(200, b"<html>"), (502, b"Bad Gateway"), (500, b"[]"), (404, b'{"detail": "no"}'), (200, b"[1]")],
)
def test_somebody_elses_answer_is_one_clear_error(canned, status, body):
    """A proxy's page or another program on the port: an error of ours that names the URL."""
    canned.answer = (status, body)
    with pytest.raises(LinnetError, match=r"control plane http://127.0.0.1:\d+: .*check --url"):
        client(canned).status("m")


def test_nobody_there_is_unreachable():
    """A closed port: exit code 3 and the way around."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(Unreachable, match="--store URL"):
        Http(f"http://127.0.0.1:{port}").models()


@pytest.mark.parametrize("url", ["", "127.0.0.1:8081", "ftp://x", "http://", "http://h:notaport", "http://h:70000"])
def test_a_bad_url_is_wrong_usage(url):
    """What was typed is quoted, with the form it should have."""
    with pytest.raises(Usage, match="--url"):
        Http(url)


@pytest.mark.parametrize(("names", "error"), [([], Refused), (["a", "b"], Usage)])
def test_none_or_several_models_must_be_named(canned, names, error):
    """No guess between two, and no release to speak of."""
    canned.answer = (200, json.dumps({"models": names}).encode())
    with pytest.raises(error):
        only_model(client(canned), None)


def test_the_only_model_is_meant(canned):
    """One model needs no --model."""
    canned.answer = (200, b'{"models": ["m"]}')
    assert only_model(client(canned), None) == "m"


def test_a_named_model_is_taken_without_asking():
    """--model works before anything is reached."""
    assert only_model(Http("http://127.0.0.1:9"), "m") == "m"
