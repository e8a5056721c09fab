"""What a client says. A proxied route is served right here, without a task; FastAPI has everything else.

It is uvicorn's own protocol class: llhttp parses every request, and what is not a POST to a proxied path goes on to the
application as if this class were not there. For a proxied request the parser's callbacks collect head and body, and the
engine's bytes are written to this transport in the very call that brought them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

import httptools

from gateway.door.client import Client, lines
from gateway.door.guest import Guest
from gateway.door.line import ClientLine
from gateway.door.reception import Reception, too_large
from gateway.errors import ApiError
from gateway.repeat import Repeat, learned
from gateway.routes.table import PROXIED, Route
from gateway.settings import Limits

_LOG: Final = logging.getLogger("linnet.gateway")
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_TOO_LARGE: Final = 431, "The head, or the framing of the body, is too large.", "head_too_large"
_FRAMING: Final = 64 * 1024  # bytes
_BESIDES: Final = frozenset({b"expect", b"transfer-encoding"})  # a request with these is more than head and body
_OFFER: Final = frozenset({b"connection", b"upgrade", b"http2-settings"})
_VERSIONS: Final = frozenset({"1.0", "1.1"})


class Door(ClientLine):
    """One client connection as it is read, one proxied request at a time."""

    def __init__(self, reception: Reception, limits: Limits, **given: Any) -> None:
        super().__init__(limits, **given)
        self._reception = reception
        self.url = b""
        self._guest: Guest | None = None  # whose body is being read
        self._served: Guest | None = None  # whose request was complete just now
        self._known: tuple[Repeat, Guest] | None = None  # the head that this client says each time
        self._parts: list[bytes] = []
        self._size = 0
        self._heading = self._begun = self._ordinary = False
        self._came = 0  # bytes of the present request

    # asyncio calls this

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        if self._deaf:
            return
        between = self._client is None and not self._heading and not self._ordinary
        if between and self._known is not None and self._again(*self._known, data):
            return
        # Bytes that come while nothing is open, and open nothing, are nobody's: a few line ends, or a flood.
        self._begun = not between
        if self._parsed(data) and not self._deaf:  # refused from in there: once is enough
            self._look(data)
        if self._served is not None:
            self._learn(self._served, data if between else b"")

    def _parsed(self, data: bytes) -> bool:
        """Let llhttp read; False if what it said was the last of it."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            self._decline(data[offer.args[0] :])
            return False
        except httptools.HttpParserError as error:
            if not self._deaf:
                self._refuse_bytes(error)
            return False
        return True

    def _look(self, data: bytes) -> None:
        """See to it that a request comes to its end, in bytes and in seconds."""
        if self._heading or self._guest is not None or not self._begun:
            self._came += len(data)
            if self._came > self._most():
                self._refuse_line(*_TOO_LARGE)
                return
        if self._late is None and (self._heading or self._guest is not None):
            self._late = self.loop.call_later(self._limits.head_s, self._too_late)

    def _most(self) -> int:
        """Return how many bytes the request may have taken by now: chunks' sizes and extensions count too."""
        return self._limits.head_bytes + (2 * self._size + _FRAMING if self._guest is not None else 0)

    # llhttp calls these

    def on_message_begin(self) -> None:
        """Start a head."""
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._heading = self._begun = True
        self._ordinary = False
        self._came = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect one header; one that follows the body is nobody's."""
        if self._guest is not None and self._client is not None:
            self._refuse(self._client, ApiError(400, "Trailers are not read.", "invalid_http"))
        else:
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Decide who serves this request."""
        self._heading = False
        if self._deaf or self.transport.is_closing() or self.parser.should_upgrade():
            return
        if self._client is not None or (self.cycle is not None and not self.cycle.response_complete):
            self._crowded()
            return
        known = dict(self.headers)
        self.expect_100_continue = known.get(b"expect", b"").lower() == b"100-continue"
        route = PROXIED.get(self.url) or PROXIED.get(self.url.partition(b"?")[0])
        if route is not None and self.parser.get_method() != b"POST":
            route = None
        if len(self.headers) > self._limits.headers:
            self._refuse_line(431, f"More than {self._limits.headers} headers.", "head_too_large")
        elif self.parser.get_http_version() not in _VERSIONS:
            self._refuse_line(400, "Only version 1.1 of HTTP is spoken here.", "invalid_http")
        elif route is None:
            self._to_application()
        else:
            self._welcome(route, known)

    def _welcome(self, route: Route, known: Mapping[bytes, bytes]) -> None:
        """Be ready for the body of a proxied request, unless its head is enough to refuse it."""
        one = self.parser.get_http_version() == "1.1"
        request_id = self._reception.request_id(known)
        alive = one and self.parser.should_keep_alive() and not self._closing
        self._client = client = Client(self, request_id, chunked=one, keep_alive=alive)
        self._parts, self._size = [], 0
        try:
            self._guest = self._reception.greet(route, self.headers, known)
        except ApiError as error:
            self._refuse(client, error)
            return
        if self.expect_100_continue:
            self.transport.write(_CONTINUE)

    def on_body(self, body: bytes) -> None:
        """Keep a piece of the body, up to the limit."""
        if self._ordinary:
            super().on_body(body)
        elif self._guest is not None and self._client is not None:
            self._parts.append(body)
            self._size += len(body)
            if self._size > self._guest.body_most:
                self._refuse(self._client, too_large(self._guest.body_most))

    def on_message_complete(self) -> None:
        """Serve a proxied request that is complete."""
        if self._ordinary:
            super().on_message_complete()
            self._ordinary = False
            return
        guest, client, self._guest = self._guest, self._client, None
        if guest is None or client is None:
            return
        if self._late is not None:
            self._late.cancel()
            self._late = None
        parts, self._parts = self._parts, []
        self._served = guest
        self._serve(guest, client, parts[0] if len(parts) == 1 else b"".join(parts))

    def _serve(self, guest: Guest, client: Client, body: bytes) -> None:
        """Start the answer to a request that is complete."""
        try:
            exchange = self._reception.serve(guest, body, client)
        except ApiError as error:
            self._reception.refused(error, client.request_id, guest.route.path)
            client.refuse(error)
            return
        except Exception:  # noqa: BLE001 - a client must not wait for an answer that nobody will send
            _LOG.exception("a request could not be served")
            self._refuse(client, ApiError(500, "The gateway failed.", "internal_error"))
            return
        if not client.complete:
            self._exchange = exchange
            if self._stalled is not None:  # it has not taken its last answer yet
                exchange.pause()

    # a client that says the same head again

    def _learn(self, guest: Guest, message: bytes) -> None:
        """Remember the head of a request that came in one piece, if it can only mean the same again."""
        self._served = None
        headers = guest.headers
        client = self._client
        if client is not None and client.chunked and client.keep_alive and _BESIDES.isdisjoint(headers):
            repeat = learned(message, self._size)
            self._known = None if repeat is None else (repeat, guest)

    def _again(self, repeat: Repeat, guest: Guest, message: bytes) -> bool:
        """Serve a request whose head was read before; False if it has to be read."""
        body, reception = repeat.body(message), self._reception
        if body is None or not reception.still(guest, len(body)):
            return False
        self.url, self._came = guest.route.raw, 0
        self._client = client = Client(self, reception.request_id(guest.headers), chunked=True, keep_alive=True)
        self._serve(guest, client, body)
        return True

    def _decline(self, rest: bytes) -> None:
        """Read a request that offers another protocol once more, without the offer (RFC 9110, 7.8: that is free).

        llhttp stops behind such a head. Java's client offers HTTP/2 with every first request.
        """
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        if method == b"CONNECT" or self._client is not None:
            self._refuse_line(400, "There is no tunnel here.", "invalid_http")
            return
        kept = [(name, value) for name, value in self.headers if name not in _OFFER]
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(b"%b %b HTTP/%b\r\n%b\r\n%b" % (method, self.url, version, lines(kept), rest))

    def _to_application(self) -> None:
        """Hand the head on as uvicorn itself would have read it."""
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        self._known = None  # while the application answers, nothing else may be served here
        if self._late is not None:  # it would be the next request's
            self._late.cancel()
            self._late = None
        super().on_message_begin()
        self.url, self.expect_100_continue, self._ordinary = url, expects, True
        self.headers.extend(headers)
        super().on_headers_complete()

    def _crowded(self) -> None:
        """Leave a pipelined request unanswered: its client sends it again on the next connection (RFC 9112, 9.3.2)."""
        self._closing = True
        if self._client is not None and not self._client.answered:
            self._client.keep_alive = False
        elif self.cycle is not None:
            self.cycle.keep_alive = False

    def _refuse(self, client: Client, error: ApiError) -> None:
        """Refuse a request whose body has not been read to its end."""
        self._guest = None
        self._deaf = True
        self._reception.refused(error, client.request_id, self.url.decode("latin-1"))
        client.keep_alive = False
        client.refuse(error)

    def _refuse_line(self, status: int, message: str, code: str) -> None:
        """Refuse what is no request; an answer under way is the last one then."""
        if self._deaf:  # refused already
            return
        if self._client is not None and self._guest is None:
            self._closing = self._deaf = True
            self._client.keep_alive = False
            return
        self._refuse(self._client or self._stranger(), ApiError(status, message, code))

    def _refuse_bytes(self, error: httptools.HttpParserError) -> None:
        """Refuse what llhttp refuses; a callback that raised anything else is our own mistake."""
        cause = error.__context__
        if isinstance(error, httptools.HttpParserCallbackError) and not isinstance(cause, httptools.HttpParserError):
            _LOG.exception("a request could not be taken", exc_info=cause)
            self._refuse_line(500, "The gateway failed.", "internal_error")
        else:
            self._refuse_line(400, "The request is not valid HTTP/1.1.", "invalid_http")

    def _stranger(self) -> Client:
        self._client = Client(self, self._reception.request_id({}), chunked=True, keep_alive=False)
        return self._client

    def _too_late(self) -> None:
        self._late = None
        if self._heading or self._guest is not None:
            self._refuse_line(408, f"The request took longer than {self._limits.head_s:g} s.", "request_timeout")
