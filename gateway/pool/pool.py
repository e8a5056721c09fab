"""The replicas of an arm, and the sending of one request to one of them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from itertools import count
from time import monotonic
from urllib.parse import urlsplit

from gateway.errors import ConnectError, LostError, UpstreamError
from gateway.pool.connection import Connection, Patience, Sink
from gateway.settings import Limits

_RESTS_S = 1.0  # a replica that could not be reached is asked last for this long


class Replica:
    """One engine process: its address, its idle connections, the requests it has in hand."""

    def __init__(self, url: str, limits: Limits) -> None:
        parts = urlsplit(url)
        self.host = parts.hostname or ""
        self.port = parts.port or 80
        self.prefix = parts.path.rstrip("/").encode()
        self.authority = b"%s:%d" % (self.host.encode(), self.port)
        self._limits = limits
        self._idle: deque[Connection] = deque()
        self.connections = 0
        self.outstanding = 0
        self.tokens = 0
        self.rests_until = 0.0
        self.turn = 0

    def reusable(self) -> Connection | None:
        """Take the connection used last; older ones than the engine keeps are closed."""
        oldest = monotonic() - self._limits.idle_s
        while self._idle and (self._idle[0].closed or self._idle[0].idle_since < oldest):
            self._idle.popleft().close()
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed:
                return connection
        return None

    async def connect(self) -> Connection:
        """Open a connection. Raises ConnectError."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._limits.connect_s):
                _, connection = await loop.create_connection(lambda: Connection(self, loop), self.host, self.port)
        except (OSError, TimeoutError) as error:
            self.rests_until = monotonic() + _RESTS_S
            raise ConnectError(f"no connection to an engine ({error or 'timed out'})") from None
        self.connections += 1
        return connection

    def close(self) -> None:
        """Close what is idle."""
        while self._idle:
            self._idle.pop().close()

    # its connections call these

    def released(self, connection: Connection) -> None:
        """Keep a connection for the next request."""
        self._idle.append(connection)

    def lost(self, _: Connection) -> None:
        """Forget a connection."""
        self.connections -= 1


@dataclass(slots=True)
class Errand:
    """One request for an engine. `head` is what `head_of` made; `tokens` estimates its work.

    Requests with the same `affinity` ("" for none) share a prompt's beginning: a replica that has it cached is better.
    """

    path: bytes
    head: bytes
    body: bytes
    patience: Patience
    tokens: int = 0
    affinity: str = ""

    def to(self, replica: Replica) -> bytes:
        """Return the whole request for one replica."""
        return b"POST %b%b HTTP/1.1\r\nhost: %b%bcontent-length: %d\r\n\r\n%b" % (
            replica.prefix,
            self.path,
            replica.authority,
            self.head,
            len(self.body),
            self.body,
        )


def head_of(request_id: str, passed: Sequence[tuple[bytes, bytes]] = (), kind: bytes = b"application/json") -> bytes:
    """Return the headers of a request that are the same for every replica."""
    more = b"".join([b"%b: %b\r\n" % pair for pair in passed])
    return b"\r\ncontent-type: %b\r\naccept-encoding: identity\r\nx-request-id: %b\r\n%b" % (
        kind,
        request_id.encode(),
        more,
    )


class Sending:
    """One request on its way. What no engine has seen is sent to the next replica; nothing else is sent twice.

    An engine may close an idle connection in the moment it is used again: a reused connection that dies before any byte
    of a reply is therefore tried once more, on a fresh one.
    """

    __slots__ = ("_connection", "_errand", "_pools", "_replica", "_sink", "_untried", "body", "head")

    def __init__(self, pools: Pools, untried: list[Replica], errand: Errand, sink: Sink) -> None:
        self._pools = pools
        self._untried = untried
        self._errand = errand
        self._sink: Sink | None = sink
        self._replica: Replica | None = None
        self._connection: Connection | None = None
        # A connection hands pieces to these two: straight to the one who waits, without a hop.
        self.head = sink.head
        self.body = sink.body

    def start(self) -> None:
        """Send to the next replica that was not tried."""
        if not self._untried:
            self._say(ConnectError("the arm has no replica"))
            return
        replica = self._take(self._untried.pop(0))
        connection = replica.reusable()
        if connection is None:
            self._pools.spawn(self._send_fresh(replica))
        else:
            self._send(replica, connection)

    def abandon(self) -> None:
        """End the engine's work on this request now; nothing is heard of it any more."""
        self._sink = None
        connection = self._connection
        self._leave()
        if connection is not None:
            connection.close()

    def pause(self) -> None:
        """Let the engine wait."""
        if self._connection is not None:
            self._connection.pause()

    def resume(self) -> None:
        """Let it go on."""
        if self._connection is not None:
            self._connection.resume()

    # the connection calls these

    def ended(self) -> None:
        """Pass the last word on."""
        self._leave()
        if self._sink is not None:
            self._sink.ended()

    def failed(self, error: UpstreamError) -> None:
        """Try once more what a reused connection lost unheard, else pass the last word on."""
        replica, unheard = self._replica, isinstance(error, LostError) and not error.heard
        reused = self._connection is not None and self._connection.used > 1
        self._connection = None
        if replica is not None and unheard and reused and self._sink is not None:
            self._pools.spawn(self._send_fresh(replica))
            return
        self._leave()
        self._say(error)

    async def _send_fresh(self, replica: Replica) -> None:
        try:
            connection = await replica.connect()
        except ConnectError as error:
            self._leave()
            if self._untried:
                self.start()
            else:
                self._say(error)
            return
        if self._sink is None:
            replica.released(connection)
        else:
            self._send(replica, connection)

    def _send(self, replica: Replica, connection: Connection) -> None:
        self._connection = connection
        connection.send(self._errand.to(replica), self._errand.patience, self)

    def _take(self, replica: Replica) -> Replica:
        self._replica = replica
        replica.outstanding += 1
        return replica

    def _leave(self) -> None:
        """The replica has one request less in hand."""
        self._connection = None
        if self._replica is not None:
            self._replica.outstanding -= 1
            self._replica = None

    def _say(self, error: UpstreamError) -> None:
        if self._sink is not None:
            self._sink.failed(error)


class Pools:
    """Every replica that a split names, by its URL: a replica keeps its connections from one generation to the next."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._replicas: dict[str, Replica] = {}
        self._turns = count(1)
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return sum(replica.connections for replica in self._replicas.values())

    def send(self, urls: Sequence[str], errand: Errand, sink: Sink) -> Sending:
        """Send one request to one of the replicas; `sink` hears the reply, perhaps before this returns."""
        sending = Sending(self, self.order(urls), errand, sink)
        sending.start()
        return sending

    def order(self, urls: Sequence[str]) -> list[Replica]:
        """Return the replicas in the order to try: reachable, least outstanding, longest not asked."""
        replicas = [self._replica(url) for url in urls]
        if len(replicas) > 1:
            now = monotonic()
            replicas.sort(key=lambda replica: (replica.rests_until > now, replica.outstanding, replica.turn))
            replicas[0].turn = next(self._turns)
        return replicas

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        """Run what has to wait for a connection."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        """Close what is idle."""
        for replica in self._replicas.values():
            replica.close()

    def _replica(self, url: str) -> Replica:
        replica = self._replicas.get(url)
        if replica is None:
            replica = self._replicas[url] = Replica(url, self._limits)
        return replica
