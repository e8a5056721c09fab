"""The sending of one request to one of a pool's replicas."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Final, Protocol

from gateway.errors import ConnectError, LostError, UpstreamError
from gateway.pool.connection import Connection
from gateway.pool.replica import Replica
from gateway.pool.seats import Pool, Seat
from gateway.pool.sink import Headers, Patience, Sink

_SERVER_ERRORS: Final = 500
_TOKENS_MOST: Final = 131_072  # a client may name any number; no engine's work is larger by that


class Carrier(Protocol):
    """What every sending of a worker shares: `connecting_s` is how long one may look for a connection."""

    connecting_s: float
    retried: Callable[[str], None]

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        """Run what has to wait for a connection."""


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
        """Return the head of the request for one replica."""
        return b"POST %b%b HTTP/1.1\r\nhost: %b%bcontent-length: %d\r\n\r\n" % (
            replica.prefix,
            self.path,
            replica.authority,
            self.head,
            len(self.body),
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
    """One request on its way. What no engine has seen is sent to another replica; nothing else is sent twice.

    An engine may close an idle connection in the moment it is used again: a reused connection that dies before any byte
    of a reply is therefore tried once more, on a fresh one to the same replica. If that cannot be had, the engine died
    while it had the request, and nobody else is given it: it may be what killed it.

    `replica` is which of the pool's URLs has the request, or had it last; -1 before any.
    """

    __slots__ = (
        "_bad",
        "_began",
        "_carrier",
        "_connection",
        "_epoch",
        "_errand",
        "_pool",
        "_seat",
        "_sink",
        "_tokens",
        "_tried",
        "body",
        "replica",
    )

    def __init__(self, carrier: Carrier, pool: Pool, errand: Errand, sink: Sink) -> None:
        self._carrier = carrier
        self._pool = pool
        self._errand = errand
        self._tokens = min(max(errand.tokens, 1), _TOKENS_MOST)
        self._sink: Sink | None = sink
        self._seat: Seat | None = None
        self._connection: Connection | None = None
        self._tried: list[Seat] = []
        self._epoch = 0
        self._began = 0.0
        self._bad = False
        self.replica = -1
        self.body = sink.body  # a connection hands pieces straight to the one who waits, without a hop

    def start(self, now: float) -> None:
        """Send to whom the pool picks."""
        self._began = now
        self._send_to(self._pool.pick(self._tokens, self._errand.affinity, now), now)

    def abandon(self) -> None:
        """End the engine's work on this request now; nothing is heard of it any more."""
        self._sink = None
        connection, seat = self._connection, self._seat
        if seat is not None:
            seat.breaker.let_go(self._epoch)
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

    def head(self, status: int, headers: Headers, at: float) -> None:
        """Pass the head on. What a client did wrong says nothing against the engine; a 5xx does."""
        seat = self._seat
        if seat is None or self._sink is None:
            return
        if status >= _SERVER_ERRORS:
            self._bad = True
        else:
            seat.breaker.heard(self._epoch, at)
        self._sink.head(status, headers, at)

    def ended(self, at: float) -> None:
        """Pass the last word on."""
        seat = self._seat
        if seat is not None:
            seat.replica.answered_at = at
            if self._bad:
                seat.breaker.failed(self._epoch, at)
            else:
                seat.breaker.succeeded(self._epoch, at)
        self._leave()
        if self._sink is not None:
            self._sink.ended(at)

    def failed(self, error: UpstreamError) -> None:
        """Try once more what a reused connection lost unheard, else pass the last word on."""
        seat, unheard = self._seat, isinstance(error, LostError) and not error.heard
        reused = self._connection is not None and self._connection.used > 1
        self._connection = None
        if seat is not None and unheard and reused and self._sink is not None:
            self._carrier.spawn(self._send_fresh(seat, error))
            return
        if seat is not None:
            seat.breaker.failed(self._epoch, monotonic())
        self._leave()
        self._say(error)

    def _send_to(self, seat: Seat | None, now: float) -> None:
        if seat is None:
            self._say(ConnectError("the arm has no replica"))
            return
        self._seat = seat
        self.replica = seat.index
        self._epoch = seat.take(self._tokens, now)
        connection = seat.replica.reusable(now)
        if connection is None:
            self._carrier.spawn(self._send_fresh(seat))
        else:
            self._send(seat, connection, now)

    async def _send_fresh(self, seat: Seat, lost: UpstreamError | None = None) -> None:
        """Send on a fresh connection; `lost` is how a first attempt on a reused one ended."""
        try:
            connection = await seat.replica.connect()
        except ConnectError as error:
            seat.breaker.unreachable(monotonic())
            self._leave()
            if lost is None:
                self._send_elsewhere(seat, error)
            else:
                self._say(lost)
            return
        if self._sink is None:
            connection.idle_since = monotonic()
            seat.replica.released(connection)
        else:
            self._send(seat, connection, monotonic())

    def _send_elsewhere(self, seat: Seat, error: ConnectError) -> None:
        """Send to another replica, as long as a client may be kept waiting for connections."""
        if self._sink is None:
            return
        self._tried.append(seat)
        now = monotonic()
        other = self._pool.other(self._tried, now) if now - self._began < self._carrier.connecting_s else None
        if other is None:
            self._say(error)
        else:
            self._carrier.retried(self._pool.model)
            self._send_to(other, now)

    def _send(self, seat: Seat, connection: Connection, now: float) -> None:
        self._connection = connection
        errand = self._errand
        connection.send(errand.to(seat.replica), errand.body, errand.patience, self, now)

    def _leave(self) -> None:
        """The replica has one request less in hand."""
        self._connection = None
        if self._seat is not None:
            self._seat.give(self._tokens)
            self._seat = None

    def _say(self, error: UpstreamError) -> None:
        if self._sink is not None:
            self._sink.failed(error)
