"""The public name in the answers: an app sees the model it asked for, never the one that is being tried out.

Only the name's own bytes change: the string value of `model` at the top, and in a `response` at the top (the events of
/v1/responses carry it there). It is replaced in place where a look at the bytes makes its place certain: the unescaped
key, before any nested object or list, and no such key after it. Anything else is walked member by member.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

_KEY: Final = b'"model"'
_NESTED: Final = b'{"response":{'
_OPENED: Final = re.compile(r"[ \t\n\r]*\{[ \t\n\r]*(\}?)")
_NAME: Final = re.compile(r'[ \t\n\r]*"((?:[^"\\\x00-\x1f]|\\.)*+)"[ \t\n\r]*:[ \t\n\r]*')
_FOLLOWING: Final = re.compile(r"[ \t\n\r]*([,}])")
_DATA: Final = re.compile(rb"^(?:\xef\xbb\xbf)?data:[ ]?(.*)$", re.MULTILINE)
_DECODER: Final = json.JSONDecoder()


class PublicName:
    """Replaces what an engine calls its model by what the app calls it; all other bytes stay."""

    __slots__ = ("_needle", "_public_json", "_same")

    def __init__(self, served: str, public: str) -> None:
        self._same = served == public
        self._public_json = json.dumps(public).encode()
        self._needle = _KEY + b":" + json.dumps(served, ensure_ascii=False).encode("utf-8", "surrogatepass")

    def frame(self, frame: bytes) -> bytes:
        """Return one raw server-sent event with the public name."""
        if _KEY not in frame:
            return frame
        quick = self._quick(frame)
        if quick is not None:
            return quick
        lines = list(_DATA.finditer(frame.replace(b"\r", b"\n")))
        if not lines:
            return frame
        told = self._slow(b"\n".join(line[1] for line in lines)).split(b"\n")
        parts, at = [], 0
        for line, data in zip(lines, told, strict=True):
            parts += [frame[at : line.start(1)], data]
            at = line.end(1)
        return b"".join([*parts, frame[at:]])

    def body(self, body: bytes) -> bytes:
        """Return a whole answer with the public name; what is no JSON object stays as it is."""
        if _KEY not in body:
            return body
        quick = self._quick(body)
        return self._slow(body) if quick is None else quick

    def _quick(self, raw: bytes) -> bytes | None:
        """Replace in place, or None if that would not be certain."""
        at = raw.find(self._needle)
        if at < 1 or raw[at - 1] not in b"{, \n\t\r" or raw.find(b"[", 0, at) != -1:
            return None
        opened = raw.count(b"{", 0, at)
        if opened != 1 and (opened != _NESTED.count(b"{") or not raw.startswith(_NESTED, raw.find(b"{"))):
            return None
        end = at + len(self._needle)
        if raw.rfind(_KEY) != at:
            return None
        return raw if self._same else raw[: at + 8] + self._public_json + raw[end:]

    def _slow(self, raw: bytes) -> bytes:
        """Replace by walking; what is no JSON object stays as it is."""
        try:
            text = raw.decode("utf-8", "surrogatepass")
            places = list(_places(text, 0))
        except (ValueError, StopIteration, RecursionError):
            return raw
        parts, at = [], 0
        for start, end in places:
            parts += [text[at:start].encode("utf-8", "surrogatepass"), self._public_json]
            at = end
        return b"".join([*parts, text[at:].encode("utf-8", "surrogatepass")])


@lru_cache(maxsize=4096)
def public_name(served: str, public: str) -> PublicName:
    """Return a PublicName, made once for each pair: both names come from the configuration."""
    return PublicName(served, public)


def _places(text: str, at: int, *, nested: bool = False) -> Iterator[tuple[int, int]]:
    """Find where the names stand in the object that begins at `at`. Raises ValueError on what is not JSON."""
    for name, start, end in _members(text, at):
        if name == "model" and text[start] == '"':
            yield start, end
        elif name == "response" and text[start] == "{" and not nested:
            yield from _places(text, start, nested=True)


def _members(text: str, at: int) -> Iterator[tuple[str, int, int]]:
    """Walk an object's members: the name, and where the value starts and ends."""
    opened = _OPENED.match(text, at)
    if opened is None:
        raise ValueError(f"no object at character {at}")
    at, following = opened.end(), "}" if opened[1] else ","
    while following == ",":
        named = _NAME.match(text, at)
        if named is None:
            raise ValueError(f"no name at character {at}")
        start = named.end()
        _, end = _DECODER.raw_decode(text, start)
        name = named[1]
        yield (json.loads(f'"{name}"') if "\\" in name else name), start, end
        after = _FOLLOWING.match(text, end)
        if after is None:
            raise ValueError(f"no end at character {end}")
        at, following = after.end(), after[1]
