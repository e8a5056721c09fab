"""One worker process: the data plane on a socket that its parent has bound (`python -m gateway.worker`)."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex

import uvicorn
import uvloop

from gateway.app import Gateway, create_app
from gateway.door.protocol import Door
from gateway.errors import ApiError, SettingsError
from gateway.record.snapshots import Snapshots, file_of
from gateway.settings import Settings, load

FD = "LINNET_WORKER_FD"
PARENT = "LINNET_WORKER_PARENT"
METRICS = "LINNET_WORKER_METRICS"  # the folder of the workers' sums
_NOT_READY_S = 0.5  # /readyz says no for this long before the port closes
_PARENT_S = 1.0


class Server(uvicorn.Server):
    """Uvicorn, but signals are ours: it would end the process by the signal again instead of with 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield


def server_of(app: Gateway, drain_s: float) -> Server:
    """Return the HTTP server of a worker."""
    config = uvicorn.Config(
        app,
        http=app.door,  # type: ignore[arg-type]
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # who calls is decided by the connection, not by a header
        timeout_keep_alive=75,
        timeout_graceful_shutdown=round(drain_s) + 2,  # by then what was left has been cut
        backlog=4096,
    )
    return Server(config)


def drain(app: Gateway, server: Server) -> None:
    """Say not ready, then stop taking connections; answers under way go on, up to the limit."""
    if not app.readiness.draining:
        app.readiness.draining = True
        loop = asyncio.get_running_loop()
        loop.call_later(_NOT_READY_S, setattr, server, "should_exit", True)
        loop.call_later(_NOT_READY_S + app.desk.limits.drain_s, _cut, server)


def _cut(server: Server) -> None:
    """End every answer that is still under way, each in the words of its form."""
    for connection in list(server.server_state.connections):
        if isinstance(connection, Door):
            connection.cut(ApiError(503, "the gateway is shutting down; try again", "shutting_down"))


async def serve(settings: Settings, listener: socket.socket) -> None:
    """Serve until SIGTERM, SIGINT or the end of the parent."""
    worker = f"{socket.gethostname()}-{os.getpid()}-{token_hex(4)}"
    app = create_app(settings, worker)
    server = server_of(app, settings.limits.drain_s)
    snapshots = Snapshots(app.desk.metrics, file_of(Path(os.environ[METRICS]), os.getpid()))
    loop = asyncio.get_running_loop()
    for sign in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sign, drain, app, server)
    loop.add_signal_handler(signal.SIGHUP, app.parts.reload)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})  # the parent's wait until there is a handler
    settle()
    async with asyncio.TaskGroup() as group:
        watch = group.create_task(_watch_parent(app, server))
        keep = group.create_task(snapshots.keep())
        await server.serve(sockets=[listener])
        watch.cancel()
        keep.cancel()
    await snapshots.write()


async def _watch_parent(app: Gateway, server: Server) -> None:
    """Drain when the parent is gone: nobody else would ever end this process. It may be gone before this looks."""
    parent = int(os.environ[PARENT])
    while os.getppid() == parent:  # noqa: ASYNC110 - the kernel sends no event
        await asyncio.sleep(_PARENT_S)
    drain(app, server)


def raise_open_files() -> int:
    """Let this process have as many open files as it may: a stream under way is two. Return how many that is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # some systems say that there is no limit, and mean one
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        return hard
    return soft


def settle() -> None:
    """Give back what only the start needed.

    Where modules had to be compiled, that is megabytes. What is left lives as long as the process, so no collection
    needs to look through it again: those that do stop every request for tens of milliseconds.
    """
    gc.collect()
    gc.freeze()
    with contextlib.suppress(OSError, AttributeError):  # a C library without it
        ctypes.CDLL(None).malloc_trim(0)


def main() -> int:
    """Run one worker on the socket that `LINNET_WORKER_FD` names."""
    logging.basicConfig(level=logging.WARNING, format="gateway %(levelname)s %(message)s", stream=sys.stderr)
    try:
        settings = load()
    except SettingsError as error:
        sys.stderr.write(f"gateway: {error}\n")
        return 2
    raise_open_files()
    listener = socket.socket(fileno=int(os.environ[FD]))
    listener.setblocking(False)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(settings, listener))
    return 0


if __name__ == "__main__":
    sys.exit(main())
