"""Simulated engines on real sockets.

Fixtures: `simulated` starts engines in a thread of the test process (milliseconds each, stopped after the test):
`engine = simulated(ttft_ms=5)`, then `engine.url`, `engine.change(stall=True)`, `engine.counts`; `simulated_process`
starts them as processes of their own, for tests that kill.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any, TypeVar

import pytest
import uvicorn

from serving.simulated.app import create_app
from serving.simulated.behaviour import Behaviour
from serving.simulated.engine import Engine

_WAIT_S = 20.0
E = TypeVar("E", "SimulatedThread", "SimulatedProcess")


class _Reachable:
    """What a test may ask of an engine, wherever it runs."""

    url: str
    model: str

    def change(self, **behaviour: Any) -> None:
        """Change its behaviour (see serving.simulated.behaviour)."""
        self._ask(behaviour)

    @property
    def counts(self) -> dict[str, int]:
        """started, finished, aborted, running, waiting, prompt, generated."""
        counts: dict[str, int] = self._ask(None)["counts"]
        return dict.fromkeys(("started", "finished", "aborted", "running", "waiting"), 0) | counts

    @property
    def last(self) -> dict[str, Any]:
        """The last generation request: path, headers, body."""
        last: dict[str, Any] = self._ask(None)["last"]
        return last

    def until(self, name: str, value: int) -> None:
        """Wait until a count has a value."""
        deadline = time.monotonic() + _WAIT_S
        while (counts := self.counts)[name] != value:
            assert time.monotonic() < deadline, f"{name} never became {value}: {counts}"
            time.sleep(0.01)

    def _ask(self, change: dict[str, Any] | None) -> dict[str, Any]:
        data = None if change is None else json.dumps(change).encode()
        with urllib.request.urlopen(urllib.request.Request(f"{self.url}/simulated", data), timeout=5) as answer:  # noqa: S310
            value: dict[str, Any] = json.load(answer)
            return value


class SimulatedThread(_Reachable):
    """A simulated engine in a thread of this process. When it is told to die, its listener and connections go."""

    def __init__(
        self,
        model: str = "base",
        *,
        seed: int = 0,
        slots: int = 256,
        longest: int = 8192,
        adapters: Sequence[str] = (),
        serves: Sequence[str] = ("generate",),
        blocks: int = 100_000,
        **behaviour: Any,
    ) -> None:
        self.model = model
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.engine = Engine(
            model,
            Behaviour().changed(behaviour),
            seed=seed,
            slots=slots,
            longest=longest,
            die=self._die,
            adapters=adapters,
            serves=serves,
            blocks=blocks,
        )
        config = uvicorn.Config(
            create_app(self.engine), lifespan="off", access_log=False, log_level="critical", timeout_graceful_shutdown=1
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name=f"simulated {model}")
        self._thread.start()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=self._server.config.get_loop_factory()) as runner:
            runner.run(self._server.serve([self._listener]))

    def _die(self) -> None:
        self._server.should_exit = True
        self._server.force_exit = True
        for connection in list(self._server.server_state.connections):
            connection.transport.abort()  # type: ignore[union-attr]
        for server in self._server.servers:
            server.close()

    def stop(self) -> None:
        """End it and wait for its thread."""
        self._server.should_exit = True
        self._thread.join(_WAIT_S)
        self._listener.close()
        assert not self._thread.is_alive()


class SimulatedProcess(_Reachable):
    """A simulated engine as a process of its own."""

    def __init__(self, model: str = "base", **options: Any) -> None:
        self.model = model
        words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "serving.simulated", "--port=0", f"--model={model}", *words],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().rpartition(" on ")[2].strip()
        assert self.url.startswith("http://"), "the simulated engine did not start"

    def stop(self) -> None:
        """End it and wait for it."""
        self.process.kill()
        self.process.wait(_WAIT_S)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def simulated() -> Iterator[Callable[..., SimulatedThread]]:
    """Start simulated engines in threads; they stop after the test."""
    yield from _starter(SimulatedThread)


@pytest.fixture
def simulated_process() -> Iterator[Callable[..., SimulatedProcess]]:
    """Start simulated engines as processes; they are killed after the test."""
    yield from _starter(SimulatedProcess)


def _starter(kind: type[E]) -> Iterator[Callable[..., E]]:
    with ExitStack() as stack:

        def start(model: str = "base", **options: Any) -> E:
            engine = kind(model, **options)
            stack.callback(engine.stop)
            return engine

        yield start
