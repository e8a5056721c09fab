"""The tools in C, on real sockets."""

from __future__ import annotations

import http.client
import json
import shutil
from contextlib import closing
from dataclasses import replace

import pytest

from bench.errors import BenchError
from bench.gateways import tools
from bench.gateways.scenarios import Scenario, body
from bench.gateways.stage import Cores, await_ready, stage

needs_gcc = pytest.mark.skipif(not shutil.which("gcc"), reason="gcc is not installed")
STREAMED = Scenario(3, 0.2, streamed=True, tokens=4, first_us=1000, gap_us=1000)


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """Two engines."""
    with stage(tmp_path_factory.mktemp("stage"), Cores(None, None)) as it:
        yield it


def ask(port, raw):
    """One request on a connection of its own."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as line:
        line.request("POST", "/v1/chat/completions", raw)
        answer = line.getresponse()
        return answer.status, answer.read()


@needs_gcc
def test_the_engine_answers_whole_with_its_usage(scene):
    """At the length that was set."""
    scene.pace(Scenario(1, 1, reply=900))
    status, raw = ask(scene.ports[0], body(Scenario(1, 1), "m"))
    assert (status, len(raw)) == (200, 900)
    assert json.loads(raw)["usage"]["total_tokens"] == 384


@needs_gcc
def test_the_engine_takes_a_body_in_chunks(scene):
    """Some proxies send them so."""
    scene.pace(Scenario(1, 1, tokens=2))
    raw = body(replace(STREAMED, tokens=2), "m")
    _, answer = ask(scene.ports[1], iter([raw[:100], raw[100:]]))
    assert answer.count(b"data: ") == 2 + 4  # the role, two tokens, the reason, the usage, [DONE]
    assert answer.endswith(b"data: [DONE]\n\n")


@needs_gcc
def test_streams_are_counted_alike_by_both_sides(scene):
    """Every chunk that an engine sent is one that the generator timed."""
    before = scene.counts()[0]
    said = scene.drive(STREAMED, scene.ports[0], "/v1/chat/completions", "m", {"x-a": "b"})
    after = scene.counts()[0]
    assert said["errors"] == said["short"] == 0
    assert said["streams"] == after["streams"] - before["streams"] >= 3
    assert said["chunks"] == after["chunks"] - before["chunks"] == 4 * said["streams"]
    assert 0 < said["way_us"]["p50"] < said["first_us"]["p50"]


@needs_gcc
def test_a_stream_that_lacks_a_chunk_is_short(scene):
    """An answer cut off is no sample."""
    scene.pace(STREAMED)
    said = scene.drive(replace(STREAMED, tokens=5), scene.ports[0], "/v1/models", "m", {})
    assert said["streams"] == 0
    assert said["short"] + said["errors"] > 0


def test_what_is_missing_is_told_in_one_line(monkeypatch):
    """With the package it comes from."""
    monkeypatch.setattr(tools.shutil, "which", lambda name: None if name == "wrk" else name)
    with pytest.raises(BenchError, match=r"^not on the PATH: wrk \(package wrk\); install and run again$"):
        tools.check()


@needs_gcc
def test_nobody_waits_for_a_process_that_has_ended(scene, tmp_path):
    """It is told at once."""

    class Ended:
        def poll(self):
            return 1

    with pytest.raises(BenchError, match="ended before it was ready"):
        await_ready(1, "/", 30.0, Ended())
