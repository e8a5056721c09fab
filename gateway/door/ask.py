"""What a client asks: the fields the gateway routes by, read from JSON whose every other byte is forwarded as it came.

The body is parsed once, by the standard parser, member by member, so that the place of each top-level member is known.
A changed member is spliced in at its place: numbers, escapes, order, spaces and unknown fields stay the client's own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Any

from gateway.errors import ApiError

_SPACE = re.compile(r"[ \t\n\r]*")
_DECODER = json.JSONDecoder()
_ROUTING = frozenset({"model", "stream", "stream_options"})
_UNIT_FIELDS = ("user", "safety_identifier")


@dataclass(frozen=True, slots=True)
class Member:
    """One top-level member: its value, and where the value stands in the text."""

    value: Any
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Ask:
    """One request body. `usage_asked` tells whether the client wants the usage-only chunk of a stream."""

    text: str
    members: Mapping[str, Member]
    model: str
    stream: bool
    usage_asked: bool

    def get(self, name: str) -> Any:
        """Return a top-level value, None if absent."""
        member = self.members.get(name)
        return None if member is None else member.value

    def forward(self, served_model: str) -> bytes:
        """Return the body for an engine: another `model`, and usage asked for when the answer streams."""
        changes = {"model": served_model}
        if self.stream and not self.usage_asked:
            options = self.get("stream_options") or {}
            return self._spliced({**changes, "stream_options": {**options, "include_usage": True}})
        return self._spliced(changes)

    def forward_whole(self, served_model: str) -> bytes:
        """Return the same request, to be answered whole."""
        absent = {name: None for name in ("stream", "stream_options") if name in self.members}
        return self._spliced({"model": served_model, **absent})

    def unit(self) -> str:
        """Return who the body says is asking, "" if it does not say."""
        named = (self.get(name) for name in _UNIT_FIELDS)
        return next((value for value in named if isinstance(value, str) and value), "")

    def opening(self) -> str:
        """Return a hash of the conversation up to its first user message, "" if there is none.

        Every later turn repeats these messages, so a conversation keeps its arm; a shared system prompt alone does not
        throw all conversations onto one arm.
        """
        messages = self.get("messages")
        if not isinstance(messages, list):
            return ""
        first = next(
            (i for i, said in enumerate(messages) if isinstance(said, dict) and said.get("role") == "user"), -1
        )
        return sha256(json.dumps(messages[: first + 1]).encode()).hexdigest() if first >= 0 else ""

    def _spliced(self, changes: Mapping[str, Any]) -> bytes:
        """Put new values at their members' places; a new member goes last."""
        parts, at = [], 0
        places = sorted((self.members[name].start, name) for name in changes if name in self.members)
        for start, name in places:
            parts += [self.text[at:start], json.dumps(changes[name])]
            at = self.members[name].end
        added = [f",{json.dumps(name)}:{json.dumps(changes[name])}" for name in changes if name not in self.members]
        close = self.text.rindex("}")
        return "".join([*parts, self.text[at:close], *added, self.text[close:]]).encode("utf-8", "surrogatepass")


def read(body: bytes) -> Ask:
    """Parse a request body. Raises ApiError (400) on what cannot be routed exactly."""
    try:
        text = body.decode("utf-8")
        members = dict(_members(text))
    except RecursionError:
        raise _bad("The body is nested too deeply.") from None
    except (ValueError, StopIteration) as error:
        raise _bad(f"The body is no JSON object: {error}.") from None
    model = members.get("model")
    if model is None or not isinstance(model.value, str) or not model.value:
        raise ApiError(400, "you must provide a model parameter", "missing_model", param="model")
    stream = _flag(members, "stream")
    return Ask(text, members, model.value, stream, stream and _usage_asked(members))


def _members(text: str) -> Iterator[tuple[str, Member]]:
    """Walk the top-level members; a name given twice, or in another case, means two things to two parsers."""
    seen: set[str] = set()
    at = _expect(text, _skip(text, 0), "{")
    while True:
        at = _expect(text, _skip(text, at), '"' if seen else '"}')
        if text[at - 1] == "}":
            break
        name, at = scanstring(text, at, True)
        start = _skip(text, _expect(text, _skip(text, at), ":"))
        value, end = _DECODER.raw_decode(text, start)
        if name in seen or (name not in _ROUTING and name.casefold() in _ROUTING):
            raise ValueError(f"the member {name[:40]!r} is given twice or in the wrong case")
        seen.add(name)
        yield name, Member(value, start, end)
        at = _expect(text, _skip(text, end), ",}")
        if text[at - 1] == "}":
            break
    if _skip(text, at) != len(text):
        raise ValueError(f"more after its end, at character {at}")


def _skip(text: str, at: int) -> int:
    """Step over white space."""
    found = _SPACE.match(text, at)
    return at if found is None else found.end()


def _expect(text: str, at: int, among: str) -> int:
    """Step over one of the characters of `among`."""
    if at >= len(text) or text[at] not in among:
        raise ValueError(f"expected one of {among} at character {at}")
    return at + 1


def _flag(members: Mapping[str, Member], name: str) -> bool:
    """Read a boolean member; absent and null are False."""
    member = members.get(name)
    if member is None or member.value is None:
        return False
    if not isinstance(member.value, bool):
        raise ApiError(400, f"`{name}` must be true or false", "invalid_type", param=name)
    return member.value


def _usage_asked(members: Mapping[str, Member]) -> bool:
    """Tell whether the client asked for usage at the end of its stream."""
    member = members.get("stream_options")
    if member is None or member.value is None:
        return False
    if not isinstance(member.value, dict):
        raise ApiError(400, "`stream_options` must be an object", "invalid_type", param="stream_options")
    return member.value.get("include_usage") is True


def _bad(message: str) -> ApiError:
    """A body that is no request."""
    return ApiError(400, message, "invalid_json")
