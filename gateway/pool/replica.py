"""One engine process: its address, its connections, what it has in hand, and what is known of it."""

from __future__ import annotations

import asyncio
from collections import deque
from math import inf
from time import monotonic
from typing import Final, Protocol, cast
from urllib.parse import urlsplit

from gateway.errors import ConnectError
from gateway.pool.connection import Connection
from gateway.pool.options import PoolOptions
from gateway.settings import Limits

_ATTEMPTS: Final = 8


class Watcher(Protocol):
    """Who wants to know how a replica is: its seat in an arm's pool. Times are monotonic seconds."""

    def unreachable(self, now: float) -> None:
        """There is no connection to be had."""

    def reachable(self, now: float) -> None:
        """There is one again."""

    def turned(self, now: float) -> None:
        """The health checks took it away, or gave it back."""


class Replica:
    """One engine process. The arms that it serves share it."""

    def __init__(self, url: str, limits: Limits, options: PoolOptions) -> None:
        parts = urlsplit(url)
        self.host = parts.hostname or ""
        self.port = parts.port or 80
        self.prefix = parts.path.rstrip("/").encode()
        self.authority = b"%s:%d" % (self.host.encode(), self.port)
        self.options = options
        self.watchers: set[Watcher] = set()
        self.connections = 0
        self.tokens = 0  # outstanding
        self.answered_at = -inf
        self.down = False  # as the health checks found it
        self.refused = False  # as the last attempt to connect found it
        self.retired = False  # nothing names it any more
        self._connecting = 0
        self._limits = limits
        self._idle: deque[Connection] = deque()

    def reusable(self, now: float) -> Connection | None:
        """Take the connection used last; older ones than the engine keeps are closed."""
        self.sweep(now)
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed:
                return connection
        return None

    def sweep(self, now: float) -> None:
        """Close what is idle for longer than the engine keeps it."""
        idle = self._idle
        oldest = now - self._limits.idle_s
        while idle and (idle[0].closed or idle[0].idle_since < oldest):
            idle.popleft().close()

    async def connect(self) -> Connection:
        """Open a connection. Raises ConnectError; every arm learns of it.

        A host that swallows attempts must not eat up the sockets: once one has failed, a few try at a time.
        """
        if self.refused and self._connecting >= _ATTEMPTS:
            raise ConnectError("no connection to an engine (others are trying)")
        self._connecting += 1
        try:
            return await self._connect()
        finally:
            self._connecting -= 1

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        connection = Connection(self, loop)
        # Not derived from asyncio's class, which says nothing and would cost the compiled form its speed.
        protocol = cast(asyncio.Protocol, connection)
        try:
            async with asyncio.timeout(self._limits.connect_s):
                await loop.create_connection(lambda: protocol, self.host, self.port)
        except (OSError, TimeoutError) as error:
            self.refused = True
            for watcher in self.watchers:
                watcher.unreachable(monotonic())
            raise ConnectError(f"no connection to an engine ({error or 'timed out'})") from None
        self.refused = False
        self.connections += 1
        return connection

    def retire(self) -> None:
        """Close what is idle, and keep nothing from now on; what is under way goes on."""
        self.retired = True
        self.close()

    def close(self) -> None:
        """Close what is idle."""
        while self._idle:
            self._idle.pop().close()

    # the health checks call this

    def found(self, *, up: bool) -> None:
        """Hear how it is. One that comes up starts slowly, and only a real answer closes a breaker."""
        now, turned = monotonic(), self.down is up
        self.down = not up
        self.refused = self.refused and not up
        for watcher in self.watchers:
            if up:
                watcher.reachable(now)
            if turned:
                watcher.turned(now)

    # its connections call these

    def released(self, connection: Connection) -> None:
        """Keep a connection for the next request."""
        if self.retired:
            connection.close()
        else:
            self._idle.append(connection)

    def lost(self, _: Connection) -> None:
        """Forget a connection."""
        self.connections -= 1
