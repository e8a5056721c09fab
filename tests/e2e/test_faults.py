"""Every process may be killed at any moment: users are served, and the release stays where it was."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Any

import pytest
from redis import Redis

from tests.e2e.story import acknowledged, audit, in_canary, place, settled
from tests.support.stack import LocalStack, until
from tests.support.users import Users

pytestmark = pytest.mark.e2e


def test_a_killed_candidate_is_rolled_back_and_nobody_notices(running_stack: LocalStack) -> None:
    """SIGKILL of the candidate in mid-canary: no error before a first byte; rolled back with the reason; audited."""
    stack = running_stack
    with Users(stack.gateway, count=10) as users:
        in_canary(stack)
        until(lambda: users.count("candidate") >= 20, "the candidate's answers")
        killed_ms = time.time() * 1000
        stack.signal("math-w8a8")
        waited = stack.linnet("status", "--wait", "rolled_back", "--timeout", "20s", "--json")
        assert waited.code == 0, waited
        record = until(lambda: acknowledged(stack), "the audit's word on every worker")
        later = users.count()
        until(lambda: users.count() > later + 20, "further answers")
    status = json.loads(waited.out)
    assert users.early_errors() == []
    assert all(answer.arm == "candidate" for answer in users.errors())
    assert status["desired"] == {"baseline": 1.0, "candidate": 0.0}
    assert "candidate" in status["reason"]
    assert any(character.isdigit() for character in status["reason"]), status["reason"]
    assert killed_ms <= record["breach_ms"] <= record["decided_ms"] <= record["acknowledged_ms"]
    assert record["acknowledged_ms"] - killed_ms < 5_000
    assert record["workers"] == 2
    last = [entry for entry in audit(stack) if entry["what"] == "rolled_back"]
    assert [entry["why"] for entry in last] == [status["reason"]]


def test_a_killed_control_plane_resumes_where_it_was(shared_stack: LocalStack) -> None:
    """SIGKILL of the controller in mid-release: it is started again; same phase, weights and generation."""
    stack = shared_stack
    with Users(stack.gateway) as users:
        before = in_canary(stack, "control-killed")
        pid = stack.signal("control")
        again = until(lambda: _back(stack, "control", pid), "another control plane")
        assert again != pid
        after = until(stack.status, "its status")
        assert place(after) == place(before)
        looked = after["looked_ms"] or 0
        until(lambda: (stack.status()["looked_ms"] or 0) > max(looked, before["looked_ms"]), "its next look")
        assert place(stack.status()) == place(before)
        assert _samples(stack.status()) >= _samples(before)
    assert users.errors() == []


def test_a_killed_store_forgets_at_most_a_second(shared_stack: LocalStack) -> None:
    """SIGKILL of the store in mid-release: the gateway serves on, and the file brings back place and tallies."""
    stack = shared_stack
    with Users(stack.gateway) as users:
        before = in_canary(stack, "store-killed")
        time.sleep(1.5)  # the file is written through each second
        since = _assigned(stack)
        until(lambda: _assigned(stack) > since, "a tally that grows")
        counted = _assigned(stack)
        pid = stack.signal("store")
        killed = time.time()
        until(lambda: _back(stack, "store", pid), "another store")
        until(lambda: users.count(since=killed) > 20, "answers meanwhile")
        assert users.count("candidate", since=killed) > 0  # the split holds although nobody confirms it
        after = until(stack.status, "the control plane's status")
        assert place(after) == place(before)
        until(lambda: _assigned(stack) >= counted, "the tallies of before", 10)
        until(lambda: settled(stack), "both workers")
    assert users.errors() == []
    final = stack.status()
    assert place(final) == place(before)
    good = users.count("candidate")
    assert _assigned(stack, "candidate") >= good - 60  # at most a second of them


def _assigned(stack: LocalStack, arm: str = "") -> int:
    """Return how many requests the store has counted as assigned in the canary (to an arm)."""
    with Redis.from_url(stack.store, decode_responses=True) as redis:
        try:
            fields = redis.hgetall("linnet:mathdocs:tally:store-killed:1")
        except OSError:
            return 0
    assert isinstance(fields, dict)
    return sum(
        int(count)
        for field, count in fields.items()
        if field.endswith("|assigned") and arm in ("", field.split("|")[1])
    )


def _samples(status: dict[str, Any]) -> int:
    return max((int(one["n"]) for one in status["guardrails"]), default=0)


def _back(stack: LocalStack, name: str, old: int) -> int:
    try:
        new = stack.child(name)
    except ProcessLookupError:
        return 0
    return 0 if new == old else new


def test_the_gateway_serves_with_everything_else_frozen(shared_stack: LocalStack) -> None:
    """Control plane and store both stopped: users of both arms are served without an error, and it goes on after."""
    stack = shared_stack
    with Users(stack.gateway) as users:
        before = in_canary(stack, "frozen")
        frozen = [stack.signal(name, signal.SIGSTOP) for name in ("control", "store")]
        since = time.time()
        try:
            time.sleep(4)
        finally:
            for pid in frozen:
                os.kill(pid, signal.SIGCONT)
        assert users.count("baseline", since) > 10
        assert users.count("candidate", since) > 10
        after = until(stack.status, "the status")
        until(lambda: settled(stack), "both workers")
    assert users.errors() == []
    assert place(after) == place(before)


def test_a_killed_stack_leaves_nothing_and_resumes(running_stack: LocalStack) -> None:
    """SIGKILL of `linnet up` ends every process; started again the release goes on where it was, with its weights."""
    stack = running_stack
    with Users(stack.gateway):
        before = in_canary(stack)
        time.sleep(1.2)
    stack.kill()
    stack.nothing_runs()
    stack.up()
    after = until(stack.status, "the status")
    assert place(after) == place(before)
    with Users(stack.gateway) as users:
        until(lambda: users.count("candidate") > 10, "the candidate's answers")
        until(lambda: _samples(stack.status()) > _samples(before), "the evidence to grow on")
    assert users.errors() == []
    assert place(stack.status()) == place(before)
    said = stack.end()
    assert (said.code, said.err) == (130, "")
    stack.nothing_runs(0.1)
