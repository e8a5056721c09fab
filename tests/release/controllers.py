"""Control planes as processes, any number of them on one store; each is known by what it writes into the lease."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

from redis import Redis

from canary.storage import keys
from tests.support.stack import until


class Controllers:
    """`python -m canary`, several times. Use as a context manager."""

    def __init__(self, folder: Path, store_url: str, count: int, **settings: str) -> None:
        self._log = folder / "controllers.log"
        self._env = {
            **os.environ,
            "LINNET_REDIS_URL": store_url,
            "LINNET_CONTROL_PORT": "0",
            **{f"LINNET_{name}": value for name, value in settings.items()},
        }
        self._redis = Redis.from_url(store_url, decode_responses=True)
        self._count = count
        self.living: dict[int, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        for _ in range(self._count):
            self.begin()
        until(lambda: self._log.read_text().count("control plane on") == self._count, "every listener")
        return self

    def __exit__(self, *trouble: object) -> None:
        for process in self.living.values():
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()
        self._redis.close()

    def begin(self) -> None:
        """Start one more."""
        with self._log.open("ab") as log:
            process = subprocess.Popen([sys.executable, "-m", "canary"], env=self._env, stdout=log, stderr=log)
        self.living[process.pid] = process

    @property
    def leader(self) -> int:
        """The pid of the one that leads, 0 while none of the living does."""
        fence = str(self._redis.get(keys.LEADER) or "")
        pid = int(fence.rpartition(":")[0].rpartition(".")[2] or 0)
        return pid if pid in self.living else 0

    def led(self, patience_s: float = 20.0) -> int:
        """Wait for a leader and return its pid."""
        return int(until(lambda: self.leader, "a leader", patience_s))

    def kill(self, pid: int) -> None:
        """Kill one without a last word."""
        process = self.living.pop(pid)
        process.kill()
        process.wait()

    def stop(self, pid: int) -> float:
        """Stop one in the middle of whatever it does; return the monotonic moment."""
        os.kill(pid, signal.SIGSTOP)
        return time.monotonic()

    def wake(self, pid: int) -> None:
        """Let one that was stopped go on."""
        os.kill(pid, signal.SIGCONT)
