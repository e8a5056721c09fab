"""`linnet up` on a machine that is not as it should be: one line with the mend, an exit code, nothing left running."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from serving.environment import environment_dir, installed, models_dir
from tests.e2e.specs import write_spec
from tests.e2e.story import in_canary, place
from tests.support.stack import LocalStack, until
from tests.support.users import Users

pytestmark = pytest.mark.e2e


def refused(stack: LocalStack, code: int = 1, lines: int = 1) -> str:
    """Wait for the end of a stack that cannot come up; return what it said."""
    said = stack.ended()
    stack.nothing_runs(0.5)
    assert (said.code, len(said.lines)) == (code, lines), said
    assert "Traceback" not in said.out + said.err
    assert "linnet is up" not in said.out
    return said.err


@pytest.mark.parametrize("name", ["OPS_PORT", "ENGINE_PORT"])
def test_a_taken_port_is_told_before_anything_starts(local_stack: LocalStack, name: str) -> None:
    """The line names the port, and the variable that moves it; no engine was started for nothing."""
    with socket.create_server(("127.0.0.1", local_stack.ports[name])):
        local_stack.begin()
        said = refused(local_stack)
    assert f"127.0.0.1:{local_stack.ports[name]}" in said
    assert f"set LINNET_{name}" in said
    assert not (local_stack.state / "logs").exists()


def test_a_second_stack_in_the_same_folder_is_refused(shared_stack: LocalStack, tmp_path: Path) -> None:
    """It names the owner; the first one serves on, and its release state is untouched."""
    with Users(shared_stack.gateway) as users:
        before = in_canary(shared_stack, "owned")
        second = LocalStack(tmp_path / "second")
        second.folder.mkdir()
        second.settings["LINNET_STATE"] = str(shared_stack.state)
        second.begin()
        said = second.ended()
        assert (said.code, len(said.lines)) == (1, 1), said
        assert f"pid {shared_stack.pid}" in said.err
        assert "LINNET_STATE" in said.err
    assert users.errors() == []
    assert place(shared_stack.status()) == place(before)


@pytest.mark.parametrize("at", ["", "logs", "models.yaml"])
def test_a_folder_that_cannot_be_written_is_named(local_stack: LocalStack, at: str) -> None:
    """Something of another kind in the way: the line names the path."""
    path = local_stack.state / at
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir() if at.endswith(".yaml") else path.write_text("in the way")
    local_stack.begin()
    assert str(path) in refused(local_stack)


def test_a_full_disk_is_told(local_stack: LocalStack) -> None:
    """A state folder without room: the store or we ourselves cannot write; the line says so."""
    local_stack.state.mkdir()
    mount = f'mount -t tmpfs -o size=16k full "{local_stack.state}"'
    fill = f'head -c 16k /dev/zero >"{local_stack.state}/filler"'
    small = ("unshare", "-rm", "sh", "-c", f'{mount} && {fill}; exec "$@"', "sh")
    if subprocess.run(["unshare", "-rm", "true"], check=False, capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount a small disk")
    local_stack.begin(prefix=small)
    said = refused(local_stack)
    assert "No space left" in said
    assert "free some room" in said


def test_an_engine_that_does_not_come_up_is_told(local_stack: LocalStack) -> None:
    """Its port is taken after the check: its own words, the mend, its log; the other engine and the store end too."""
    log, port = local_stack.state / "logs" / "base.log", local_stack.ports["ENGINE_PORT"]
    taken: list[socket.socket] = []

    def take() -> None:
        until(log.exists, "the engine's start", 20)
        taken.append(socket.socket())
        taken[0].bind(("127.0.0.1", port))

    thief = threading.Thread(target=take)
    thief.start()
    try:
        local_stack.begin()
        said = refused(local_stack)
    finally:
        thief.join()
        for one in taken:
            one.close()
    assert said.startswith("linnet: base did not come up (exit status 1)")
    assert "its port is taken" in said
    assert str(log) in said


def test_a_missing_model_folder_is_told(tmp_path: Path) -> None:
    """A cache whose models are gone: the line names the folder and the command that makes them."""
    real = Path(os.environ.get("LINNET_CACHE", Path.home() / ".cache" / "linnet"))
    cache = tmp_path / "cache"
    if not installed(real):
        pytest.skip("the engines' environment is not installed: make engines")
    models_dir(cache).mkdir(parents=True)
    environment_dir(cache).symlink_to(environment_dir(real))
    (models_dir(cache) / "adaptation.json").write_text("{}")
    stack = LocalStack(tmp_path, engine="vllm", LINNET_CACHE=str(cache))
    try:
        stack.begin()
        said = refused(stack)
    finally:
        stack.clear()
    assert f"no model in {models_dir(cache)}" in said
    assert "linnet adapt --demo" in said


def test_an_invalid_spec_is_one_line_a_fault(local_stack: LocalStack) -> None:
    """Each fault has its file and line, and the release that runs is left alone."""
    path = Path(write_spec(local_stack.folder))
    path.write_text(path.read_text().replace("percent: 20", "percent: 200").replace("risks:", "risk:"))
    local_stack.begin("--spec", str(path))
    lines = refused(local_stack, code=2, lines=2).splitlines()
    assert all(line.startswith(f"{path}:") for line in lines)
    assert lines == local_stack.linnet("lint", str(path)).lines


def test_an_engine_that_nobody_knows_is_told(local_stack: LocalStack) -> None:
    """The line names those that the stack has."""
    path = Path(write_spec(local_stack.folder))
    path.write_text(path.read_text().replace("engine: math-w8a8", "engine: gpt"))
    local_stack.begin("--spec", str(path))
    assert "'gpt'" in refused(local_stack)


def test_a_store_that_is_not_there_is_told(local_stack: LocalStack) -> None:
    """A store of the user's own that does not answer: not reachable (3)."""
    local_stack.settings["LINNET_REDIS_URL"] = f"redis://127.0.0.1:{local_stack.ports['STORE_PORT']}/0"
    local_stack.begin()
    assert "LINNET_REDIS_URL" in refused(local_stack, code=3)


@pytest.mark.parametrize(
    ("told", "after_s"), [(signal.SIGINT, 0.7), (signal.SIGTERM, 1.6), (signal.SIGINT, 2.4), (signal.SIGTERM, 3.4)]
)
def test_a_signal_at_any_moment_of_the_start_ends_all(
    local_stack: LocalStack, told: signal.Signals, after_s: float
) -> None:
    """One line, exit code 130, nothing left running."""
    local_stack.begin()
    time.sleep(after_s)
    said = local_stack.end(told)
    local_stack.nothing_runs(0.5)
    if said.code == -signal.SIGTERM and not local_stack.state.exists():
        return  # Python itself was still starting
    assert said.code == 130, said
    assert "Traceback" not in said.err
    assert ("stopped: nothing is left running" in said.out) != (said.err == "linnet: interrupted\n"), said


def test_an_impatient_ctrl_c_leaves_nothing_either(local_stack: LocalStack) -> None:
    """Three signals in a row: the stop is cut short, and everything is gone all the same."""
    local_stack.begin()
    until((local_stack.state / "logs" / "base.log").exists, "an engine's start")
    for _ in range(2):
        os.kill(local_stack.pid, signal.SIGINT)
        time.sleep(0.1)
    said = local_stack.end()
    local_stack.nothing_runs(5)
    assert said.code == 130
    assert "Traceback" not in said.err
