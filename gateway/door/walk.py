"""Where the members of a JSON object stand in its bytes.

Of a long body the walk follows only quotes and brackets, so a prompt of 100 KB costs little more than a short one;
everything small or unusual goes through the standard parser. The places are exact for every body that is JSON; one that
is not, deep inside, is refused by the engine, which reads the very bytes that were walked over here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Final

from gateway.errors import ApiError

LONG: Final = 16 * 1024  # bytes; up to here the parser's C loop is the faster way over a value
FOLLOWED: Final = 2000  # tokens; beyond, too
ROUTING: Final = frozenset({"model", "stream", "stream_options"})
_SPACE: Final = re.compile(rb"[ \t\n\r]*")
_NAME: Final = re.compile(rb'[ \t\n\r]*"([\x20\x21\x23-\x5b\x5d-\x7f]*)"[ \t\n\r]*:[ \t\n\r]*')
_NEXT: Final = re.compile(rb"[ \t\n\r]*([,}])[ \t\n\r]*")
_SCALAR: Final = re.compile(rb"true|false|null|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_STRUCTURE: Final = re.compile(rb'["{}\[\]]')
_NO_BRACKETS: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[^{}\[\]"]++', re.DOTALL)
_DECODER: Final = json.JSONDecoder()
_BACKSLASH: Final = 0x5C
_OPENERS: Final = b"{["

Place = tuple[int, int]


class Places(dict[str, Place]):
    """Where the value of each top-level member stands, and `last`, where the closing brace does.

    `dense` tells whether a value had too many tokens to be followed: no other has more than `FOLLOWED` items.
    """

    last = 0
    dense = False


class Walk:
    """One walk over a body. Every method that takes `at` returns where what starts there ends, in bytes."""

    __slots__ = ("_body", "_depth", "_long", "_text")

    def __init__(self, body: bytes, depth: int) -> None:
        self._body = body
        self._depth = depth
        self._long = len(body) > LONG
        self._text: str | None = None

    def members(self) -> Places:
        """Return the top-level members. Raises ValueError, ApiError."""
        members = Places()
        at = self._space(self._expect(self._space(0), b"{"))
        if self._body[at : at + 1] == b"}":
            members.last = self._last(at)
            return members
        while True:
            name, start = self._name(at)
            # Two parsers could take a name given twice, or in another case, for two different things. Where nothing is
            # routed by it, the engine decides: the last one holds for Python's.
            if (name in members and name in ROUTING) or (name not in ROUTING and name.casefold() in ROUTING):
                raise ValueError(f"the member {name[:40]!r} is given twice or in the wrong case")
            end = self.value(start)
            members[name] = start, end
            following = _NEXT.match(self._body, end)
            if following is None:
                raise ValueError(f"expected a comma or a brace at byte {end}")
            at = following.end()
            if following[1] == b"}":
                members.last = self._last(following.start(1))
                members.dense = self._text is not None
                return members

    def items(self, place: Place) -> Iterator[Place]:
        """Yield where each item of a list stands. Raises ValueError, ApiError."""
        at = self._space(place[0] + 1)
        while at < place[1] - 1:
            end = self.value(at)
            yield at, end
            at = self._space(self._space(end) + 1)  # over the comma

    def _last(self, brace: int) -> int:
        """Return the closing brace's place, if nothing but space follows."""
        if self._space(brace + 1) != len(self._body):
            raise ValueError(f"more after its end, at byte {brace + 1}")
        return brace

    def _name(self, at: int) -> tuple[str, int]:
        """Return a member's name, and where its value starts."""
        named = _NAME.match(self._body, at)
        if named is not None:
            return named[1].decode(), named.end()
        start = self._expect(self._space(at), b'"')
        _, end = scanstring(self._latin(), start, True)
        name: str = json.loads(self._body[start - 1 : end].decode())
        return name, self._space(self._expect(self._space(end), b":"))

    def value(self, at: int) -> int:
        """One JSON value. Raises ValueError, ApiError."""
        first = self._body[at : at + 1]
        if first == b'"':
            end = self._string(at)
        elif first and first in _OPENERS:
            end = self._nested(at)
        else:
            scalar = _SCALAR.match(self._body, at)
            end = -1 if scalar is None else scalar.end()
        return end if end >= 0 else self._by_parser(at)

    def _string(self, at: int) -> int:
        """A quote after an odd number of backslashes is inside; -1 if there are too many of them, or no end."""
        body = self._body
        for _ in range(FOLLOWED):
            at = body.find(b'"', at + 1)
            if at < 0:
                return -1
            before = at - 1
            while body[before] == _BACKSLASH:
                before -= 1
            if (at - before) % 2:
                return at + 1
        return -1

    def _nested(self, at: int) -> int:
        """Follow quotes and brackets; -1 if there are too many of them, or if the parser is faster anyway."""
        if not self._long:
            return -1
        body, depth = self._body, 0
        for _ in range(FOLLOWED):
            token = _STRUCTURE.search(body, at)
            if token is None:
                return -1
            at = token.end()
            what = token[0]
            if what == b'"':
                at = self._string(at - 1)
                if at < 0:
                    return -1
            elif what in _OPENERS:
                depth += 1
                if depth >= self._depth:
                    raise too_deep(self._depth)
            else:
                depth -= 1
                if not depth:
                    return at
        return -1

    def _by_parser(self, at: int) -> int:
        check_depth(self._body, self._depth)
        end: int = _DECODER.raw_decode(self._latin(), at)[1]
        return end

    def _latin(self) -> str:
        """Return the body read as Latin-1: a character a byte, so the parser's places are places in the body."""
        if self._text is None:
            self._text = self._body.decode("latin-1")
        return self._text

    def _space(self, at: int) -> int:
        found = _SPACE.match(self._body, at)
        return at if found is None else found.end()

    def _expect(self, at: int, what: bytes) -> int:
        if self._body[at : at + 1] != what:
            raise ValueError(f"expected {what.decode()} at byte {at}")
        return at + 1


def check_depth(body: bytes, most: int) -> None:
    """Refuse a nesting too deep: each round removes the innermost brackets. Raises ApiError."""
    if body.count(b"{") + body.count(b"[") < most:
        return
    brackets = _NO_BRACKETS.sub(b"", body)
    for _ in range(most):
        brackets = brackets.replace(b"{}", b"").replace(b"[]", b"")
    if b"{" in brackets or b"[" in brackets:
        raise too_deep(most)


def too_deep(most: int) -> ApiError:
    """A body with more levels than `most`."""
    return bad(f"The body is nested too deeply: {most} levels at most.")


def bad(message: str) -> ApiError:
    """A body that is no request."""
    return ApiError(400, message, "invalid_json")
