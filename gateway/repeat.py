"""Heads that were read before: a client says the same head with each request, an engine with each answer (pure).

llhttp has read the first one of a connection. A later message with the same bytes, but for the digits of its length,
has the same head by definition, so it is known by comparing and need not be read again. Only a message that arrives in
one piece, with its length in a `content-length`, is compared; whatever else comes goes to llhttp as ever.
"""

from __future__ import annotations

import re
from typing import Final

_END: Final = b"\r\n\r\n"
_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]+)\r\n", re.IGNORECASE)
_DIGITS_MOST: Final = 9


class Repeat:
    """The bytes of one head: those before its length, and those after."""

    __slots__ = ("_after", "_at", "_before")

    def __init__(self, before: bytes, after: bytes) -> None:
        self._before = before
        self._at = len(before)
        self._after = after

    def body(self, message: bytes) -> bytes | None:
        """Return the body of a message that has this head and is all there; None if it is anything else."""
        at = self._at
        if not message.startswith(self._before):
            return None
        end = message.find(b"\r", at, at + _DIGITS_MOST + 1)
        if end < 0 or not message.startswith(self._after, end):
            return None
        digits, start = message[at:end], end + len(self._after)
        if not digits.isdigit() or int(digits) != len(message) - start:
            return None
        return message[start:]


def learned(message: bytes, size: int) -> Repeat | None:
    """Return the head of a message that was read, and whose body had so many bytes; None if it cannot be compared.

    It has to be one piece, head and body and nothing else, framed by one `content-length`.
    """
    start = len(message) - size
    if message.find(_END) + len(_END) != start:
        return None
    given = _LENGTH.search(message, 0, start)
    if given is None or given[1] != b"%d" % size or _LENGTH.search(message, given.end() - 2, start) is not None:
        return None
    return Repeat(message[: given.start(1)], message[given.end(1) : start])
