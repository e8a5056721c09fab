"""Our own gateway as a peer, with everything on."""

from __future__ import annotations

import http.client
import json
import shutil
import subprocess
import sys
from contextlib import closing

import pytest

from bench.gateways.linnet import MODEL, SECRET, USUAL, Feature, arguments, features, names, pool, split_of
from bench.gateways.machine import free_ports, usage_of
from bench.gateways.scenarios import Scenario, body
from bench.gateways.stage import Cores, await_ready, stage
from bench.rig import until

GIVEN = ["--port", "1", "--folder", "f", "--baseline", "81", "--candidate", "82"]
needs_tools = pytest.mark.skipif(
    not all(map(shutil.which, ("gcc", "taskset", "setpriv"))), reason="gcc, taskset or setpriv is not installed"
)


def test_everything_is_on_unless_it_is_left_out():
    """What is dear and seldom used is added by name."""
    assert features(arguments(GIVEN)) == USUAL
    told = arguments([*GIVEN, "--with", "log", "--without", "keys,limits"])
    assert features(told) == {Feature.TALLIES, Feature.SLOTS, Feature.LOG}


def test_a_split_without_tallies_has_no_release():
    """The gateway keeps books for a release alone."""
    assert split_of(["http://a"], ["http://b"]).release
    assert not split_of(["http://a"], ["http://b"], on=frozenset()).release


def test_many_models_are_named_as_the_generators_number_them():
    """So that each request asks for another."""
    assert names(2) == ["user-00000001", "user-00000002"]
    assert names(0) == [MODEL]


def test_rules_for_replicas_are_those_of_what_is_on():
    """Nothing else is set."""
    assert pool(frozenset()) == {}
    assert pool(frozenset({Feature.AFFINITY, Feature.SLOTS})) == {"slots": 10_000, "balance": "affinity"}


def ask(port, key):
    """Return the status and the model of one whole answer."""
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as line:
        line.request("POST", "/v1/chat/completions", body(Scenario(1, 1), MODEL), headers)
        answer = line.getresponse()
        return answer.status, json.load(answer).get("model")


@needs_tools
def test_our_gateway_serves_those_who_have_the_key(tmp_path):
    """And takes its Valkey with it when it ends."""
    (port,) = free_ports(1)
    with stage(tmp_path, Cores(None, None)) as scene:
        up_a, up_b = scene.ports
        argv = ["--port", port, "--folder", tmp_path, "--baseline", up_a, "--candidate", up_b]
        process = subprocess.Popen([sys.executable, "-m", "bench.gateways.linnet", "--interpreted", *map(str, argv)])
        try:
            await_ready(port, "/readyz", 30.0, process)
            assert ask(port, SECRET) == (200, MODEL)
            assert ask(port, "lk-other") == (401, None)
        finally:
            process.terminate()
            process.wait(20)
    store = int((tmp_path / "store.pid").read_text())
    until("the end of the store", lambda: not usage_of(store).pids)
