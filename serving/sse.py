"""Server-sent events as bytes: split them into frames without changing one of them (pure).

The framing is the WHATWG HTML standard's (section "Server-sent events"): lines end with LF, CRLF or CR, and a blank
line ends an event. A relay needs frames, not lines, and must pass them on as they came; so a frame here is the raw
bytes up to and including the blank line.
"""

from __future__ import annotations

import re
from typing import Final

_BLANK_LINE: Final = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
_LONGEST_END: Final = 4  # CRLF CRLF
_BOM: Final = b"\xef\xbb\xbf"


class FrameSplitter:
    """Collects bytes and hands out complete frames; where the network cut them makes no difference.

    The frames handed out so far followed by `rest` are exactly the bytes fed in. A frame whose last byte is a CR waits
    for one byte more, because an LF may still belong to it; engines send LF.
    """

    __slots__ = ("_buffer", "_scanned")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._scanned = 0

    @property
    def rest(self) -> bytes:
        """The bytes that do not make a frame yet."""
        return bytes(self._buffer)

    @property
    def held(self) -> int:
        """How many bytes do not make a frame yet."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes; return the frames they complete, terminators included."""
        buffer = self._buffer
        if not buffer and b"\r" not in data:
            *frames, rest = data.split(b"\n\n")
            buffer += rest
            self._scanned = max(len(buffer) - _LONGEST_END + 1, 0)
            return [frame + b"\n\n" for frame in frames]
        buffer += data
        ends = self._ends()
        frames = [bytes(buffer[start:end]) for start, end in zip([0, *ends], ends, strict=False)]
        if ends:
            del buffer[: ends[-1]]
        # What was searched once is not searched again, or a long frame in small pieces would cost its square.
        self._scanned = max(len(buffer) - _LONGEST_END + 1, 0)
        return frames

    def _ends(self) -> list[int]:
        """Find where each complete frame ends."""
        if self._buffer.find(b"\r", self._scanned) < 0:
            return self._plain_ends()
        ends = [match.end() for match in _BLANK_LINE.finditer(self._buffer, self._scanned)]
        if ends and ends[-1] == len(self._buffer) and self._buffer.endswith(b"\r"):
            ends.pop()
        return ends

    def _plain_ends(self) -> list[int]:
        """The same where no line ends with CR: faster, and what engines send."""
        ends, at = [], self._scanned
        while (found := self._buffer.find(b"\n\n", at)) >= 0:
            at = found + 2
            ends.append(at)
        return ends


def payload(frame: bytes) -> bytes | None:
    """Return the frame's data lines joined by LF; None if it has none (a comment, a bare `event:`, blank lines)."""
    lines = frame.removeprefix(_BOM).splitlines()  # of bytes: LF, CRLF and CR, nothing else
    data = [value for line in lines if (value := _data(line)) is not None]
    return b"\n".join(data) if data else None


def _data(line: bytes) -> bytes | None:
    """Return a data line's value without its one leading space; None for any other line."""
    name, _, value = line.partition(b":")
    return value.removeprefix(b" ") if name == b"data" else None
