"""A peer from start to stop: a session of its own on the proxy's core, and nothing of it left afterwards."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.errors import BenchError
from bench.gateways.machine import Usage, free_ports, pinned, usage, usage_of
from bench.gateways.peers import Peer, Places, filled
from bench.gateways.stage import Stage, await_ready

_ROOT = Path(__file__).parents[2]
_END_S = 5.0


@dataclass(frozen=True, slots=True)
class Running:
    """A peer that serves: `session` is 0 where the engines are asked directly."""

    peer: Peer
    port: int
    headers: Mapping[str, str]
    session: int = 0
    beside: Path | None = None
    start_s: float = 0.0

    def usage(self) -> Usage:
        """Return what the peer's processes have used so far."""
        return usage(self.session) if self.session else Usage()

    def usage_beside(self) -> Usage:
        """Return what the process that serves the peer has used so far."""
        if self.beside is None or not self.beside.exists():
            return Usage()
        return usage_of(int(self.beside.read_text()))


def installed(peer: Peer, places: Places) -> bool:
    """Tell whether the peer's program is there."""
    return (
        not peer.command or shutil.which(filled(peer.command[0], {"peers": places.installed}), path=_path()) is not None
    )


@contextmanager
def running(peer: Peer, places: Places, scene: Stage) -> Iterator[Running]:
    """Start a peer of a list; yield it when it is ready. Raises BenchError if it does not get there."""
    port, second = free_ports(2)
    scratch = scene.folder / f"{peer.name}-{time.monotonic_ns()}"
    scratch.mkdir()
    values = {
        "port": port,
        "port2": second,
        "up_a": scene.ports[0],
        "up_b": scene.ports[1],
        "dir": scratch,
        "bench": places.listed,
        "peers": places.installed,
        "workers": peer.workers,
    }
    headers = {name: filled(value, values) for name, value in (peer.headers or {}).items()}
    if not peer.command:
        yield Running(peer, scene.ports[0], headers)
        return
    for name in peer.files:
        source = places.listed / name
        (scratch / source.name).write_text(filled(source.read_text("utf-8"), values))
    begun = time.monotonic()
    process = _started(peer, values, scene, scratch)
    try:
        port = _port(peer, values, process) if peer.port_file else port
        await_ready(port, peer.ready, peer.start_s, process)
        beside = Path(filled(peer.beside, values)) if peer.beside else None
        yield Running(peer, port, headers, process.pid, beside, time.monotonic() - begun)
    finally:
        _stop(process)


def _started(peer: Peer, values: Mapping[str, object], scene: Stage, scratch: Path) -> subprocess.Popen[bytes]:
    argv = [filled(word, values) for word in peer.command]
    own = {name: filled(value, values) for name, value in (peer.env or {}).items()}
    ports = {"UP_A": str(values["up_a"]), "UP_B": str(values["up_b"])}
    with (scratch / "log").open("wb") as log:
        return subprocess.Popen(
            pinned(argv, scene.cores.proxy),
            env={**os.environ, "PATH": _path(), **ports, **own},
            cwd=_ROOT if peer.cwd == "." else filled(peer.cwd, values),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _path() -> str:
    """Let `python` be the one that runs this."""
    return os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))


def _port(peer: Peer, values: Mapping[str, object], process: subprocess.Popen[bytes]) -> int:
    """Wait for the port that a peer picks itself."""
    file = Path(filled(peer.port_file, values))
    end = time.monotonic() + peer.start_s
    while time.monotonic() < end and process.poll() is None:
        if file.exists() and (text := file.read_text()):
            return int(text)
        time.sleep(0.05)
    raise BenchError("it wrote no port")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a session: politely, then not; workers that left the process group are of the session still."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        for pid in usage(process.pid).pids:
            try:
                os.kill(pid, sign)
            except ProcessLookupError:
                continue
        end = time.monotonic() + _END_S
        while time.monotonic() < end:
            alive = set(usage(process.pid).pids) - ({process.pid} if process.poll() is not None else set())
            if not alive:
                break
            time.sleep(0.05)
    process.wait(_END_S)
