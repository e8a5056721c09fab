"""The local stack: store, engines, control plane and gateway, started in order, watched, and gone at the end.

Engines run in slots, one a core. What the stack knows of an engine (address, digest, pid, state) it registers in the
store, where a release spec finds it by name.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import os
import signal
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Self, TypeVar
from urllib.parse import urlsplit

import yaml

from canary.storage.store import Store, StoreError
from deploy.local import children
from deploy.local.catalogue import SLOTS, engine
from deploy.local.settings import LocalSettings
from serving.child import ChildSpec
from serving.engine import engine_child, warm
from serving.environment import engine_python, install
from serving.errors import EngineError
from serving.launch import EngineSettings, digest
from serving.models import make_models
from serving.supervisor import Event, EventKind, Supervisor

Say = Callable[[str], None]
T = TypeVar("T")

_TOLD = {EventKind.ENDED, EventKind.RESTARTING, EventKind.FAILED}


class Stack:
    """The family of processes. Use as an async context manager: leaving it leaves nothing running."""

    def __init__(self, settings: LocalSettings, kind: str, models: Path, say: Say) -> None:
        self.settings = settings
        self.supervisor = Supervisor(self._heard)
        self._kind = kind
        self._models = models
        self._say = say
        self._slots: dict[int, EngineSettings] = {}
        self._store = Store.connect(settings.store_url)
        self._lock: IO[str] | None = None
        self._tellings: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._lock = _only_one(self.settings.state)
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await self.supervisor.stop_all()
            await self._store.close()
        finally:
            if self._lock is not None:
                self._lock.close()

    async def start(self, engines: Sequence[str]) -> None:
        """Bring everything up: the store, `engines` (the first answers where no release says otherwise), our own."""
        children.require_free_ports(self.settings, SLOTS)
        if not self.settings.redis_url:
            await self.supervisor.start(children.store(self.settings))
        names = await self._wanted(engines)
        await self._start_engines(await self._places(names))
        self._write_models(names[0])
        await self.supervisor.start(children.control(self.settings))
        await self.supervisor.start(children.gateway(self.settings))

    async def _start_engines(self, places: Mapping[str, int]) -> None:
        """Start engines side by side; the first one's trouble is everybody's."""
        try:
            async with asyncio.TaskGroup() as group:
                for name, slot in places.items():
                    group.create_task(self.start_engine(name, slot))
        except ExceptionGroup as troubles:
            raise troubles.exceptions[0] from None

    def engines(self) -> tuple[str, ...]:
        """Name the engines in their slots."""
        return tuple(settings.name for _, settings in sorted(self._slots.items()))

    def environment(self) -> dict[str, str]:
        """Return the environment in which the command line finds this stack."""
        return os.environ | self.settings.environment()

    async def start_engine(self, name: str, slot: int) -> None:
        """Start, warm and register one engine."""
        chosen = engine(name, self._models, self.settings.engine_port, slot)
        self._slots[slot] = chosen
        await self.supervisor.start(self._child(chosen))
        await warm(chosen.url, chosen.served_model)
        await self._register(chosen)
        self._say(f"engine {name} is warm on {chosen.url} (core {slot}, pid {self.supervisor.pids().get(name)})")

    async def stop_engine(self, name: str) -> int:
        """Stop an engine and strike it off the list; return the slot it leaves."""
        slot = next(slot for slot, settings in self._slots.items() if settings.name == name)
        await self.supervisor.stop(name)
        await self._store.forget_engine(name)
        del self._slots[slot]
        return slot

    async def _wanted(self, engines: Sequence[str]) -> list[str]:
        """Name the engines to run: those that the model's split routes to come first."""
        split = await self._store.read_split(self.settings.model)
        routed = [] if split is None else [split.baseline] + ([split.candidate] if split.candidate else [])
        names = [endpoint.engine for endpoint in routed] + list(engines)
        return list(dict.fromkeys(names))[:SLOTS]

    async def _places(self, names: Sequence[str]) -> dict[str, int]:
        """Give each engine its slot: the one it had before, because the split in the store says so, else a free one."""
        known = await self._store.engines()
        places: dict[str, int] = {}
        for name in sorted(names, key=lambda name: name not in known):
            had = (urlsplit(known[name]["url"]).port or 0) - self.settings.engine_port if name in known else -1
            free = [slot for slot in range(SLOTS) if slot not in places.values()]
            places[name] = had if had in free else free[0]
        return places

    def _child(self, chosen: EngineSettings) -> ChildSpec:
        if self._kind == "simulated":
            return children.simulated(self.settings, chosen)
        python = engine_python(self.settings.cache)
        return engine_child(chosen, python, self.settings.logs, restart=True)

    async def _register(self, chosen: EngineSettings, state: str = "ready") -> None:
        record = {
            "name": chosen.name,
            "url": chosen.url,
            "served_model": chosen.served_model,
            "digest": self._digest(chosen),
            "state": state,
            "pid": self.supervisor.pids().get(chosen.name, 0),
        }
        await self._store.register_engine(record)

    def _digest(self, chosen: EngineSettings) -> str:
        if self._kind == "simulated":
            return "sha256:" + hashlib.sha256(f"simulated {chosen.name}".encode()).hexdigest()
        return digest(chosen)

    def _write_models(self, baseline: str) -> None:
        """Write the gateway's static truth: who answers before the first split."""
        chosen = next(settings for settings in self._slots.values() if settings.name == baseline)
        entry: dict[str, Any] = {
            "engine": chosen.name,
            "served_model": chosen.served_model,
            "replicas": [chosen.url],
        }
        path = self.settings.state / "models.yaml"
        path.write_text(yaml.safe_dump({"models": {self.settings.model: entry}}))

    def _heard(self, event: Event) -> None:
        """Tell the person what went wrong, and the store how an engine is."""
        if event.kind in _TOLD:
            self._say(f"{event.name} {event.kind}: {event.detail}")
        chosen = next((settings for settings in self._slots.values() if settings.name == event.name), None)
        back = event.kind is EventKind.READY and self.supervisor.restarts(event.name) > 0
        if chosen is not None and (back or event.kind is EventKind.ENDED):
            task = asyncio.get_running_loop().create_task(self._tell_store(chosen, ready=back))
            self._tellings.add(task)
            task.add_done_callback(self._tellings.discard)

    async def _tell_store(self, chosen: EngineSettings, *, ready: bool) -> None:
        """Register an engine that ended, or one that came back and is warm."""
        try:
            if ready:
                await warm(chosen.url, chosen.served_model)
            await self._register(chosen, "ready" if ready else "ended")
        except (StoreError, EngineError) as error:
            self._say(str(error))


def prepare(settings: LocalSettings, kind: str, say: Say) -> Path:
    """Make what the engines need, unless it is there; return the models' folder."""
    settings.state.mkdir(parents=True, exist_ok=True)
    if kind == "simulated":
        return settings.state
    install(settings.cache, say)
    models = make_models(settings.cache, say)
    link_models(settings.state, models)
    return models


async def until_told(work: Coroutine[Any, Any, T]) -> T:
    """Let Ctrl-C and SIGTERM end the work alike, in the background too, where a shell has Ctrl-C ignored."""
    task = asyncio.current_task()
    if task is not None:
        for told in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(told, task.cancel)
    return await work


def link_models(state: Path, models: Path) -> None:
    """Let `STATE/models` name the models' folder, so that a spec can refer to the prompts in it."""
    link = state / "models"
    if link.is_symlink() and link.resolve() == models.resolve():
        return
    link.unlink(missing_ok=True)
    link.symlink_to(models, target_is_directory=True)


def _only_one(state: Path) -> IO[str]:
    """Take the state folder for this process. Raises EngineError if another stack has it, or it cannot be written."""
    try:
        state.mkdir(parents=True, exist_ok=True)
        lock = (state / "stack.lock").open("a+")
    except OSError as error:
        raise EngineError(f"cannot write {state}: {error.strerror}; free it or set LINNET_STATE") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.seek(0)
        owner = json.loads(lock.read() or "{}").get("pid", "unknown")
        lock.close()
        raise EngineError(
            f"another stack runs in {state} (pid {owner}); stop it, or set LINNET_STATE and other ports"
        ) from None
    lock.truncate(0)
    lock.write(json.dumps({"pid": os.getpid()}))
    lock.flush()
    return lock
