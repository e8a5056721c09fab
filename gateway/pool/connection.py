"""One HTTP/1.1 connection to an engine: a request out, a reply in, each wait with its limit.

llhttp (httptools) parses; what arrives in one piece is handed on in one piece. One timer per request guards the waits;
it is moved lazily, so that a chunk costs an attribute and no timer of its own.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

import httptools

from gateway.errors import BadAnswerError, LateError, LostError, UpstreamError

_HIGH_WATER = 256 * 1024  # bytes held for a client that reads slowly before the engine is told to wait
_HEADERS_MOST = 200


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds one request may wait: for the first byte of an answer, between its pieces, and in all."""

    first_byte_s: float
    between_s: float
    total_s: float


class Reply:
    """One reply as it comes. `status` is 0 until the head is there."""

    __slots__ = (
        "_complete",
        "_connection",
        "_error",
        "_paused",
        "_pieces",
        "_size",
        "_waiter",
        "headers",
        "heard",
        "status",
    )

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._waiter: asyncio.Future[None] | None = None
        self._error: UpstreamError | None = None
        self._complete = False
        self._paused = False
        self.headers: list[tuple[bytes, bytes]] = []
        self.status = 0
        self.heard = False

    def header(self, name: bytes, default: bytes = b"") -> bytes:
        """Return the first header of a lower-case `name`."""
        return next((value for key, value in self.headers if key.lower() == name), default)

    async def head(self) -> None:
        """Wait for the status and the headers. Raises UpstreamError."""
        while not self.status:
            await self._news()

    async def piece(self) -> bytes | None:
        """Return the next piece of the body, None at its end. Raises UpstreamError."""
        while not self._pieces:
            if self._complete:
                return None
            await self._news()
        piece = self._pieces.popleft()
        self._size -= len(piece)
        if self._paused and self._size < _HIGH_WATER:
            self._paused = False
            self._connection.resume()
        return piece

    async def read(self, most: int) -> bytes:
        """Return the rest of the body. Raises BadAnswerError if it is longer than `most` bytes, UpstreamError else."""
        parts, size = [], 0
        while (piece := await self.piece()) is not None:
            parts.append(piece)
            size += len(piece)
            if size > most:
                self.abort()
                raise BadAnswerError(f"an answer of more than {most} bytes")
        return b"".join(parts)

    def abort(self) -> None:
        """End the engine's work on this request at once; a reply that is complete stays as it is."""
        if not self._complete:
            self._connection.fail(LostError("given up by the gateway", heard=self.heard))

    async def _news(self) -> None:
        if self._error is not None:
            raise self._error
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def take(self, piece: bytes) -> None:
        """Hold a piece that came; tell the engine to wait if too much is held."""
        self._pieces.append(piece)
        self._size += len(piece)
        if self._size > _HIGH_WATER and not self._paused:
            self._paused = True
            self._connection.pause()

    def end(self, error: UpstreamError | None) -> None:
        """Close the reply: complete without `error`, else broken by it."""
        if error is None:
            self._complete = True
        else:
            self._error = error
        self._paused = False  # the connection may serve the next request while this reply is still being read
        self.wake()

    def wake(self) -> None:
        """Let the reader look again."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    @property
    def complete(self) -> bool:
        """Whether the last byte has come."""
        return self._complete

    @property
    def backed_up(self) -> bool:
        """Whether the engine is being made to wait for a slow client."""
        return self._paused


class Keeper(Protocol):
    """Who owns connections."""

    def finished(self) -> None:
        """A request ended, one way or another."""

    def released(self, connection: Connection) -> None:
        """A connection is free for the next request."""

    def lost(self, connection: Connection) -> None:
        """A connection is no more."""


class Connection(asyncio.Protocol):
    """One connection, one request at a time; `keeper` is told what becomes of it."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._reply: Reply | None = None
        self._patience = Patience(0, 0, 0)
        self._sent_at = self._heard_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.idle_since = 0.0
        self.closed = False

    def send(self, request: bytes, patience: Patience) -> Reply:
        """Write one whole request and return its reply."""
        if self._transport is None or self._reply is not None:
            raise RuntimeError("a connection takes one request at a time")
        self._reply = reply = Reply(self)
        self._parser = httptools.HttpResponseParser(self)
        self._patience = patience
        self._sent_at = self._heard_at = monotonic()
        self._watch()
        self._transport.write(request)
        return reply

    def close(self) -> None:
        """Close an idle connection."""
        self.closed = True
        if self._transport is not None:
            self._transport.close()

    def fail(self, error: UpstreamError) -> None:
        """Break the reply with `error`, and the connection with it."""
        self.closed = True
        reply = self._finish()
        if reply is not None:
            reply.end(error)
        if self._transport is not None:
            self._transport.abort()

    def pause(self) -> None:
        """Stop reading."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on; the time the client took is not the engine's."""
        self._heard_at = monotonic()
        if self._transport is not None and not self.closed:
            self._transport.resume_reading()

    # asyncio calls these

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport; small writes leave at once."""
        self._transport = transport  # type: ignore[assignment]
        raw = transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        """Parse what came, then wake the reader once."""
        reply = self._reply
        if (
            reply is None or self._parser is None
        ):  # an engine that speaks unasked cannot be trusted with the next answer
            self.close()
            return
        reply.heard = True
        self._heard_at = monotonic()
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self.fail(BadAnswerError(f"not HTTP/1.1: {error}"))
            return
        reply.wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the reader, if one is waiting."""
        if self._parser is not None and self._reply is not None and exc is None and self._ends_by_closing():
            self._complete()
        self.closed = True
        reply = self._finish()
        if reply is not None:
            reply.end(LostError(f"the connection was lost ({exc or 'closed'})", heard=reply.heard))
        self._keeper.lost(self)

    # httptools calls these

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect one header."""
        if self._reply is not None:
            self._reply.headers.append((name, value))
            if len(self._reply.headers) > _HEADERS_MOST:
                raise ValueError("too many headers")

    def on_headers_complete(self) -> None:
        """Take the status, but for 1xx: another head follows it."""
        if self._reply is not None and self._parser is not None:
            status = self._parser.get_status_code()
            if status < 200:  # noqa: PLR2004
                self._reply.headers.clear()
            else:
                self._reply.status = status

    def on_body(self, body: bytes) -> None:
        """Hand on a piece of the body."""
        if self._reply is not None:
            self._reply.take(body)

    def on_message_complete(self) -> None:
        """End the reply; keep the connection if both sides may."""
        if self._reply is not None and self._reply.status:
            self._complete()

    def _complete(self) -> None:
        parser, reply = self._parser, self._finish()
        if reply is None or parser is None:
            return
        if reply.backed_up:
            self.resume()
        reply.end(None)
        if parser.should_keep_alive() and not self.closed:
            self.idle_since = monotonic()
            self._keeper.released(self)
        else:
            self.close()

    def _ends_by_closing(self) -> bool:
        """Tell whether the reply in hand has neither length nor chunks: its end is the connection's."""
        reply = self._reply
        framed = reply is None or reply.header(b"content-length") or reply.header(b"transfer-encoding")
        return not framed and reply is not None and bool(reply.status)

    def _finish(self) -> Reply | None:
        reply, self._reply, self._parser = self._reply, None, None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if reply is not None:
            self._keeper.finished()
        return reply

    def _watch(self) -> None:
        """Break the request if a limit has passed, else look again when one could."""
        reply = self._reply
        if reply is None:
            return
        now, patience = monotonic(), self._patience
        wait = patience.between_s if reply.heard else patience.first_byte_s
        quiet = float("inf") if reply.backed_up else self._heard_at + wait - now
        left = min(quiet, self._sent_at + patience.total_s - now)
        if left > 0:
            self._timer = asyncio.get_running_loop().call_later(min(left, patience.between_s), self._watch)
            return
        which = "in all" if quiet > 0 else "between two pieces" if reply.heard else "for the first byte"
        self.fail(LateError(f"no answer within {wait if quiet <= 0 else patience.total_s:g} s {which}"))
