"""The local stack as its user runs it: `linnet up` as a process, with a state folder and ports of its own.

`LocalStack(folder)` is not started yet: `stack.up()` starts it and waits until it says so, `stack.end()` ends it the
polite way, `stack.kill()` the hard way. Fixtures, all with simulated engines: `local_stack` (not started),
`running_stack` (the test's own, up), `shared_stack` (one a session, up, no release
under way, for tests that leave it whole).
Whatever a test does, nothing of the stack is left after it: every process of it carries the state folder's name in its
environment, and is found by that.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

LINNET = Path(sys.executable).with_name("linnet")
UP = "linnet is up"
PATIENCE_S = 45.0
POLL_S = 0.05
BELOW_EPHEMERAL = (15_000, 32_000)
"""A port that the kernel never gives to a client: who connects to a dead listener must not meet itself."""

WORDS = {  # how a process of the stack is known by its command line
    "store": "valkey-server",
    "control": "-m canary",
    "gateway": "-m gateway",
    "worker": "-m gateway.worker",
    "reaper": "reaper.py",
}


@dataclass(frozen=True, slots=True)
class Said:
    """What a command said, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """The lines on standard error."""
        return self.err.strip().splitlines()


def until(true: Callable[[], Any], what: str, patience_s: float = PATIENCE_S) -> Any:
    """Wait until a condition holds and return its value."""
    end = time.monotonic() + patience_s
    while not (value := true()):
        assert time.monotonic() < end, f"not within {patience_s:g} s: {what}"
        time.sleep(POLL_S)
    return value


def free_ports(count: int) -> list[int]:
    """Return consecutive ports on which nobody listens."""
    for _ in range(100):
        first = random.randrange(*BELOW_EPHEMERAL)
        ports = list(range(first, first + count))
        if all(map(_free, ports)):
            return ports
    raise RuntimeError("no free ports")


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


class LocalStack:
    """`linnet up` in a folder of its own."""

    def __init__(self, folder: Path, engine: str = "simulated", **settings: str) -> None:
        self.folder = folder
        self.state = folder / "state"
        self._engine = engine
        names = ("STORE_PORT", "CONTROL_PORT", "GATEWAY_PORT", "OPS_PORT", "ENGINE_PORT")
        self.ports = dict(zip(names, free_ports(len(names) + 1), strict=False))
        self.control = f"http://127.0.0.1:{self.ports['CONTROL_PORT']}"
        self.gateway = f"http://127.0.0.1:{self.ports['GATEWAY_PORT']}"
        self.metrics = f"http://127.0.0.1:{self.ports['OPS_PORT']}/metrics"
        self.store = f"redis://127.0.0.1:{self.ports['STORE_PORT']}/0"
        self.settings = settings
        self._process: subprocess.Popen[str] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """The environment of the stack and of every command given to it."""
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("LINNET_")},
            **({"LINNET_CACHE": os.environ["LINNET_CACHE"]} if "LINNET_CACHE" in os.environ else {}),
            **{f"LINNET_{name}": str(port) for name, port in self.ports.items()},
            "LINNET_STATE": str(self.state),
            "LINNET_CONTROL_URL": self.control,
            "LINNET_GATEWAY_URL": self.gateway,
            "LINNET_WORKERS": "2",
            **self.settings,
        }

    @property
    def out(self) -> str:
        """What `linnet up` has said since its last start."""
        return (self.folder / "out").read_text() if (self.folder / "out").exists() else ""

    @property
    def err(self) -> str:
        """What it has said on standard error."""
        return (self.folder / "err").read_text() if (self.folder / "err").exists() else ""

    @property
    def pid(self) -> int:
        """The pid of `linnet up`."""
        assert self._process is not None
        return self._process.pid

    def begin(self, *words: str, prefix: Sequence[str] = ()) -> None:
        """Start it without waiting; `prefix` is a command that runs it, in the same process."""
        with (self.folder / "out").open("w") as out, (self.folder / "err").open("w") as err:
            self._process = subprocess.Popen(
                [*prefix, LINNET, "up", "--engine", self._engine, *words],
                stdin=subprocess.DEVNULL, stdout=out, stderr=err, text=True,
                env=self.environment, cwd=self.folder, start_new_session=True,
            )  # fmt: skip

    def up(self, *words: str, patience_s: float = PATIENCE_S) -> None:
        """Start it and wait until everything is ready."""
        self.begin(*words)
        until(lambda: UP in self.out or not self.alive(), "linnet up", patience_s)
        assert self.alive(), f"linnet up ended: {self.out}{self.err}"

    def alive(self) -> bool:
        """Say whether `linnet up` runs."""
        return self._process is not None and self._process.poll() is None

    def end(self, number: signal.Signals = signal.SIGINT, patience_s: float = 30.0) -> Said:
        """Signal it, or wait for an end it comes to by itself, and return what it said."""
        assert self._process is not None
        self._process.send_signal(number)
        return self.ended(patience_s)

    def ended(self, patience_s: float = 30.0) -> Said:
        """Wait for its end."""
        assert self._process is not None
        return Said(self._process.wait(patience_s), self.out, self.err)

    def kill(self) -> None:
        """Kill `linnet up` itself without a last word (signal 9)."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def family(self) -> dict[int, str]:
        """Return every living process of the stack: pid and command line."""
        mark, title = f"LINNET_STATE={self.state}".encode(), f" 127.0.0.1:{self.ports['STORE_PORT']}"
        said = {pid: _words(pid) for pid in _pids()}
        mine = {pid: words for pid, words in said.items() if title in words or _carries(pid, mark)}
        return {pid: words for pid, words in mine.items() if words and "linnet up" not in words}

    def child(self, name: str) -> int:
        """Return the pid of store, control, gateway, or an engine by its name."""
        words = WORDS.get(name, f"--served-model-name {name} " if self._engine == "vllm" else f"--model {name} ")
        found = [pid for pid, said in self.family().items() if words in said and _parent(pid) == self.pid]
        if not found:
            raise ProcessLookupError(name)
        return found[0]

    def signal(self, name: str, number: signal.Signals = signal.SIGKILL) -> int:
        """Signal one of the stack's processes; return its pid."""
        pid = self.child(name)
        os.kill(pid, number)
        return pid

    def nothing_runs(self, patience_s: float = 10.0) -> None:
        """Wait until no process of the stack is left."""
        try:
            until(lambda: not self.family(), "the end of every process", patience_s)
        except AssertionError:
            pytest.fail(f"still running after {patience_s:g} s: {self.family()}")

    def linnet(self, *words: str, patience_s: float = 60.0) -> Said:
        """Run the command line against this stack."""
        done = subprocess.run(
            [LINNET, *words],
            env=self.environment, cwd=self.folder, capture_output=True, text=True,
            stdin=subprocess.DEVNULL, timeout=patience_s, check=False,
        )  # fmt: skip
        return Said(done.returncode, done.stdout, done.stderr)

    def status(self, *words: str) -> dict[str, Any]:
        """Return the release's status as JSON; empty where there is none, or nobody answers."""
        said = self.linnet("status", "--json", *words)
        found: dict[str, Any] = json.loads(said.out) if said.code == 0 else {}
        return found

    def clear(self) -> None:
        """Leave nothing behind, however the test ended."""
        if self.alive():
            self.kill()
        for pid in self.family():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.nothing_runs()


def _pids() -> Iterator[int]:
    return (int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit())


def _carries(pid: int, mark: bytes) -> bool:
    """Say whether a process has the mark in its environment; the store has not: its title is written over it."""
    try:
        return mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


def _words(pid: int) -> str:
    """Return a process's command line; a zombie has none."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


@pytest.fixture
def local_stack(tmp_path: Path) -> Iterator[LocalStack]:
    """A stack with simulated engines that has not been started."""
    stack = LocalStack(tmp_path)
    yield stack
    stack.clear()


@pytest.fixture
def running_stack(local_stack: LocalStack) -> LocalStack:
    """A stack with two simulated engines, up."""
    local_stack.up()
    return local_stack


@pytest.fixture(scope="session")
def session_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """A stack that several tests use, each with a release of its own."""
    stack = LocalStack(tmp_path_factory.mktemp("stack"))
    yield stack
    stack.clear()


@pytest.fixture
def shared_stack(session_stack: LocalStack) -> Iterator[LocalStack]:
    """The session's stack, up; the release that a test leaves behind is aborted."""
    if not session_stack.alive():
        session_stack.up()
    yield session_stack
    session_stack.linnet("abort", "--reason", "the test is over")
