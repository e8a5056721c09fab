"""A release from end to end, by the operator's verbs, on the whole stack as processes (simulated engines)."""

from __future__ import annotations

import json
import os
import signal
import subprocess

import pytest
from openai import OpenAI

from tests.e2e.specs import write_spec
from tests.e2e.story import answered, audit, in_canary, place, prove_success
from tests.support.stack import LINNET, LocalStack, until
from tests.support.users import Users

pytestmark = pytest.mark.e2e


def test_a_release_goes_all_the_way_and_back(running_stack: LocalStack) -> None:
    """Preflight waits for the load report; then shadow, canary, bake, promoted; a rollback gives the old place back."""
    stack = running_stack
    spec = write_spec(stack.folder)
    assert stack.linnet("start", spec, "--reason", "try it").code == 0
    held = until(lambda: stack.status()["overlays"]["held"], "a reason why preflight waits")
    assert "linnet loadtest" in held
    assert "linnet loadtest" in stack.linnet("explain").out
    refused = stack.linnet("promote", "--reason", "in a hurry")
    assert (refused.code, len(refused.lines)) == (1, 1), refused

    tested = stack.linnet("loadtest", spec)
    assert (tested.code, tested.out.count("pass:")) == (0, 1), tested
    prove_success(stack)
    with _watching(stack) as watch:
        assert watch.stdout is not None
        seen = watch.stdout.readline()  # it watches before users come, so it cannot miss the shadow
        with Users(stack.gateway) as users:
            waited = stack.linnet("status", "--wait", "promoted", "--timeout", "60s")
            assert waited.code == 0, waited
            assert users.count("candidate") > 0
            assert watch.wait(10) == 0
            seen += watch.stdout.read()
    assert users.errors() == []
    phases = ["draft", "preflight", "shadow", "canary", "bake", "promoted"]
    assert list(dict.fromkeys(entry["phase"] for entry in stack.status()["timeline"])) == phases
    assert all(phase in seen for phase in phases[2:]), seen
    assert 0 <= stack.status()["rehearsal_ms"] < 1000
    assert json.loads(stack.linnet("history", "--json").out)[-1]["result"] == "promoted"
    assert _asked(stack) == "math-w8a8"

    back = stack.linnet("rollback", "--reason", "second thoughts")
    assert back.code == 0, back
    assert stack.status()["phase"] == "rolled_back"
    until(lambda: _asked(stack) == "base", "the old baseline's answers")
    assert stack.linnet("start", spec, "--reason", "again").code == 1  # the digest is in quarantine


def test_an_operator_has_the_last_word(shared_stack: LocalStack) -> None:
    """Set-weight, pause, resume, explain, abort, each with a reason in the audit; a stale generation is refused."""
    stack = shared_stack
    with Users(stack.gateway) as users:
        status = in_canary(stack, "by-hand")
        stale = stack.linnet("pause", "--reason", "x", "--if-generation", str(status["generation"] - 1))
        assert (stale.code, len(stale.lines)) == (4, 1), stale
        assert stack.linnet("pause").code == 2  # no reason, and no terminal to ask on
        assert stack.linnet("set-weight", "10", "--reason", "gently").code == 0
        assert stack.status()["desired"]["candidate"] == pytest.approx(0.1)
        assert stack.status()["overlays"]["paused"]
        assert stack.linnet("resume", "--reason", "go on").code == 0
        assert not stack.status()["overlays"]["paused"]
        assert "error_rate" in stack.linnet("explain").out
        assert stack.linnet("abort", "--reason", "changed my mind").code == 0
        assert stack.linnet("watch").code == 1  # an end that is no promotion
        until(lambda: _settled_on_baseline(users), "only the baseline answers")
    assert users.errors() == []
    told = {(entry["what"], entry["why"]) for entry in audit(stack)}
    assert {("set-weight", "gently"), ("resume", "go on"), ("abort", "changed my mind")} <= told
    assert stack.linnet("status", "--wait", "promoted").code == 1


def test_an_operator_rolls_back_past_a_dead_control_plane(running_stack: LocalStack) -> None:
    """With the control plane stopped its own address says so in one line; --store rolls back, and workers follow."""
    stack = running_stack
    with Users(stack.gateway) as users:
        status = in_canary(stack)
        pid = stack.signal("control", signal.SIGSTOP)
        try:
            dead = stack.linnet("rollback", "--reason", "it lies")
            assert (dead.code, len(dead.lines)) == (3, 1), dead
            done = stack.linnet("rollback", "--reason", "it lies", "--store", stack.store)
            assert done.code == 0, done
            until(lambda: _settled_on_baseline(users), "only the baseline answers")
            after = stack.status("--store", stack.store)
            assert (after["phase"], after["reason"]) == ("rolled_back", "it lies")
            assert after["generation"] == status["generation"] + 1
        finally:
            os.kill(pid, signal.SIGCONT)
        until(lambda: stack.status().get("phase") == "rolled_back", "the control plane's own word")
    assert users.errors() == []
    assert place(stack.status())[:3] == ("long", 1, "rolled_back")


def test_any_openai_client_is_served(shared_stack: LocalStack) -> None:
    """openai-python, whole and streamed, chat and completions; a wrong model is its NotFoundError."""
    with OpenAI(base_url=f"{shared_stack.gateway}/v1", api_key="none", max_retries=0) as client:
        assert [model.id for model in client.models.list()] == ["mathdocs"]
        whole = client.chat.completions.create(
            model="mathdocs", messages=[{"role": "user", "content": "A set"}], max_tokens=6
        )
        assert (whole.model, whole.choices[0].finish_reason) == ("mathdocs", "length")
        with client.completions.create(model="mathdocs", prompt="A set", max_tokens=6, stream=True) as stream:
            assert "".join(chunk.choices[0].text for chunk in stream).strip()
    said = subprocess.run(
        ["curl", "-sSN", "-w", "%{http_code}", f"{shared_stack.gateway}/v1/completions",
         "-H", "Content-Type: application/json",
         "-d", '{"model": "mathdocs", "prompt": "A set", "max_tokens": 4, "stream": true}'],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert said.endswith("data: [DONE]\n\n200")


class _watching:  # noqa: N801 - reads as a word of the test
    """`linnet watch`, piped, beside a release."""

    def __init__(self, stack: LocalStack) -> None:
        self._command = subprocess.Popen(
            [LINNET, "watch", "--interval", "200ms"],
            env=stack.environment, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True,
        )  # fmt: skip

    def __enter__(self) -> subprocess.Popen[str]:
        return self._command.__enter__()

    def __exit__(self, *trouble: object) -> None:
        self._command.kill()
        self._command.__exit__(*trouble)  # type: ignore[arg-type]


def _asked(stack: LocalStack) -> str:
    """Ask a few times and name the one engine that answered."""
    before = {name: answered(stack, name) for name in ("base", "math-w8a8")}
    with Users(stack.gateway, count=2) as users:
        until(lambda: users.count() >= 8, "eight answers")
    found = [name for name, count in before.items() if answered(stack, name) > count]
    return found[0] if len(found) == 1 else f"all of {found}"


def _settled_on_baseline(users: Users) -> bool:
    latest = users.answers[-12:]
    return len(latest) == 12 and all(answer.arm == "baseline" for answer in latest)
