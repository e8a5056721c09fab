"""A client's connection for as long as it lives: how it is written to, paused, kept and closed."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.door.client import Client, lines
from gateway.errors import ApiError
from gateway.relay.exchange import Exchange
from gateway.settings import Limits

_LINGER_S: Final = 2.0  # how long a refused client may go on sending before the connection is cut under its answer


class ClientLine(HttpToolsProtocol):
    """One client connection, and the answer under way on it. `_closing` makes that the last; `_deaf` reads no more."""

    def __init__(self, limits: Limits, **given: Any) -> None:
        super().__init__(**given)
        self._limits = limits
        self._client: Client | None = None  # who is being answered
        self._exchange: Exchange | None = None
        self._closing = self._deaf = False
        self._quiet_since = 0.0
        self._dates: list[tuple[bytes, bytes]] = []
        self._date = b""
        self._late: asyncio.TimerHandle | None = None  # for what is being read, or for the last of it
        self._stalled: asyncio.TimerHandle | None = None

    # asyncio calls these

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a first request as long as for any further one."""
        super().connection_made(transport)
        self._quiet_since = monotonic()
        self._watch_idle(self.timeout_keep_alive)

    def connection_lost(self, exc: Exception | None) -> None:
        """A client that is gone needs no answer."""
        for timer in (self._late, self._stalled, self.timeout_keep_alive_task):
            if timer is not None:
                timer.cancel()
        exchange, self._exchange = self._exchange, None
        self._client, self._deaf = None, True
        if exchange is not None:
            exchange.left()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Let the engine wait for a client that reads slowly, for a while."""
        super().pause_writing()
        if self._stalled is None:
            self._stalled = self.loop.call_later(self._limits.stall_s, self.transport.abort)
        if self._exchange is not None:
            self._exchange.pause()

    def resume_writing(self) -> None:
        """Go on."""
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
        if self._exchange is not None:
            self._exchange.resume()

    # the client's answer calls these

    def write(self, data: bytes) -> None:
        """Send bytes."""
        self.transport.write(data)

    def dated(self) -> bytes:
        """Return the date, as uvicorn keeps it: another list each second."""
        kept = self.server_state.default_headers
        if kept is not self._dates:
            self._dates, self._date = kept, lines(kept)
        return self._date

    def finished(self) -> None:
        """Be ready for the next request, or close."""
        client, self._client = self._client, None
        self._exchange = None
        self._quiet_since = monotonic()
        self.server_state.total_requests += 1
        if self._closing or self._deaf or client is None or not client.keep_alive:
            self._linger()

    # the server calls these

    def shutdown(self) -> None:
        """Close, or let the answer under way be the last."""
        self._closing = True
        if self._client is None:
            super().shutdown()
        elif not self._client.answered:
            self._client.keep_alive = False

    def cut(self, error: ApiError) -> None:
        """End the answer under way now."""
        if self._exchange is not None:
            self._exchange.cut(error)

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection on which nothing has happened for long enough; looked at lazily, not armed a request."""
        self.timeout_keep_alive_task = None
        busy = self._client is not None or (self.cycle is not None and not self.cycle.response_complete)
        left = self._quiet_since + self.timeout_keep_alive - monotonic()
        if busy or left > 0:
            self._watch_idle(self.timeout_keep_alive if busy else left)
        else:
            super().timeout_keep_alive_handler()

    def _watch_idle(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def _linger(self) -> None:
        """Close so that the client can still read the answer: a reset while it sends would take it away."""
        if self._late is not None:
            self._late.cancel()
        if self._deaf and not self.transport.is_closing() and self.transport.can_write_eof():
            self.transport.write_eof()
            self._late = self.loop.call_later(_LINGER_S, self.transport.abort)
        else:
            self.transport.close()
