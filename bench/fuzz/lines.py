"""Laws of the two connections: one client's bytes become one engine's request, one engine's bytes one client's answer.

The bytes go through llhttp and our own code as in a worker, without a socket. The second reader is h11, in pure Python:
where both readers take a message, they must take the same one. A connection that knows the head of a message has a twin
that forgets it each time: both must say the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from time import monotonic
from types import SimpleNamespace
from typing import Any

import h11
import uvicorn
from uvicorn.server import ServerState

from bench.fuzz.laws import Broken, hold
from bench.fuzz.mutate import cut
from gateway.door.ask import Bounds
from gateway.door.client import Client
from gateway.door.guest import Guest
from gateway.door.protocol import Door
from gateway.door.reception import Reception
from gateway.errors import ApiError, UpstreamError
from gateway.pool.connection import Connection
from gateway.pool.sink import Headers, Patience
from gateway.repeat import Repeat
from gateway.settings import Limits

_BODY = b'{"model":"support","prompt":"x"}'
_LIMITS = Limits(body_bytes=2048, head_bytes=1024, headers=20)
_NO_TIME = 1e9  # seconds
_PATIENCE = Patience(_NO_TIME, _NO_TIME, _NO_TIME)


class Quiet:
    """A loop in which no time passes."""

    def call_later(self, *_: object) -> Quiet:
        """Promise to call; never do."""
        return self

    def cancel(self) -> None:
        """Nothing was promised."""


class Wire:
    """A transport that keeps what is written; nothing may be written after its end."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closed = False
        self.ended = False
        self.late = False

    def write(self, data: bytes) -> None:
        """Keep bytes."""
        self.late = self.late or self.ended
        if not self.closed:
            self.written.append(data)

    def write_eof(self) -> None:
        """End the sending side."""
        self.ended = True

    def close(self) -> None:
        """Close."""
        self.closed = True

    abort = close

    def can_write_eof(self) -> bool:
        """As TCP."""
        return True

    def is_closing(self) -> bool:
        """Whether it was closed."""
        return self.closed

    def get_extra_info(self, _: str, default: Any = None) -> Any:
        """Nothing is known."""
        return default

    def pause_reading(self) -> None:
        """Flow control is not the matter here."""

    resume_reading = pause_reading


@dataclass
class Forwarded:
    """What would have gone to an engine."""

    path: str
    body: bytes


class Lodge(Reception):
    """A reception that judges heads as the real one does, and notes what it would forward."""

    def __init__(self) -> None:
        desk: Any = SimpleNamespace(limits=_LIMITS, metrics=SimpleNamespace(refused=lambda: None), log=None)
        keys: Any = SimpleNamespace(identify=lambda _: None, changes=0)
        splits: Any = None
        super().__init__(desk, splits, keys, Bounds(), "fuzz")
        self.forwarded: list[Forwarded] = []

    def serve(self, guest: Guest, body: bytes, client: Client) -> Any:
        """Note a request, and answer it."""
        self.forwarded.append(Forwarded(guest.route.path, body))
        if not body.startswith(b"{"):
            raise ApiError(400, "The body is no JSON object.", "invalid_json")
        self.take(client)

    def take(self, client: Client) -> None:
        """Answer at once."""
        client.whole(200, b"", b"{}")


class Patient(Lodge):
    """A reception whose engine takes its time: a head is remembered while its request is being answered."""

    def __init__(self) -> None:
        super().__init__()
        self._waiting: list[Client] = []

    def take(self, client: Client) -> None:
        """Answer later."""
        self._waiting.append(client)

    def answer(self) -> None:
        """Answer now."""
        while self._waiting:
            self._waiting.pop().whole(200, b"", b"{}")


class Gate(Door):
    """A door that leads nowhere but to the proxied routes."""

    recognised = 0

    def _to_application(self) -> None:
        self._refuse(self._client or self._stranger(), ApiError(404, "elsewhere", "unknown_url"))

    def _again(self, repeat: Repeat, guest: Guest, message: bytes) -> bool:
        known = super()._again(repeat, guest, message)
        self.recognised += known
        return known


async def _no_app(_scope: object, _receive: object, _send: object) -> None:
    """Never called."""


_CONFIG = uvicorn.Config(_no_app, http="httptools", ws="none", lifespan="off", log_config=None, access_log=False)
_CONFIG.load()


def _request(*lines: bytes, body: bytes = _BODY, first: bytes = b"POST /v1/completions HTTP/1.1") -> bytes:
    return b"\r\n".join([first, b"Host: a", *lines]) + b"\r\n\r\n" + body


_CHUNKED = b"10\r\n" + _BODY[:16] + b"\r\n%x;x=y\r\n" % (len(_BODY) - 16) + _BODY[16:] + b"\r\n0\r\n\r\n"
_COUNTED = b"Content-Length: %d" % len(_BODY)
REQUEST_SEEDS = (
    _request(_COUNTED, b"Content-Type: application/json; charset=utf-8"),
    _request(_COUNTED, b"X-Request-Id: r1", b"traceparent: 00-1-2-00") * 2,
    _request(b"Transfer-Encoding: chunked", body=_CHUNKED),
    _request(b"Transfer-Encoding: chunked", body=_CHUNKED[:-2] + b"X-Trailer: 1\r\n\r\n"),
    _request(_COUNTED, b"Expect: 100-continue", b"Connection: close"),
    _request(_COUNTED, first=b"POST /v1/chat/completions?x=y HTTP/1.0"),
    _request(_COUNTED, b"Upgrade: h2c", b"Connection: Upgrade", b"Authorization: Bearer x"),
    _request(first=b"GET /metrics HTTP/1.1", body=b""),
)
REQUEST_WORDS = (
    b"Transfer-Encoding: chunked\r\n", b"Content-Length: 0\r\n", b"Content-Length: 31\r\n",
    b"Transfer-Encoding: xchunked\r\n", b"Content-Encoding: gzip\r\n", b"Expect: 100-continue\r\n",
    b"Connection: close\r\n", b"Connection: upgrade\r\n",
    b"\r\n", b"\n", b"\r", b"\r\n ", b"\r\n\t", b": ", b" :", b"\x00", b"\x0b", b"\x85", b"chunked", b"identity", b",",
    b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"http://evil/", b"/v1/completions", b"/v1/../", b"%2f", b"//", b"?", b"#",
    b"0\r\n\r\n", b"ffffffffffffffff1\r\n", b"-1", b"+1", b"0x10", b";", b"\r\n\r\n", b"POST ", b"GET ", b"CONNECT ",
    _request(_COUNTED), b"X: " + b"a" * 1100 + b"\r\n", b"X: y\r\n" * 21, b" " * 2000,
)  # fmt: skip


def requested(raw: bytes, chance: Random) -> str:
    """What is forwarded is what h11 reads too; every answer is one HTTP answer; nothing is raised."""
    lodge = Lodge()
    door, wire = _opened(lodge)
    for piece in cut(raw, chance):
        if not wire.closed:
            door.data_received(piece)
    statuses = _statuses(b"".join(wire.written))
    hold(not wire.late, "nothing is written after the end")
    hold(len(statuses) >= len(lodge.forwarded), "what reaches an engine is answered")
    hold(all(status < 500 or status == 505 for status in statuses), f"no failure of our own: {statuses}")
    door.connection_lost(None)
    peer, refusal = _as_server(raw, len(lodge.forwarded))
    hold(len(peer) == len(lodge.forwarded) or refusal.startswith(_STRICTER), f"h11 takes fewer requests: {refusal}")
    for ours, theirs in zip(lodge.forwarded, peer, strict=False):
        hold(ours == theirs, f"both readers see one request: {ours} {theirs}")
    return f"{statuses[:4]} {len(lodge.forwarded) - len(peer)} {wire.closed} {wire.ended}"


def _opened(lodge: Lodge) -> tuple[Gate, Wire]:
    """Open a door."""
    wire = Wire()
    door = Gate(lodge, _LIMITS, config=_CONFIG, server_state=ServerState(), app_state={}, _loop=Quiet())
    door.connection_made(wire)  # type: ignore[arg-type]
    return door, wire


def _statuses(raw: bytes) -> list[int]:
    """Read everything that a client was sent. Raises Broken if it is not a row of answers."""
    statuses: list[int] = []
    while raw:
        client = h11.Connection(h11.CLIENT)
        client.send(h11.Request(method="POST", target="/", headers=[("host", "a"), ("content-length", "0")]))
        client.send(h11.EndOfMessage())
        client.receive_data(raw)
        try:
            while not isinstance(event := client.next_event(), h11.EndOfMessage):
                hold(isinstance(event, h11.Response | h11.InformationalResponse | h11.Data), f"an answer: {event}")
                if isinstance(event, h11.Response | h11.InformationalResponse):
                    statuses.append(event.status_code)
                    if statuses[-1] < 200:
                        break
        except h11.RemoteProtocolError as error:
            raise Broken(f"what a client is sent is no HTTP: {error}") from None
        raw = client.trailing_data[0]
        if statuses[-1] < 200:
            raw = _after_head(raw, client)
    return [status for status in statuses if status >= 200]


def _after_head(rest: bytes, client: h11.Connection) -> bytes:
    """What follows an informational answer, which h11 reads as part of the answer to come."""
    return rest or bytes(client._receive_buffer)  # noqa: SLF001


def _sized(body: bytes, *lines: bytes, first: bytes = b"POST /v1/completions HTTP/1.1") -> bytes:
    return _request(b"Content-Length: %d" % len(body), *lines, body=body, first=first)


_BODIES = (b'{"model":"support","prompt":"' + b"x" * 90 + b'"}', b"{}", b"[]", b"", b"{content-length: 9\r\n\r\n}")
KNOWN_REQUESTS = (
    _request(_COUNTED, b"Content-Type: application/json; charset=utf-8"),
    _request(b"X-Content-Length: 7", _COUNTED, b"X-Request-Id: r1", b"Authorization: Bearer x"),
    _request(_COUNTED, first=b"POST /v1/chat/completions?x=y HTTP/1.1"),
)
REPEATED_REQUESTS = (
    *KNOWN_REQUESTS,
    *(_sized(body, b"Content-Type: application/json; charset=utf-8") for body in _BODIES),
    *(_sized(body, first=b"POST /v1/chat/completions?x=y HTTP/1.1") for body in _BODIES[:2]),
    KNOWN_REQUESTS[0] * 2,
    b"\r\n" + KNOWN_REQUESTS[0] + b"\r\n" + KNOWN_REQUESTS[0],
    KNOWN_REQUESTS[0].replace(b"Length: 31", b"Length: 031"),
    KNOWN_REQUESTS[0].replace(b"Length: 31", b"Length: +31"),
    KNOWN_REQUESTS[0].replace(b"Length: 31", b"Length: 3_1"),
)
LENGTHS = (
    b"0",
    b"00",
    b"9999999999",
    b"2049",
    b"+",
    b"_",
    b" ",
    b"-",
    b"\r\nContent-Length: 31",
    b"content-length: 2\r\n",
)


def requested_again(raw: bytes, chance: Random) -> str:
    """A door that knows a head says what one that has forgotten it says, and forwards the same."""
    first = max(KNOWN_REQUESTS, key=lambda known: _alike(known, raw))
    pieces = [first, *_pieces(raw, chance), first]
    answers = [chance.random() < 0.8 for _ in pieces[:-2]]
    mindful, forgetful = _served(pieces, answers, forgets=False), _served(pieces, answers, forgets=True)
    recognised, statuses = mindful.pop(), _statuses(mindful[1])
    hold(forgetful.pop() == 0, "the second door has forgotten")
    hold(mindful == forgetful, f"remembered or not, the same: {mindful} {forgetful}")
    return f"{statuses[:5]} {mindful[2:]} {recognised}"


def _served(pieces: list[bytes], answers: list[bool], *, forgets: bool) -> list[Any]:
    """Serve a row of pieces; `answers` tells behind which the engine answers. Return all that can be told of it."""
    lodge = Patient()
    door, wire = _opened(lodge)
    for piece, answered in zip(pieces, [True, *answers, True], strict=True):
        if wire.closed:
            break
        if forgets:
            door._known = None  # noqa: SLF001
        door.data_received(piece)
        if answered:
            lodge.answer()
    lodge.answer()
    door.connection_lost(None)
    hold(not wire.late, "nothing is written after the end")
    return [lodge.forwarded, b"".join(wire.written), wire.closed, wire.ended, door.recognised]


def _pieces(raw: bytes, chance: Random) -> list[bytes]:
    """As often whole as cut: what comes in pieces is never compared."""
    return cut(raw, chance) if chance.random() < 0.5 else [raw] * bool(raw)


def _alike(known: bytes, raw: bytes) -> int:
    """Return how long two messages are the same."""
    return next((at for at, (one, other) in enumerate(zip(known, raw, strict=False)) if one != other), len(known))


# What h11 refuses and llhttp does not, though it changes no request's meaning here: a Host routes nothing.
_STRICTER = ("Missing mandatory Host", "Found multiple Host", "illegal request line", "no request line")


def _as_server(raw: bytes, most: int) -> tuple[list[Forwarded], str]:
    """Read requests with h11: those it takes, up to so many, and why it takes no more."""
    server = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    seen: list[Forwarded] = []
    server.receive_data(raw)
    try:
        while len(seen) < most:
            event = server.next_event()
            if not isinstance(event, h11.Request):
                return seen, f"{event}"
            target, body = event.target, b""
            while isinstance(event := server.next_event(), h11.Data):
                body += bytes(event.data)
            if not isinstance(event, h11.EndOfMessage):
                return seen, f"{event}"
            seen.append(Forwarded(target.partition(b"?")[0].decode("latin-1"), body))
            server.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
            server.send(h11.EndOfMessage())
            server.start_next_cycle()
    except (h11.RemoteProtocolError, h11.LocalProtocolError) as error:
        return seen, str(error)
    return seen, ""


@dataclass
class Ear:
    """A sink that keeps what it hears, and how that breaks the grammar of a reply: nothing can be raised from here."""

    status: int = 0
    body_: bytes = b""
    last: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    headers: Headers = field(default_factory=list)

    def head(self, status: int, headers: Headers, _at: float) -> None:
        """Once, first."""
        self._expect(not self.status and not self.last, "one head, first")
        self.status = status
        self.headers = [(name, value) for name, value in headers if name != b"content-length"]  # nobody reads that one

    def body(self, piece: bytes, _at: float) -> None:
        """After the head, before the last word."""
        self._expect(self.status and not self.last, "a body after its head")
        self.body_ += piece

    def ended(self, _at: float) -> None:
        """Once."""
        self._expect(self.status and not self.last, "one end, after a head")
        self.last.append("ended")

    def failed(self, error: UpstreamError) -> None:
        """Once."""
        self._expect(not self.last, "one last word")
        self.last.append(type(error).__name__)

    def _expect(self, true: object, law: str) -> None:
        if not true:
            self.wrong.append(law)


@dataclass
class Keeper:
    """Who is told what becomes of a connection."""

    told: list[str] = field(default_factory=list)

    def released(self, _: Connection) -> None:
        """It may be used again."""
        self.told.append("released")

    def lost(self, _: Connection) -> None:
        """It is no more."""
        self.told.append("lost")


def _reply(*lines: bytes, body: bytes = b'{"ok":1}', first: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return b"\r\n".join([first, b"content-type: application/json", *lines]) + b"\r\n\r\n" + body


REPLY_SEEDS = (
    _reply(b"content-length: 8"),
    _reply(b"transfer-encoding: chunked", body=b'4\r\n{"ok\r\n4\r\n":1}\r\n0\r\n\r\n'),
    _reply(b"connection: close"),
    _reply(b"content-length: 8", first=b"HTTP/1.0 404 Not Found"),
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nlink: x\r\n\r\n" + _reply(b"content-length: 8"),
    _reply(b"content-length: 8") * 2,
    b"HTTP/1.1 204 No Content\r\n\r\n",
)  # fmt: skip
REPLY_WORDS = (
    b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 101 Switching\r\n", b"HTTP/2.0 200 OK", b"HTTP/1.1 100 Continue\r\n\r\n", b"304",
    b"content-length: 8\r\n", b"content-length: 9\r\n", b"content-length: -1\r\n", b"transfer-encoding: chunked\r\n",
    b"transfer-encoding: gzip\r\n", b"content-encoding: gzip\r\n", b"connection: close\r\n", b"upgrade: h2c\r\n",
    b"\r\n", b"connection: keep-alive\r\n", b"\n", b"\r", b"\x00", b"\r\n ", b" :", b"0\r\n\r\n",
    b"ffffffffffffffff1\r\n", b";", b"\r\n\r\n", b"x: y\r\n" * 210, b"a" * 1000, _reply(b"content-length: 8"),
)  # fmt: skip


def replied(raw: bytes, chance: Random) -> str:
    """One head, a body, one last word; a connection that is kept has said nothing else; h11 reads the same answer."""
    keeper, ear = Keeper(), Ear()
    connection, wire = _connected(keeper)
    connection.send(b"", b"", _PATIENCE, ear, monotonic())
    fed = 0
    for piece in cut(raw, chance):
        if not wire.closed and not ear.last:
            fed += len(piece)
            connection.data_received(piece)
    kept = keeper.told == ["released"]
    if not ear.last:
        connection.connection_lost(None)
    hold(len(ear.last) == 1 and not ear.wrong, f"the grammar of a reply: {ear}")
    theirs = _as_client(raw[:fed], closed=not kept)
    if ear.last == ["ended"]:
        _same_answer(ear, theirs, kept=kept)
    return f"{ear.last} {ear.status // 100} {bool(ear.body_)} {kept} {isinstance(theirs, str)}"


def _connected(keeper: Keeper) -> tuple[Connection, Wire]:
    """Connect to an engine."""
    wire, quiet = Wire(), Quiet()
    connection = Connection(keeper, quiet)  # type: ignore[arg-type]
    connection.connection_made(wire)  # type: ignore[arg-type]
    return connection, wire


KNOWN_REPLIES = (
    _reply(b"content-length: 8"),
    _reply(b"x-content-length: 9", b"Content-Length: 8", b"date: now", first=b"HTTP/1.1 404 Not Found"),
    _reply(b"content-length: 0", body=b"", first=b"HTTP/1.1 204 No Content"),
)
REPEATED_REPLIES = (
    *KNOWN_REPLIES,
    _reply(b"content-length: 0", body=b""),
    _reply(b"content-length: 33", body=b'{"ok":"\r\ncontent-length: 1\r\n\r\n"}'),
    _reply(b"content-length: 8", first=b"HTTP/1.1 204 No Content"),
    _reply(b"content-length: 008"),
    _reply(b"content-length: +8"),
    _reply(b"content-length: 1_0", body=b'{"ok":100}'),
    KNOWN_REPLIES[0] * 2,
    KNOWN_REPLIES[0] + b"\r\n",
    b"\r\n" + KNOWN_REPLIES[0],
    *REPLY_SEEDS[1:6],
)


def replied_again(raw: bytes, chance: Random) -> str:
    """A connection that knows a head hands on what one that has forgotten it hands on, and is kept as long."""
    first = max(KNOWN_REPLIES, key=lambda known: _alike(known, raw))
    talk = [[first], _pieces(raw, chance), _pieces(first, chance)]
    mindful, forgetful = _heard(talk, forgets=False), _heard(talk, forgets=True)
    recognised = mindful.pop()
    forgetful.pop()
    hold(mindful == forgetful, f"remembered or not, the same: {mindful} {forgetful}")
    ears, told = mindful[:2]
    hold(not any(ear.wrong for ear in ears), f"the grammar of a reply: {ears}")
    return f"{[(ear.status // 100, bool(ear.body_), ear.last) for ear in ears]} {told} {recognised}"


def _heard(talk: list[list[bytes]], *, forgets: bool) -> list[Any]:
    """Hear a row of replies, as long as the connection is kept. Return all that can be told of them."""
    keeper, ears = Keeper(), [Ear() for _ in talk]
    connection, wire = _connected(keeper)
    recognised = 0
    for ear, pieces in zip(ears, talk, strict=True):
        if connection.closed:
            break
        connection.send(b"", b"", _PATIENCE, ear, monotonic())
        for piece in pieces:
            if forgets:
                connection._known = None  # noqa: SLF001
            known = connection._known  # noqa: SLF001
            if not wire.closed:
                connection.data_received(piece)
            recognised += known is not None and bool(ear.last) and connection._known is known  # noqa: SLF001
        if not ear.last:
            connection.connection_lost(None)
    return [ears, keeper.told, wire.closed, recognised]


def _same_answer(ear: Ear, theirs: tuple[int, bytes, bytes] | str, *, kept: bool) -> None:
    """Hold a whole answer against h11's."""
    if isinstance(theirs, str):
        hold(theirs.startswith(_STRICTER_ANSWERS), f"h11 takes no answer: {theirs}")
        return
    status, body, more = theirs
    hold((ear.status, ear.body_) == (status, body), f"both readers see one answer: {ear} {theirs}")
    hold(not kept or not more.strip(b"\r\n"), f"a connection that is kept has said nothing more: {more!r}")


# Likewise: a reason is not passed on, a 204 has no body whatever its coding, zeros before a length are zeros.
_STRICTER_ANSWERS = ("no response line", "illegal status line", "Only Transfer-Encoding: chunked", "bad Content-Length")


def _as_client(raw: bytes, *, closed: bool) -> tuple[int, bytes, bytes] | str:
    """Read an answer with h11: its status, its body and what follows it; or why h11 does not take it."""
    client = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    client.send(h11.Request(method="POST", target="/", headers=[("host", "a"), ("content-length", "0")]))
    client.send(h11.EndOfMessage())
    status, body = 0, b""
    try:
        client.receive_data(raw)
        if closed:
            client.receive_data(b"")
        while not isinstance(event := client.next_event(), h11.EndOfMessage):
            if isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif not isinstance(event, h11.InformationalResponse):
                return f"{event}"
    except h11.RemoteProtocolError as error:
        return str(error)
    return status, body, client.trailing_data[0]
