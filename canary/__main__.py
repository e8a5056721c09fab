"""The control plane as a process: the admin API, the controller and the notifier. `python -m canary`."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

import uvicorn

from canary.api.app import create_app
from canary.api.authority import Authority
from canary.controller import Controller
from canary.errors import LinnetError, Usage
from canary.metrics import Metrics
from canary.notify.notifier import Notifier
from canary.settings import Settings, settings
from canary.storage.store import Store, StoreError

log = logging.getLogger("linnet.control")

LOOPBACK = ("127.0.0.1", "::1", "localhost")


async def serve(chosen: Settings) -> None:
    """Run them until SIGTERM or SIGINT."""
    store, metrics = Store.connect(chosen.redis_url), Metrics()
    controller = Controller(
        store,
        f"{socket.gethostname()}.{os.getpid()}",
        metrics,
        look_seconds=chosen.look_seconds,
        lease_ms=chosen.lease_ms,
    )
    loopback = chosen.control_host in LOOPBACK
    if not loopback and not await Authority(store.api_keys()).guarded():
        raise Usage(
            f"control plane: {chosen.control_host} is reachable by others and there is no admin key; make one "
            "(linnet keys create NAME --scope admin), or set LINNET_CONTROL_HOST=127.0.0.1"
        )
    listener = listen(chosen.control_host, chosen.control_port)
    app = create_app(store, metrics, keys_needed=not loopback)
    config = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off")
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    log.warning("control plane on http://%s:%d", *listener.getsockname()[:2])
    try:
        notifier = Notifier(store, lambda: controller.lease, metrics)
        await _until(stop, uvicorn.Server(config), listener, controller.run(), notifier.run())
    finally:
        await store.close()


async def _until(
    stop: asyncio.Event, server: uvicorn.Server, listener: socket.socket, *endless: Coroutine[Any, Any, None]
) -> None:
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(server._serve(sockets=[listener]))  # noqa: SLF001 - serve() takes our signals
        running = [tasks.create_task(one) for one in endless]
        await stop.wait()
        server.should_exit = True
        for one in running:
            one.cancel()
        for one in running:
            with suppress(asyncio.CancelledError):
                await one
        await serving


def listen(host: str, port: int) -> socket.socket:
    """Bind the listener. Raises Usage on an address that is taken."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise Usage(
            f"control plane: {host}:{port} cannot be bound ({error.strerror}); "
            "stop what uses it or set LINNET_CONTROL_PORT"
        ) from None


def main() -> int:
    """Run; an error is one line."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s", stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        asyncio.run(serve(settings()))
    except (LinnetError, StoreError) as error:
        sys.stderr.write(f"linnet: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
