"""Frames that differ in their text alone: told apart and renamed without a parser (pure).

A stream's frames are alike but for a text or two. Once one of them has been read, another with the same bytes around
a valid string is told by comparing. That is exact, not likely: whether a string opens at a place, and what it is the
value of, follows from the bytes before it. A probe proves the place: a text that the frame does not hold is put there,
and the parser must find it where content is read. All else that such a frame says was said by the first, in the same
bytes, and saying it twice changes nothing; so a template holds until any other frame comes.
"""

from __future__ import annotations

import re
from typing import Any, Final

from gateway.relay.naming import PublicName
from serving.quick import loads
from serving.responses import ResponsesReader
from serving.sse import payload
from serving.wire import AnswerReader, objects, parsed

Reader = AnswerReader | ResponsesReader

_PROBE: Final = b"a-text-no-engine-sends"
_ROOM: Final = 1_000_000  # characters; no frame that is learned from is longer
_PLAIN: Final = re.compile(rb"[ !#-\[\]-~]+").fullmatch  # ASCII without quote, backslash and controls
_STRING: Final = re.compile(rb'(?>[^"\\\x00-\x1f]+|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))++')
_NUMBER: Final = re.compile(rb"0|[1-9][0-9]{0,14}")
_PROBE_NUMBER: Final = b"918273645546372"
_CHAT_FIELDS: Final = ("content", "text", "reasoning", "reasoning_content")
_SEQUENCE: Final = b'"sequence_number":'


class Template:
    """The bytes around the text of one stream's frames: `head` text `tail`, and nothing else differs."""

    __slots__ = ("_head", "_named", "_tail")

    def __init__(self, head: bytes, tail: bytes, named: bytes) -> None:
        self._head = head
        self._tail = tail
        self._named = named  # the head with the public name in it

    def take(self, frame: bytes, reader: Reader) -> bytes | None:
        """Return what the client gets of a frame that brings content and nothing else; None: ask the parser."""
        head, tail = self._head, self._tail
        if not frame.startswith(head) or not frame.endswith(tail):
            return None
        start, end = len(head), len(frame) - len(tail)
        if _PLAIN(frame, start, end) is None and not _is_text(frame[start:end]):
            return None
        reader.content_chunks += 1
        return self._named + frame[start:]


class CountedTemplate:
    """The same for the events of /v1/responses, which are numbered: `head` text `middle` number `tail`."""

    __slots__ = ("_head", "_middle", "_named", "_tail")

    def __init__(self, head: bytes, middle: bytes, tail: bytes, named: bytes) -> None:
        self._head = head
        self._middle = middle
        self._tail = tail
        self._named = named

    def take(self, frame: bytes, reader: Reader) -> bytes | None:
        """Return what the client gets of a frame that brings content and nothing else; None: ask the parser."""
        head, tail = self._head, self._tail
        if not frame.startswith(head) or not frame.endswith(tail):
            return None
        start = len(head)
        text, _, number = frame[start : len(frame) - len(tail)].rpartition(self._middle)
        if _NUMBER.fullmatch(number) is None or (_PLAIN(text) is None and not _is_text(text)):
            return None
        reader.content_chunks += 1
        if isinstance(reader, ResponsesReader):
            reader.sequence = int(number) + 1
        return self._named + frame[start:]


class KeptTemplate(Template):
    """The same where the text is the first choice's, and kept."""

    __slots__ = ()

    def take(self, frame: bytes, reader: Reader) -> bytes | None:
        """Return what the client gets of a frame that brings content and nothing else; None: ask the parser."""
        passed = super().take(frame, reader)
        if passed is not None and reader.kept.room:
            raw = frame[len(self._head) : len(frame) - len(self._tail)]
            reader.kept.say(loads(b'"' + raw + b'"', "surrogatepass"))
        return passed


def learn(frame: bytes, name: PublicName, *, keeping: bool = False) -> Template | None:
    """Make a template of a chat or completion frame that was read as CONTENT; None if it does not lend itself to it."""
    found = _around(frame, _CHAT_FIELDS)
    if found is None:
        return None
    field, head, tail = found
    probe = parsed(payload(head + _PROBE + tail) or b"")
    if probe is None or not _brings(probe, field):
        return None
    named = name.frame(head + _PROBE + tail)
    if not named.endswith(_PROBE + tail):
        return None
    named = named.removesuffix(_PROBE + tail)
    if not keeping:
        return Template(head, tail, named)
    reader = AnswerReader(_ROOM)
    reader.frame(head + _PROBE + tail)
    if reader.kept.text == _PROBE.decode() and reader.kept.room == _ROOM - len(_PROBE):
        return KeptTemplate(head, tail, named)
    return Template(head, tail, named) if reader.kept.room == _ROOM else None


def learn_event(frame: bytes, name: PublicName, *, keeping: bool = False) -> CountedTemplate | None:
    """Make a template of a /v1/responses event that was read as CONTENT; None if it does not lend itself to it.

    What is kept is left to the parser.
    """
    found = None if keeping else _around(frame, ("delta",))
    if found is None:
        return None
    _, head, rest = found
    middle, mark, after = rest.partition(_SEQUENCE)
    number = _NUMBER.match(after)
    if not mark or number is None or _PROBE_NUMBER in head + rest:
        return None
    middle, tail = middle + mark, after[number.end() :]
    probed = b"".join([_PROBE, middle, _PROBE_NUMBER, tail])
    event = parsed(payload(head + probed) or b"")
    named = name.frame(head + probed)
    if event is None or not _counts(event) or not named.endswith(probed):
        return None
    return CountedTemplate(head, middle, tail, named.removesuffix(probed))


def _is_text(raw: bytes) -> bool:
    """Tell whether bytes are the inside of a JSON string of at least one character."""
    if _STRING.fullmatch(raw) is None:
        return False
    try:
        raw.decode("utf-8", "surrogatepass")  # as the parser does
    except UnicodeDecodeError:
        return False
    return True


def _around(frame: bytes, fields: tuple[str, ...]) -> tuple[str, bytes, bytes] | None:
    """Cut the first of the fields that has a text out of a frame: its name, and the bytes on either side."""
    if not frame.endswith(b"\n\n"):
        return None  # a frame that ends in CR may be waiting for its LF
    for field in fields:
        key = b'"' + field.encode() + b'":"'
        start = frame.find(key) + len(key)
        text = _STRING.match(frame, start) if start >= len(key) else None
        if text is not None:
            head, tail = frame[:start], frame[text.end() :]
            rest = head + tail
            return None if b"\\" in rest or _PROBE in rest else (field, head, tail)
    return None


def _counts(event: dict[str, Any]) -> bool:
    """Tell whether an event has the probe as its text, and the probe's number."""
    number = event.get("sequence_number")
    return type(number) is int and number == int(_PROBE_NUMBER) and event.get("delta") == _PROBE.decode()


def _brings(chunk: dict[str, Any], field: str) -> bool:
    """Tell whether one of a chunk's choices has the probe where the reader looks for content."""
    for choice in objects(chunk.get("choices")):
        delta = choice.get("delta")
        place = choice if field == "text" else delta
        if isinstance(place, dict) and place.get(field) == _PROBE.decode():
            return field != "text" or not isinstance(delta, dict)
    return False
