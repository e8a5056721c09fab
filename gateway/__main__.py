"""Run the gateway: bind the port once, keep the workers alive, serve their summed metrics (`python -m gateway`)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from prometheus_client import CONTENT_TYPE_LATEST

from gateway import compiled
from gateway.door.access import check_bind, keys_at_start
from gateway.errors import SettingsError
from gateway.record import log, trace
from gateway.record.page import Page
from gateway.routes.ops import metrics_router
from gateway.settings import Settings, load
from gateway.worker import FD, METRICS, PARENT, Server, settle

_RESTART_S = 0.5
_AFTER_DRAIN_S = 3.0


def bind(name: str, host: str, port: int) -> socket.socket:
    """Bind and listen. Raises SettingsError with one line."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        # Accepted connections inherit it; asyncio sets it only where the listener names its protocol. Without it an
        # answer in two writes waits 40 ms for the client's acknowledgement.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind((host, port))
        listener.listen(4096)
    except OSError as error:
        listener.close()
        reason = error.strerror or error
        raise SettingsError(f"{host}:{port}: cannot listen ({reason}); free the port or set {name}") from None
    listener.setblocking(False)
    return listener


class Workers:
    """The worker processes: each one that dies is replaced until the gateway stops."""

    def __init__(self, listener: socket.socket, page: Page, drain_s: float, more: Mapping[str, str]) -> None:
        """`more` is what a worker has in its environment besides."""
        self._fd = listener.fileno()
        self._more = more
        self._page = page
        self._drain_s = drain_s
        self._running: set[asyncio.subprocess.Process] = set()
        self._stopping = False

    async def keep(self) -> None:
        """Run one worker after the other, until told to stop."""
        while not self._stopping:
            process = await self._start()
            self._running.add(process)
            if self._stopping:  # told while this one was being started
                process.terminate()
            code = await process.wait()
            self._running.discard(process)
            self._page.bury(process.pid)
            if not self._stopping:
                sys.stderr.write(f"gateway: worker {process.pid} ended ({code}); starting another\n")
                await asyncio.sleep(_RESTART_S)

    async def stop(self) -> None:
        """Let every worker drain; whoever does not end in time is killed."""
        self._stopping = True
        for process in self._running:
            process.terminate()
        await asyncio.sleep(self._drain_s + _AFTER_DRAIN_S)
        for process in self._running:
            process.kill()

    def reload(self) -> None:
        """Let every worker read the file of models again."""
        for process in self._running:
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                process.send_signal(signal.SIGHUP)

    async def _start(self) -> asyncio.subprocess.Process:
        """Start a worker. It inherits a blocked SIGHUP, which would end it before it has a handler."""
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
        try:
            return await asyncio.create_subprocess_exec(
                sys.executable, "-m", "gateway.worker", pass_fds=(self._fd,), env=self._environment(os.environ)
            )
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})

    def _environment(self, env: Mapping[str, str]) -> dict[str, str]:
        return {**env, **self._more, FD: str(self._fd), PARENT: str(os.getpid()), METRICS: str(self._page.folder)}


def ops_server(page: Page) -> Server:
    """Return the server of the operations port."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.include_router(metrics_router(page.render, CONTENT_TYPE_LATEST))
    config = uvicorn.Config(app, log_config=None, access_log=False, server_header=False, timeout_graceful_shutdown=1)
    return Server(config)


async def serve(
    settings: Settings, listener: socket.socket, ops: socket.socket, page: Page, more: Mapping[str, str]
) -> None:
    """Run until SIGTERM or SIGINT; workers have `more` in their environment."""
    stop = asyncio.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(sign, stop.set)
    workers = Workers(listener, page, settings.limits.drain_s, more)
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, workers.reload)
    server = ops_server(page)
    settle()
    async with asyncio.TaskGroup() as group:
        kept = [group.create_task(workers.keep()) for _ in range(settings.workers)]
        group.create_task(server.serve(sockets=[ops]))
        await stop.wait()
        stopping = group.create_task(workers.stop())
        await asyncio.gather(*kept)
        stopping.cancel()
        server.should_exit = True


def main() -> int:
    """Run the gateway; 2 if it cannot start as it is set."""
    try:
        settings = load()
        keyed = keys_at_start(settings.redis_url, settings.state)
        check_bind(settings.host, keys_known=keyed)
        if settings.access_log:
            log.check(settings.access_log)
        if settings.otel_endpoint:
            trace.check(settings.otel_endpoint)
        listener = bind("LINNET_GATEWAY_PORT", settings.host, settings.port)
        ops = bind("LINNET_OPS_PORT", settings.host, settings.ops_port)
    except SettingsError as error:
        sys.stderr.write(f"gateway: {error}\n")
        return 2
    more = compiled.environment() if settings.compiled else {}
    metrics = Path(tempfile.mkdtemp(prefix="linnet-metrics-"))
    data, operations = listener.getsockname()[1], ops.getsockname()[1]
    sys.stdout.write(
        f"gateway: http://{settings.host}:{data}/v1, {settings.workers} workers{', compiled' if more else ''}, "
        f"{'API keys needed' if keyed else 'loopback only (no API keys configured)'}; "
        f"metrics http://{settings.host}:{operations}/metrics\n"
    )
    sys.stdout.flush()
    try:
        asyncio.run(serve(settings, listener, ops, Page(metrics), more))
    finally:
        shutil.rmtree(metrics, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
