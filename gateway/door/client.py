"""The client's side of one exchange, written straight to its connection."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from http import HTTPStatus
from typing import Final, Protocol

from gateway.errors import ApiError

Header = tuple[bytes, bytes]
_STATUS: Final = {status.value: b"HTTP/1.1 %d %b\r\n" % (status.value, status.phrase.encode()) for status in HTTPStatus}


class Line(Protocol):
    """The connection an answer goes out on."""

    def write(self, data: bytes) -> None:
        """Send bytes; never waits."""

    def dated(self) -> bytes:
        """Return the `date` header as a line."""

    def finished(self) -> None:
        """The answer is out."""


@lru_cache(maxsize=4096)
def arm_headers(arm: str, release: str, generation: int) -> bytes:
    """Return the lines that say which arm answered, under which release and split."""
    return b"x-linnet-arm: %b\r\nx-linnet-release: %b\r\nx-linnet-generation: %d\r\n" % (
        arm.encode(),
        release.encode("latin-1", "replace"),
        generation,
    )


class Client:
    """Sends one answer. `answered` turns True when the head is out: nothing can be retried then.

    `chunked` is how a stream is framed; a client of HTTP/1.0 cannot read that: its stream ends with the connection.
    """

    __slots__ = (
        "_always",
        "_arm",
        "_line",
        "_quota",
        "answered",
        "chunked",
        "complete",
        "keep_alive",
        "request_id",
        "status",
    )

    def __init__(self, line: Line, request_id: str, *, chunked: bool, keep_alive: bool) -> None:
        self._line = line
        self.request_id = request_id
        self.status = 0  # 0 until the answer has begun
        self._always = b"x-request-id: %b\r\n" % request_id.encode()
        self._arm = self._quota = b""
        self.chunked = chunked
        self.keep_alive = keep_alive
        self.answered = False
        self.complete = False

    def name_arm(self, arm: str, release: str, generation: int) -> None:
        """Say in the answer which arm gave it, under which release and generation."""
        self._arm = arm_headers(arm, release, generation)

    def name_quota(self, told: bytes) -> None:
        """Say in the answer how much is left to the caller, in whole lines."""
        self._quota = told

    def begin(self, status: int, head: bytes) -> None:
        """Send the head of a streamed answer; `head` are header lines."""
        if self.chunked:
            framing = b"transfer-encoding: chunked\r\n"
        else:
            framing = b""
            self.keep_alive = False
        self._line.write(self._head(status, head, framing))

    def piece(self, body: bytes) -> None:
        """Send one piece of a streamed answer."""
        self._line.write(b"%x\r\n%b\r\n" % (len(body), body) if self.chunked else body)

    def end(self) -> None:
        """End a streamed answer."""
        if self.chunked:
            self._line.write(b"0\r\n\r\n")
        self._finish()

    def whole(self, status: int, head: bytes, body: bytes) -> None:
        """Send an answer in one piece; `head` are header lines."""
        self._line.write(self._head(status, head, b"content-length: %d\r\n" % len(body), body))
        self._finish()

    def refuse(self, error: ApiError) -> None:
        """Send an error of the gateway's own."""
        self.whole(error.status, lines(error.headers()), error.body())

    def _head(self, status: int, head: bytes, framing: bytes, body: bytes = b"") -> bytes:
        self.answered = True
        self.status = status
        first = _STATUS.get(status) or b"HTTP/1.1 %d \r\n" % status
        closing = b"" if self.keep_alive else b"connection: close\r\n"
        return b"".join(
            (first, self._line.dated(), head, framing, self._always, self._arm, self._quota, closing, b"\r\n", body)
        )

    def _finish(self) -> None:
        self.complete = True
        self._line.finished()


@lru_cache(maxsize=256)
def type_line(kind: bytes) -> bytes:
    """Return the line that says of which type an answer is."""
    return b"content-type: %b\r\n" % kind


def lines(headers: Iterable[Header]) -> bytes:
    """Return headers as they stand in a message."""
    return b"".join([b"%b: %b\r\n" % header for header in headers])


def pairs(told: bytes) -> tuple[Header, ...]:
    """Return header lines as names and values."""
    return tuple((name, value) for name, _, value in (line.partition(b": ") for line in told.splitlines()))
