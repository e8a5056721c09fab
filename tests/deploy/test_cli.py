from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.stack import LINNET

PREPARING = """
import os, sys, typer
from deploy.local.cli import _guard
from serving.steps import run_step
step = [sys.executable, "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(60)"]
try:
    _guard(lambda: run_step(step, os.environ, lambda line: print(line, flush=True))[0])
except typer.Exit as end:
    sys.exit(end.exit_code)
"""


@pytest.mark.parametrize("told", [signal.SIGINT, signal.SIGTERM])
def test_what_prepares_the_engines_ends_with_us(told: signal.Signals) -> None:
    """A signal while an installation step runs ends the step too, and is told in one line."""
    with subprocess.Popen([sys.executable, "-c", PREPARING], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as up:
        assert up.stdout is not None
        step = int(up.stdout.readline())
        up.send_signal(told)
        out, err = up.communicate(timeout=20)
    assert (up.returncode, err) == (130, b"")
    assert b"stopped: nothing is left running" in out
    with pytest.raises(ProcessLookupError):
        os.kill(step, 0)


@pytest.mark.parametrize("after_s", [0.0, 0.05, 0.1, 3.0])
def test_an_interrupted_verb_says_so(after_s: float) -> None:
    """Ctrl-C in any verb, also while it is still being read in, is one line and exit code 130."""
    command = [LINNET, "status", "--wait", "canary", "--url", "http://127.0.0.1:1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as verb:
        try:
            end = time.monotonic() + 20
            while "site-packages" not in Path(f"/proc/{verb.pid}/maps").read_text() and time.monotonic() < end:
                time.sleep(0.002)  # until the first compiled library is being read in
            time.sleep(after_s)
            verb.send_signal(signal.SIGINT)
            out, err = verb.communicate(timeout=20)
        finally:
            verb.kill()
    assert (verb.returncode, out, err) == (130, "", "linnet: interrupted\n")


@pytest.mark.parametrize(("name", "value"), [("LINNET_GATEWAY_PORT", "http"), ("LINNET_WORKERS", "two")])
def test_a_wrong_setting_is_one_line(name: str, value: str) -> None:
    """A variable that cannot be read is named, with the mend, before anything starts."""
    done = subprocess.run(
        [LINNET, "up", "--engine", "simulated"],
        env=os.environ | {name: value}, capture_output=True, text=True, check=False, timeout=20,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"linnet: {name}: ")
    assert len(done.stderr.splitlines()) == 1
