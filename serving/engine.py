"""A vLLM engine as a child process: checked before it starts, ready when it answers, warmed before it counts."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import TYPE_CHECKING

import httpx

from serving import launch, plan
from serving.child import ChildSpec
from serving.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from serving.launch import EngineSettings
    from serving.plan import MemoryPlan

READY_S = 240.0
"""Two engines side by side on two busy cores took 50 s."""

WARM_PROMPTS = ("The", "Return a new array of given shape and type. " * 2, "A graph is a set of nodes. " * 8)


def engine_child(settings: EngineSettings, python: Path, logs: Path, *, restart: bool = False) -> ChildSpec:
    """Return the child that serves these settings; what can be wrong beforehand is an error here, in no time."""
    launch.identity_files(settings.model_dir)
    require_free_port(settings.name, settings.host, settings.port)

    async def ready() -> bool:
        listening = await listens(settings.host, settings.port)
        return listening and await completes(settings.url, settings.served_model)

    return ChildSpec(
        name=settings.name,
        argv=launch.argv(settings, python),
        env=launch.variables(python),
        log_path=logs / f"{settings.name}.log",
        ready=ready,
        ready_s=READY_S,
        grace_s=5.0,
        restart=restart,
        core=settings.core,
    )


def require_free_port(name: str, host: str, port: int, mend: str = "choose another port") -> None:
    """Fail in one line if something listens where `name` is to listen; `mend` is what else may be done."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise EngineError(
                f"{name} cannot listen on {host}:{port}: {error.strerror}; stop what listens there or {mend}"
            ) from None


def read_plan(settings: EngineSettings) -> MemoryPlan:
    """Plan an engine's memory from its checkpoint's files."""
    files = [path for path in launch.identity_files(settings.model_dir) if path.suffix == ".safetensors"]
    config = json.loads((settings.model_dir / "config.json").read_text())
    weights = plan.weights_bytes(_header(path) for path in files)
    return plan.memory_plan(config, weights, settings.kv_cache_bytes)


def _header(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(plan.header_length(file.read(plan.HEADER_LENGTH_BYTES)))


async def listens(host: str, port: int) -> bool:
    """Say whether something accepts connections: cheap enough to ask while an engine still loads."""
    try:
        async with asyncio.timeout(1.0):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


async def answers(url: str, timeout_s: float = 2.0) -> bool:
    """Say whether a GET of this address answers with a success."""
    try:
        async with httpx.AsyncClient(timeout=timeout_s, trust_env=False) as client:
            return (await client.get(url)).is_success
    except httpx.HTTPError:
        return False


async def completes(url: str, model: str, timeout_s: float = 30.0) -> bool:
    """Say whether an engine answers a one-token completion: /health says yes while it is frozen or asleep."""
    body = {"model": model, "prompt": "The", "max_tokens": 1, "temperature": 0}
    try:
        async with httpx.AsyncClient(timeout=httpx.Timeout(timeout_s, connect=1.0), trust_env=False) as client:
            answer = await client.post(f"{url}/v1/completions", json=body)
            return answer.is_success and bool(answer.json().get("choices"))
    except (httpx.HTTPError, ValueError):
        return False


async def warm(url: str, model: str, prompts: Sequence[str] = WARM_PROMPTS, timeout_s: float = 60.0) -> None:
    """Send a few requests of several lengths and kinds, some at once: the first ones are slow and are no evidence."""
    async with httpx.AsyncClient(base_url=url, timeout=timeout_s, trust_env=False) as client:
        try:
            for concurrency in (1, 4):
                await asyncio.gather(*(_warm_one(client, model, p) for p in prompts for _ in range(concurrency)))
        except httpx.HTTPError as error:
            raise EngineError(
                f"the engine at {url} did not warm up: {error or type(error).__name__}; read its log"
            ) from None


async def _warm_one(client: httpx.AsyncClient, model: str, prompt: str) -> None:
    whole = {"model": model, "prompt": prompt, "max_tokens": 16, "ignore_eos": True}
    chat = {"model": model, "messages": [{"role": "user", "content": prompt}], "max_tokens": 16, "stream": True}
    (await client.post("/v1/completions", json=whole)).raise_for_status()
    (await client.post("/v1/chat/completions", json=chat)).raise_for_status()
