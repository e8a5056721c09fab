"""Start, watch, restart and stop the child processes of one stack: engines, store, gateway, controller.

Every child has a process group of its own, which ends as a whole. If this process dies hard, the reaper (a tiny process
beside it) ends them. All of it is safe to cancel at any await: a child is known from the moment it exists.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Self

from serving.child import Child, ChildSpec, spawn, status_words
from serving.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

__all__ = ["ChildSpec", "Event", "EventKind", "Supervisor"]

FIRST_BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 30.0
STABLE_S = 60.0
"""A child that lived this long starts again from the first backoff."""


class EventKind(StrEnum):
    """What can happen to a child."""

    STARTED = "started"
    READY = "ready"
    ENDED = "ended"
    RESTARTING = "restarting"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened to a child."""

    name: str
    kind: EventKind
    detail: str = ""


def ignore(_: Event) -> None:
    """Hear nothing: the default listener."""


class Supervisor:
    """Owns the children. Use as an async context manager: leaving it stops everything."""

    def __init__(self, on_event: Callable[[Event], None] = ignore) -> None:
        self._on_event = on_event
        self._children: dict[str, Child] = {}
        self._watchers: dict[str, asyncio.Task[None]] = {}
        self._restarts: dict[str, int] = {}
        self._reaper: subprocess.Popen[bytes] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop_all()

    def pids(self) -> dict[str, int]:
        """Return the pid of every child that runs."""
        return {name: child.pid for name, child in self._children.items() if child.alive()}

    def restarts(self, name: str) -> int:
        """Return how often a child was started again."""
        return self._restarts.get(name, 0)

    async def start(self, spec: ChildSpec) -> int:
        """Start a child and wait until it is ready; return its pid. On an error it is gone again."""
        if spec.name in self._children:
            raise EngineError(f"{spec.name} runs already; stop it first")
        try:
            child = await self._bring_up(spec)
        except BaseException:
            await self._drop(spec.name)
            raise
        self._watchers[spec.name] = self._watch(child)
        return child.pid

    async def stop(self, name: str) -> None:
        """Stop a child and its watcher; one that is not there is no error."""
        watcher = self._watchers.pop(name, None)
        if watcher is not None:
            watcher.cancel()
            await asyncio.wait({watcher})
        if await self._drop(name):
            self._tell(name, EventKind.STOPPED)

    async def stop_all(self) -> None:
        """Stop everything, `last` children after the others. Idempotent."""
        try:
            for last in (False, True):
                names = [name for name, child in self._children.items() if child.spec.last is last]
                await asyncio.gather(*(self.stop(name) for name in reversed(names)))
        finally:
            self._close()

    async def _bring_up(self, spec: ChildSpec) -> Child:
        child = self._children[spec.name] = spawn(spec)
        self._register("+", child.pid)
        self._tell(spec.name, EventKind.STARTED, f"pid {child.pid}")
        await child.came_up()
        self._tell(spec.name, EventKind.READY, f"pid {child.pid}")
        return child

    async def _drop(self, name: str) -> bool:
        """Stop a child and forget it, whether or not the stop is cancelled half-way."""
        child = self._children.get(name)
        if child is None:
            return False
        try:
            await child.stop()
        finally:
            self._children.pop(name, None)
            self._register("-", child.pid)
        return True

    def _watch(self, child: Child) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(self._keep(child), name=f"watch {child.spec.name}")
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return task

    async def _keep(self, child: Child) -> None:
        """Wait for the child's end; bring it up again if it asked for that, ever more slowly."""
        backoff = FIRST_BACKOFF_S
        while True:
            since = time.monotonic()
            await child.ended()
            spec, status = child.spec, status_words(child.reap())
            self._register("-", child.pid)
            self._tell(spec.name, EventKind.ENDED, f"{status}: {child.last_line()}")
            if not spec.restart:
                return
            backoff = FIRST_BACKOFF_S if time.monotonic() - since > STABLE_S else backoff
            child, backoff = await self._revive(spec, backoff)

    async def _revive(self, spec: ChildSpec, backoff: float) -> tuple[Child, float]:
        """Try until the child is up again; return it and the next wait in seconds."""
        while True:
            self._tell(spec.name, EventKind.RESTARTING, f"in {backoff:g} s")
            await asyncio.sleep(backoff)
            backoff = min(2 * backoff, LONGEST_BACKOFF_S)
            self._restarts[spec.name] = self.restarts(spec.name) + 1
            try:
                return await self._bring_up(spec), backoff
            except EngineError as error:
                await self._drop(spec.name)
                self._tell(spec.name, EventKind.FAILED, str(error))

    def _tell(self, name: str, kind: EventKind, detail: str = "") -> None:
        self._on_event(Event(name, kind, detail))

    def _register(self, sign: str, pid: int) -> None:
        if self._reaper is None:
            reaper = Path(__file__).with_name("reaper.py")
            command = [sys.executable, "-S", "-E", str(reaper)]
            self._reaper = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                start_new_session=True, cwd="/",
            )  # fmt: skip
        if self._reaper.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._reaper.stdin.write(f"{sign}{pid}\n".encode())
                self._reaper.stdin.flush()

    def _close(self) -> None:
        """Let the reaper end: whatever could not be stopped is still on its list."""
        if self._reaper is not None and self._reaper.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._reaper.stdin.close()
            if not self._children:
                self._reaper.wait()
            self._reaper = None
