"""One child process: a session and a log of its own, and an end that takes its whole group along."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from serving.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

Ready = Callable[[], Awaitable[bool]]
"""Says whether a child does its work. Asked again and again; may raise nothing but CancelledError."""

POLL_S = 0.05
READY_POLL_S = 0.1
TAIL_BYTES = 64_000

ERROR = re.compile(r"\b(\w*(Error|Exception)|ERROR|error): .*\w.*")
ELSEWHERE = re.compile(r"(?i)\b(info|warning)\b|root cause above")
"""Lines that speak of errors without being one: notices, and engines that point at another line."""

MENDS = (
    (r"(?i)address already in use|Errno 98", "its port is taken: stop what listens there, or choose another port"),
    (r"(?i)no space left|Errno 28", "the disk is full: free some room"),
    (r"(?i)cannot allocate memory|out of memory|Errno 12", "memory is short: stop something, or serve a smaller model"),
    (r"(?i)kv cache", "its KV cache is too small: give it more bytes, or a shorter max_model_len"),
    (r"(?i)permission denied|Errno 13", "a file or port may not be used: choose one of yours"),
    (r"(?i)no such file|not found|does not exist|Errno 2\b", "a file is missing: check the folder it names"),
)


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """What to run and how to treat it.

    `env` is added to the inherited environment. `ready` says when the child works; without it, being alive is enough.
    `grace_s` lies between SIGTERM and SIGKILL. `last` children are stopped after all others. `core` pins the process.
    """

    name: str
    argv: tuple[str, ...]
    log_path: Path
    ready: Ready | None = None
    ready_s: float = 60.0
    grace_s: float = 5.0
    restart: bool = False
    last: bool = False
    core: int | None = None
    cwd: Path | None = None
    env: Mapping[str, str] = field(default_factory=dict)


class Child:
    """A running child. Made by `spawn`; its group is its pid."""

    def __init__(self, spec: ChildSpec, process: subprocess.Popen[bytes], log_start: int) -> None:
        self.spec = spec
        self.process = process
        self._log_start = log_start

    @property
    def pid(self) -> int:
        """The process, and the process group."""
        return self.process.pid

    def alive(self) -> bool:
        """Say whether it runs; an ended one is not reaped here, so that its group's number stays its own."""
        if self.process.returncode is not None:
            return False
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self.pid, flags) is None

    async def ended(self) -> None:
        """Wait until it has ended by itself or by a signal."""
        while self.alive():  # noqa: ASYNC110 - nothing can tell us: the kernel is asked
            await asyncio.sleep(POLL_S)

    def signal(self, number: signal.Signals) -> None:
        """Signal the whole group, unless the child has been reaped."""
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    def reap(self) -> int:
        """End whatever its group left behind, and return its exit status (negative: the signal)."""
        self.signal(signal.SIGKILL)
        return self.process.wait()

    async def stop(self) -> int:
        """SIGTERM to the group, the grace, SIGKILL to the group. Safe to cancel: a cancelled stop kills at once."""
        try:
            self.signal(signal.SIGTERM)
            async with asyncio.timeout(self.spec.grace_s):
                await self.ended()
        except TimeoutError:
            pass
        finally:
            status = self.reap()
        return status

    async def came_up(self) -> None:
        """Wait until it is ready; an end or the time limit before that is an error of one line."""
        try:
            async with asyncio.timeout(self.spec.ready_s):
                while self.alive():
                    if self.spec.ready is None or await self._asked(self.spec.ready):
                        return
                    await asyncio.sleep(READY_POLL_S)
        except TimeoutError:
            raise EngineError(self._complaint(f"was not ready within {self.spec.ready_s:g} s")) from None
        raise EngineError(self._complaint(f"did not come up ({status_words(self.reap())})"))

    async def _asked(self, ready: Ready) -> bool:
        """Ask whether it is ready; its end is an answer too, however long somebody else on its port keeps silent."""
        asked, ended = asyncio.ensure_future(ready()), asyncio.ensure_future(self.ended())
        try:
            await asyncio.wait({asked, ended}, return_when=asyncio.FIRST_COMPLETED)
            return asked.done() and asked.result()
        finally:
            asked.cancel()
            ended.cancel()

    def last_line(self) -> str:
        """Return the log's last meaningful line of this run."""
        return last_meaningful(self._tail().splitlines())

    def _complaint(self, what: str) -> str:
        said = self.last_line()
        mend = mend_for(said, "read its log")
        return f"{self.spec.name} {what}: {said or 'it said nothing'}; {mend} ({self.spec.log_path})"

    def _tail(self) -> str:
        """Return the end of this run's log; nothing where somebody deleted it, for the watch must go on."""
        try:
            with self.spec.log_path.open("rb") as log:
                size = log.seek(0, os.SEEK_END)
                log.seek(max(self._log_start, size - TAIL_BYTES))
                return log.read().decode(errors="replace")
        except OSError:
            return ""


def spawn(spec: ChildSpec) -> Child:
    """Start a child in a session of its own, its output appended to its log. Synchronous: no await can lose it."""
    try:
        spec.log_path.parent.mkdir(parents=True, exist_ok=True)
        with spec.log_path.open("ab") as log:
            start = log.tell()
            process = subprocess.Popen(
                spec.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=spec.cwd,
                env=os.environ | dict(spec.env),
                start_new_session=True,
            )
    except OSError as error:
        raise EngineError(f"{spec.name} cannot be started: {error.strerror}: {error.filename}") from None
    _pin(process.pid, spec.core)
    return Child(spec, process, start)


def mend_for(text: str, otherwise: str) -> str:
    """Return what mends the trouble that a program's output tells of."""
    return next((mend for pattern, mend in MENDS if re.search(pattern, text)), otherwise)


def last_meaningful(lines: Sequence[str]) -> str:
    """Return the last line that names an error of its own, else the last that says anything; at most 200 characters."""
    said = [line.strip() for line in lines if re.search(r"\w", line)]
    named = [found[0] for line in said if (found := ERROR.search(line)) and not ELSEWHERE.search(line)]
    return (named or said or [""])[-1][:200]


def status_words(status: int) -> str:
    """Say what an exit status means: `exit status 1`, or the signal's name."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"


def _pin(pid: int, core: int | None) -> None:
    """Pin right after the start, before the child has threads; a core that is not there pins nothing."""
    if core is not None and hasattr(os, "sched_setaffinity"):
        with contextlib.suppress(OSError):
            os.sched_setaffinity(pid, {core})
