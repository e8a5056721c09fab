"""Two real vLLM engines, side by side, once a session: the baseline and the int8 candidate of the demo.

The engines come up through the supervisor, as in the local stack. Fixture: `vllm_pair`; `vllm_pair.baseline.url`,
`vllm_pair.candidate.url`, both serving the model name `vllm_pair.model`. Tests that use it are marked `vllm`.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from serving import environment, models
from serving.engine import engine_child, warm
from serving.launch import EngineSettings
from serving.supervisor import Supervisor

if TYPE_CHECKING:
    from concurrent.futures import Future

MODEL = "linnet-demo"
TOOLS = (
    *("--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
    *("--structured-outputs-config", '{"backend": "xgrammar", "disable_any_whitespace": true}'),
)
"""So small a model would fill an object with white space until its tokens are spent."""


@dataclass(frozen=True, slots=True)
class VllmPair:
    """Two engines that run, the prompts held out from both, and how long they took."""

    baseline: EngineSettings
    candidate: EngineSettings
    home: Path
    pids: dict[str, int]
    model: str = MODEL


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def pair_settings(home: Path) -> tuple[EngineSettings, EngineSettings]:
    """Return settings of the two engines, each on a core of its own where there are two."""
    cores = sorted(os.sched_getaffinity(0))
    base = EngineSettings("baseline", home / "base", MODEL, free_port(), core=cores[0], extra_args=TOOLS)
    int8 = home / "candidate-w8a8"
    return base, replace(base, name="candidate", model_dir=int8, port=free_port(), core=cores[-1])


class _LoopThread:
    """An event loop in a thread: the engines outlive each test's own loop."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="engines", daemon=True)
        self._thread.start()

    def run(self, coroutine: object) -> object:
        """Run a coroutine over there and wait for it."""
        future: Future[object] = asyncio.run_coroutine_threadsafe(coroutine, self.loop)  # type: ignore[arg-type]
        return future.result()

    def close(self) -> None:
        """Stop the loop and its thread."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


async def _bring_up(supervisor: Supervisor, settings: EngineSettings, python: Path, logs: Path) -> None:
    await supervisor.start(engine_child(settings, python, logs))
    await warm(settings.url, settings.served_model)


@pytest.fixture(scope="session")
def vllm_pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmPair]:
    """Start both engines, warm; stop them after the session's last test."""
    cache = environment.cache_dir()
    home = models.make_models(cache)
    python, logs = environment.engine_python(cache), tmp_path_factory.mktemp("engines")
    settings = pair_settings(home)
    thread, supervisor = _LoopThread(), Supervisor()

    async def both() -> None:
        async with asyncio.TaskGroup() as group:
            for one in settings:
                group.create_task(_bring_up(supervisor, one, python, logs))

    try:
        thread.run(both())
        yield VllmPair(*settings, home, supervisor.pids())
    finally:
        thread.run(supervisor.stop_all())
        thread.close()
