"""What a client asks: the members the gateway routes by, found in JSON whose every other byte is forwarded as it came.

A walk over the bytes finds where each top-level member stands. Of a long body it follows only quotes and brackets, so
a prompt of 100 KB costs little more than a short one; everything small or unusual goes through the standard parser.
The places are exact for every body that is JSON; one that is not, deep inside, is refused by the engine, which reads
the very bytes that were walked over here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Any

from gateway.errors import ApiError

JSON_TYPE = b"application/json"
_LONG = 16 * 1024  # bytes; up to here the parser's C loop is the faster way over a value
_FOLLOWED = 2000  # tokens; beyond, too
_SPACE = re.compile(rb"[ \t\n\r]*")
_NAME = re.compile(rb'[ \t\n\r]*"([\x20\x21\x23-\x5b\x5d-\x7f]*)"[ \t\n\r]*:[ \t\n\r]*')
_NEXT = re.compile(rb"[ \t\n\r]*([,}])[ \t\n\r]*")
_SCALAR = re.compile(rb"true|false|null|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_STRUCTURE = re.compile(rb'["{}\[\]]')
_NO_BRACKETS = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[^{}\[\]"]++', re.DOTALL)
_ROLE = re.compile(rb'"role"[ \t\n\r]*:[ \t\n\r]*"user"')
_DECODER = json.JSONDecoder()
_ROUTING = frozenset({"model", "stream", "stream_options"})
_UNIT_FIELDS = ("user", "safety_identifier")
_MOST_TOKENS = ("max_completion_tokens", "max_tokens", "max_output_tokens")
_REPEATS = ("n", "best_of")
_LISTS = ("input", "prompt", "documents", "messages")
_LITERALS: Mapping[bytes, Any] = {b"true": True, b"false": False, b"null": None}
_USUAL_ANSWER = 256  # tokens, where the client names no limit
_BYTES_PER_TOKEN = 4
_SAMPLE = 2048
_BACKSLASH = 0x5C
_OPENERS = b"{["

Place = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one request may ask for at most."""

    repeats: int = 128  # n, best_of
    items: int = 2048  # of a list of prompts, inputs, documents or messages
    depth: int = 64  # levels


_USUAL = Bounds()


class Ask:
    """One JSON request body, `members` by name: where each value stands in it.

    `usage` tells whether its streams bring their usage only when `stream_options` ask for it; `usage_asked` whether the
    client is to see that chunk. `tokens` estimates what the request may cost: its bytes over 4, and the most it lets
    the model answer.
    """

    __slots__ = ("_adds_usage", "_body", "_last", "members", "model", "stream", "tokens", "usage_asked")

    content_type = JSON_TYPE

    def __init__(self, body: bytes, members: Mapping[str, Place], last: int, bounds: Bounds, *, usage: bool) -> None:
        self._body = body
        self._last = last  # where the object's closing brace stands
        self.members = members
        self.model = self._model()
        self.stream = self._flag("stream")
        self.usage_asked = self.stream and (not usage or self._usage_asked())
        self._adds_usage = self.stream and not self.usage_asked
        self._check(bounds)
        asked = next((most for name in _MOST_TOKENS if isinstance(most := self.get(name), int)), _USUAL_ANSWER)
        self.tokens = len(body) // _BYTES_PER_TOKEN + max(0, asked)

    def get(self, name: str) -> Any:
        """Return a top-level value, None if absent. Raises ApiError if it is not JSON."""
        place = self.members.get(name)
        if place is None:
            return None
        raw = self._body[place[0] : place[1]]
        if raw in _LITERALS:
            return _LITERALS[raw]
        try:
            return json.loads(raw.decode())
        except (ValueError, RecursionError) as error:
            raise _bad(f"The member {name!r} is not JSON: {error}.") from None

    def forward(self, served_model: str) -> bytes:
        """Return the body for an engine: another `model`, and usage asked for where it does not come by itself."""
        if self._adds_usage:
            options = self.get("stream_options") or {}
            return self._spliced({"model": served_model, "stream_options": {**options, "include_usage": True}})
        return self._spliced({"model": served_model})

    def forward_whole(self, served_model: str) -> bytes:
        """Return the same request, to be answered whole."""
        absent = {name: None for name in ("stream", "stream_options") if name in self.members}
        return self._spliced({"model": served_model, **absent})

    def unit(self) -> str:
        """Return who the body says is asking, "" if it does not say."""
        named = (self.get(name) for name in _UNIT_FIELDS if name in self.members)
        return next((value for value in named if isinstance(value, str) and value), "")

    def opening(self) -> str:
        """Return a hash of the conversation up to its first user message, "" if there is none.

        Every later turn repeats these bytes, so a conversation keeps its arm; a shared system prompt alone does not
        throw all conversations onto one arm. Of a long opening its ends and its length are taken.
        """
        place = self.members.get("messages")
        end = 0 if place is None else _end_of_first_user(self._body, place)
        if place is None or not end:
            return ""
        start, length = place[0], end - place[0]
        said = self._body[start:end]
        if length > 2 * _SAMPLE:
            said = b"%b%b%d" % (said[:_SAMPLE], said[-_SAMPLE:], length)
        return blake2b(said, digest_size=16).hexdigest()

    def _model(self) -> str:
        model = self.get("model")
        if not isinstance(model, str) or not model:
            raise ApiError(400, "you must provide a model parameter", "missing_model", param="model")
        return model

    def _flag(self, name: str) -> bool:
        """Read a boolean member; absent and null are False."""
        value = self.get(name)
        if not isinstance(value, bool | None):
            raise ApiError(400, f"`{name}` must be true or false", "invalid_type", param=name)
        return bool(value)

    def _usage_asked(self) -> bool:
        options = self.get("stream_options")
        if options is None:
            return False
        if not isinstance(options, dict):
            raise ApiError(400, "`stream_options` must be an object", "invalid_type", param="stream_options")
        return options.get("include_usage") is True

    def _check(self, bounds: Bounds) -> None:
        """Refuse what would make one request as dear as hundreds."""
        for name in _REPEATS:
            if name in self.members and isinstance(value := self.get(name), int | float) and value > bounds.repeats:
                raise ApiError(400, f"`{name}` may be {bounds.repeats} at most", "too_large", param=name)
        for name in _LISTS:
            place = self.members.get(name)
            if place is None or self._body.count(b",", *place) < bounds.items:
                continue
            value = self.get(name)
            if isinstance(value, list) and len(value) > bounds.items and not isinstance(value[0], int):
                raise ApiError(400, f"`{name}` may have {bounds.items} items at most", "too_large", param=name)

    def _spliced(self, changes: Mapping[str, Any]) -> bytes:
        """Put new values at their members' places; a new member goes last."""
        body, parts, at = self._body, [], 0
        for (start, end), name in sorted((self.members[name], name) for name in changes if name in self.members):
            parts += [body[at:start], json.dumps(changes[name]).encode()]
            at = end
        parts.append(body[at : self._last])
        parts += [
            f",{json.dumps(name)}:{json.dumps(changes[name])}".encode() for name in changes if name not in self.members
        ]
        return b"".join([*parts, body[self._last :]])


def read(body: bytes, bounds: Bounds = _USUAL, *, usage: bool = True) -> Ask:
    """Read a request body. Raises ApiError (400) on what cannot be routed exactly."""
    try:
        members, last = _Walk(body, bounds.depth).members()
    except (ValueError, StopIteration) as error:
        raise _bad(f"The body is no JSON object: {error}.") from None
    except RecursionError:
        raise _too_deep(bounds.depth) from None
    return Ask(body, members, last, bounds, usage=usage)


class _Walk:
    """One walk over a body. Every method that takes `at` returns where what starts there ends, in bytes."""

    __slots__ = ("_body", "_depth", "_long", "_text")

    def __init__(self, body: bytes, depth: int) -> None:
        self._body = body
        self._depth = depth
        self._long = len(body) > _LONG
        self._text: str | None = None

    def members(self) -> tuple[dict[str, Place], int]:
        """Return the top-level members, and where the closing brace stands. Raises ValueError, ApiError."""
        members: dict[str, Place] = {}
        at = self._expect(self._space(0), b"{")
        if self._body[self._space(at) :][:1] == b"}":
            return members, self._last(self._space(at))
        while True:
            name, start = self._name(at)
            # Two parsers take a name given twice, or in another case, for two different things.
            if name in members or (name not in _ROUTING and name.casefold() in _ROUTING):
                raise ValueError(f"the member {name[:40]!r} is given twice or in the wrong case")
            end = self.value(start)
            members[name] = start, end
            following = _NEXT.match(self._body, end)
            if following is None:
                raise ValueError(f"expected a comma or a brace at byte {end}")
            at = following.end()
            if following[1] == b"}":
                return members, self._last(following.start(1))

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
        for _ in range(_FOLLOWED):
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
        for _ in range(_FOLLOWED):
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
                    raise _too_deep(self._depth)
            else:
                depth -= 1
                if not depth:
                    return at
        return -1

    def _by_parser(self, at: int) -> int:
        self._check_depth()
        end: int = _DECODER.raw_decode(self._latin(), at)[1]
        return end

    def _check_depth(self) -> None:
        """Each round removes the innermost brackets."""
        if self._body.count(b"{") + self._body.count(b"[") < self._depth:
            return
        brackets = _NO_BRACKETS.sub(b"", self._body)
        for _ in range(self._depth):
            brackets = brackets.replace(b"{}", b"").replace(b"[]", b"")
        if b"{" in brackets or b"[" in brackets:
            raise _too_deep(self._depth)

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


def _end_of_first_user(body: bytes, place: Place) -> int:
    """Return where the first message of a user ends, 0 if the list has none."""
    walk = _Walk(body, len(body))
    at, last = place[0] + 1, place[1]
    while (opened := body.find(b"{", at, last)) >= 0:
        at = walk.value(opened)
        role = body.find(b'"role"', opened, at)
        while role >= 0:
            if _ROLE.match(body, role, at):
                return at
            role = body.find(b'"role"', role + 1, at)
    return 0


def _too_deep(most: int) -> ApiError:
    return _bad(f"The body is nested too deeply: {most} levels at most.")


def _bad(message: str) -> ApiError:
    """A body that is no request."""
    return ApiError(400, message, "invalid_json")
