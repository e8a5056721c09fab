"""One HTTP/1.1 connection to an engine: a request out, a reply in, each wait with its limit.

llhttp (httptools) parses. What arrives is handed on in the same call of the event loop: no task, no queue, no copy. One
timer per connection guards the waits; it is moved lazily, so that a request or a chunk costs an attribute and no timer.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from time import monotonic
from typing import Final, Protocol

import httptools

from gateway.errors import BadAnswerError, LateError, LostError, UpstreamError
from gateway.pool.sink import Headers, Patience, Sink
from gateway.repeat import Repeat, learned

_LOG: Final = logging.getLogger("linnet.gateway")
_HEADERS_MOST: Final = 200
_COPIED: Final = 16 * 1024  # bytes that are sooner copied than written apart
_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding"})
_FRAMING_MOST: Final = 64 * 1024  # bytes that bring no piece of a body
_VERSIONS: Final = frozenset({"1.0", "1.1"})
_INFORMS, _ANSWERS = 100, 200  # the first statuses that do
_BODILESS: Final = frozenset({204, 304})  # whatever length they tell
_FOREVER: Final = float("inf")


class Keeper(Protocol):
    """Who owns a connection."""

    def released(self, connection: Connection) -> None:
        """It is free for the next request."""

    def lost(self, connection: Connection) -> None:
        """It is no more."""


class Connection:
    """One connection, one request at a time; `keeper` is told what becomes of it."""

    __slots__ = (
        "_complete",
        "_framed",
        "_framing",
        "_headers",
        "_heard_at",
        "_keep",
        "_keeper",
        "_known",
        "_loop",
        "_parser",
        "_patience",
        "_paused",
        "_sent_at",
        "_sink",
        "_size",
        "_status",
        "_timer",
        "_timer_at",
        "_transport",
        "closed",
        "heard",
        "idle_since",
        "used",
    )

    def __init__(self, keeper: Keeper, loop: asyncio.AbstractEventLoop) -> None:
        self._keeper = keeper
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        self._sink: Sink | None = None
        self._patience = Patience(0, 0, 0)
        self._headers: Headers = []
        self._status = 0
        self._framed = self._complete = self._keep = self._paused = False
        self._size = 0  # of the body, as far as it came
        self._known: tuple[Repeat, int, Headers] | None = None  # the head that this engine says each time
        self._framing = 0  # bytes since the last piece of a body
        self._sent_at = self._heard_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self.heard = False  # whether any byte of the present reply has come
        self.idle_since = 0.0
        self.used = 0  # how many requests it has carried
        self.closed = False

    def send(self, head: bytes, body: bytes, patience: Patience, sink: Sink, now: float) -> None:
        """Write one whole request `now`, in monotonic seconds; `sink` hears its reply."""
        if self._transport is None or self._sink is not None:
            raise RuntimeError("a connection takes one request at a time")
        self._sink, self._patience = sink, patience
        self.used += 1
        self._status, self._headers, self._framing, self._size = 0, [], 0, 0
        self._framed = self._complete = self._keep = self._paused = self.heard = False
        self._sent_at = self._heard_at = now
        wait = min(patience.first_byte_s, patience.total_s)
        if self._timer is None or self._timer_at > now + wait:
            self._watch_in(wait)
        if len(body) > _COPIED:
            self._transport.writelines((head, body))
        else:
            self._transport.write(head + body)

    def close(self) -> None:
        """Close the connection; for an idle one, or one whose reply nobody waits for."""
        self.closed = True
        self._sink = self._parser = None  # the parser knows this connection too; nobody should have to collect them
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._transport is not None:
            self._transport.abort()

    def pause(self) -> None:
        """Stop reading: the client cannot take more."""
        if self._transport is not None and not self._paused and not self.closed:
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on; the time the client took is not the engine's."""
        if self._transport is not None and self._paused and not self.closed:
            self._paused = False
            self._heard_at = monotonic()
            self._transport.resume_reading()

    def _fail(self, error: UpstreamError) -> None:
        sink = self._sink
        self.close()
        if sink is not None:
            sink.failed(error)

    # asyncio calls these

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport; small writes leave at once."""
        self._transport = transport  # type: ignore[assignment]
        raw = transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        """Parse what came; whatever it completes is handed on from in here."""
        parser = self._parser
        if self._sink is None or parser is None:  # an engine that speaks unasked cannot be trusted with the next answer
            self.close()
            return
        fresh = not self.heard
        self.heard = True
        self._heard_at = monotonic()
        if fresh and self._known is not None and self._again(*self._known, data):
            return
        self._framing += len(data)
        try:
            parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:
            _LOG.exception("a reply could not be handed on", exc_info=error.__context__)
            self._fail(BadAnswerError("the gateway could not hand it on"))
            return
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._keep = False
            if not self._complete:
                self._fail(BadAnswerError(f"not HTTP/1.1: {error}"))
                return
        if self._complete:
            if fresh:
                self._learn(data)
            self._finish()
        elif self._framing > _FRAMING_MOST:
            self._fail(BadAnswerError("a head, or a framing, without end"))

    def _learn(self, reply: bytes) -> None:
        """Remember the head of a reply that came in one piece."""
        lasting = self._keep and self._framed and self._status not in _BODILESS
        repeat = learned(reply, self._size) if lasting else None
        self._known = None if repeat is None else (repeat, self._status, self._headers)

    def _again(self, repeat: Repeat, status: int, headers: Headers, reply: bytes) -> bool:
        """Hand on a reply whose head was read before; False if it has to be read."""
        body, sink = repeat.body(reply), self._sink
        if body is None or sink is None:
            return False
        self._status = status
        try:
            sink.head(status, headers, self._heard_at)
            if self._sink is sink and body:
                sink.body(body, self._heard_at)
        except Exception:  # noqa: BLE001 - as where llhttp calls
            _LOG.exception("a reply could not be handed on")
            self._fail(BadAnswerError("the gateway could not hand it on"))
            return True
        if self._sink is sink:
            self._complete = self._keep = self._framed = True
            self._finish()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits for a reply; one without length or chunks ends here."""
        self.closed = True
        if self._sink is not None:
            if exc is None and self._status and not self._framed:
                self._heard_at = monotonic()
                self._finish()
            else:
                self._fail(LostError(f"the connection was lost ({exc or 'closed'})", heard=self.heard))
        self.close()
        self._keeper.lost(self)

    def eof_received(self) -> bool:
        """Let the transport be closed: an engine that says no more hears no more."""
        return False

    def pause_writing(self) -> None:
        """Keep what is written: a request is in hand as a whole."""

    def resume_writing(self) -> None:
        """Nothing has waited."""

    # httptools calls these

    def on_message_begin(self) -> None:
        """Refuse a second reply to one request: what comes unasked belongs to nobody."""
        if self._complete:
            self._keep = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect one header."""
        if self._complete:
            return
        name = name.lower()
        self._headers.append((name, value))
        if name in _FRAMING:
            if self._framed:
                self._fail(BadAnswerError("two framings of one body"))
            self._framed = True
        if len(self._headers) > _HEADERS_MOST:
            self._fail(BadAnswerError("too many headers"))
        elif name == b"content-encoding" and value.lower() != b"identity":
            self._fail(BadAnswerError("an encoding that was not asked for"))

    def on_headers_complete(self) -> None:
        """Take the status, but for 1xx: another head follows it."""
        parser = self._parser
        if parser is None:
            return
        status = parser.get_status_code()
        if status < _INFORMS or parser.get_http_version() not in _VERSIONS:
            self._fail(BadAnswerError("not HTTP/1.1"))
        elif status < _ANSWERS:
            self._headers, self._framed = [], False
        elif self._sink is not None and not self._complete:
            self._status = status
            self._sink.head(status, self._headers, self._heard_at)

    def on_body(self, body: bytes) -> None:
        """Hand on a piece of the body."""
        self._framing = 0
        if self._sink is None or self._complete:
            return
        if self._status:
            self._size += len(body)
            self._sink.body(body, self._heard_at)
        else:
            self._fail(BadAnswerError("a body before its head"))

    def on_message_complete(self) -> None:
        """Remember that the reply is whole; more bytes may still follow it in this piece."""
        if self._status and not self._complete and self._parser is not None:
            self._complete = True
            self._keep = self._parser.should_keep_alive()

    def _finish(self) -> None:
        """Free the connection, then say the last word: what follows may need it at once."""
        sink, self._sink, at = self._sink, None, self._heard_at
        if self._keep and not self.closed:
            self.idle_since = at
            self.resume()
            self._keeper.released(self)
        else:
            self.close()
        if sink is None:
            return
        try:
            sink.ended(at)
        except Exception:  # noqa: BLE001 - a client must not wait for an answer that nobody will send
            _LOG.exception("a reply could not be handed on")
            sink.failed(BadAnswerError("the gateway could not hand it on"))

    # the limits

    def _watch_in(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = monotonic() + seconds
        self._timer = self._loop.call_later(seconds, self._watch)

    def _watch(self) -> None:
        """Break the request if a limit has passed, else look again when one could."""
        self._timer = None
        if self._sink is None:
            return
        now, patience = monotonic(), self._patience
        wait = patience.between_s if self.heard else patience.first_byte_s
        quiet = _FOREVER if self._paused else self._heard_at + wait - now
        left = min(quiet, self._sent_at + patience.total_s - now)
        if left > 0:
            self._watch_in(min(left, patience.between_s))
            return
        which = "in all" if quiet > 0 else "between two pieces" if self.heard else "for the first byte"
        self._fail(LateError(f"no answer within {wait if quiet <= 0 else patience.total_s:g} s {which}"))
