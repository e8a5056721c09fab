"""Keep-alive connections to the replicas of an arm, the least busy replica first."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Sequence
from itertools import count
from time import monotonic
from urllib.parse import urlsplit

from gateway.errors import ConnectError, LostError, UpstreamError
from gateway.pool.connection import Connection, Patience, Reply
from gateway.settings import Limits

_RESTS_S = 1.0  # a replica that could not be reached is asked last for this long


class Replica:
    """One engine process: its address, its idle connections, the requests it has in hand."""

    def __init__(self, url: str, limits: Limits) -> None:
        parts = urlsplit(url)
        self.host = parts.hostname or ""
        self.port = parts.port or 80
        self.prefix = parts.path.rstrip("/")
        self._limits = limits
        self._idle: deque[Connection] = deque()
        self.connections = 0
        self.outstanding = 0
        self.rests_until = 0.0
        self.turn = 0

    async def ask(self, request: bytes, patience: Patience) -> Reply:
        """Send one request and wait for the head of its reply. Raises UpstreamError.

        An engine may close an idle connection in the moment it is used again; a reused connection that dies before any
        byte is therefore tried once more, on a fresh one.
        """
        connection = self._reusable()
        if connection is not None:
            try:
                return await self._send(connection, request, patience)
            except LostError as error:
                if error.heard:
                    raise
        return await self._send(await self._fresh(), request, patience)

    def close(self) -> None:
        """Close what is idle."""
        while self._idle:
            self._idle.pop().close()

    def _reusable(self) -> Connection | None:
        """Take the connection used last; older ones than the engine keeps are closed."""
        oldest = monotonic() - self._limits.idle_s
        while self._idle and (self._idle[0].closed or self._idle[0].idle_since < oldest):
            self._idle.popleft().close()
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed:
                return connection
        return None

    async def _fresh(self) -> Connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._limits.connect_s):
                _, connection = await loop.create_connection(lambda: Connection(self), self.host, self.port)
        except (OSError, TimeoutError) as error:
            self.rests_until = monotonic() + _RESTS_S
            raise ConnectError(f"no connection to an engine ({error or 'timed out'})") from None
        self.connections += 1
        return connection

    def _send(self, connection: Connection, request: bytes, patience: Patience) -> Awaitable[Reply]:
        self.outstanding += 1
        return _head(connection.send(request, patience))

    # its connections call these

    def finished(self) -> None:
        """One request less in hand."""
        self.outstanding -= 1

    def released(self, connection: Connection) -> None:
        """Keep a connection for the next request."""
        self._idle.append(connection)

    def lost(self, _: Connection) -> None:
        """Forget a connection."""
        self.connections -= 1


async def _head(reply: Reply) -> Reply:
    """Wait for the head; nobody else can end a request that is cancelled here."""
    try:
        await reply.head()
    except BaseException:
        reply.abort()
        raise
    return reply


class Pools:
    """Every replica that a split names, by its URL: a replica keeps its connections from one generation to the next."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._replicas: dict[str, Replica] = {}
        self._turns = count()

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return sum(replica.connections for replica in self._replicas.values())

    def order(self, urls: Sequence[str]) -> list[Replica]:
        """Return the replicas in the order to try: reachable, least outstanding, longest not asked."""
        now = monotonic()
        replicas = [self._replica(url) for url in urls]
        replicas.sort(key=lambda replica: (replica.rests_until > now, replica.outstanding, replica.turn))
        if replicas:
            replicas[0].turn = next(self._turns) + 1
        return replicas

    async def ask(self, urls: Sequence[str], head: Head, body: bytes, patience: Patience) -> Reply:
        """Send to the first replica that can be reached. Raises UpstreamError.

        Only what a reused connection lost unheard is sent twice.
        """
        failure: UpstreamError = ConnectError("the arm has no replica")
        for replica in self.order(urls):
            try:
                return await replica.ask(head.to(replica, body), patience)
            except ConnectError as error:
                failure = error
        raise failure

    def close(self) -> None:
        """Close what is idle."""
        for replica in self._replicas.values():
            replica.close()

    def _replica(self, url: str) -> Replica:
        replica = self._replicas.get(url)
        if replica is None:
            replica = self._replicas[url] = Replica(url, self._limits)
        return replica


class Head:
    """The head of a request, but for the address: which path, which request."""

    __slots__ = ("_path", "_rest")

    def __init__(self, path: str, request_id: str, passed: Sequence[tuple[bytes, bytes]] = ()) -> None:
        self._path = path.encode()
        more = b"".join(b"%s: %s\r\n" % pair for pair in passed)
        self._rest = b"x-request-id: %s\r\n%s" % (request_id.encode(), more)

    def to(self, replica: Replica, body: bytes) -> bytes:
        """Return the whole request for one replica."""
        return (
            b"POST %s%s HTTP/1.1\r\nhost: %s:%d\r\ncontent-type: application/json\r\naccept-encoding: identity\r\n%s"
            b"content-length: %d\r\n\r\n%s"
            % (replica.prefix.encode(), self._path, replica.host.encode(), replica.port, self._rest, len(body), body)
        )
