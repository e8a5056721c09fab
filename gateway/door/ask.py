"""What a client asks: the members the gateway routes by, found in JSON whose every other byte is forwarded as it came.

A short body is parsed once, by the standard parser; a long one is walked over (`walk.py`). Either way only the bytes of
the members that change are replaced.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final

from gateway.door.walk import FOLLOWED, LONG, ROUTING, Place, Places, Walk, bad, check_depth, too_deep
from gateway.errors import ApiError
from serving.quick import loads

JSON_TYPE: Final = b"application/json"
_ROLE: Final = b'"role"'
_BY_USER: Final = re.compile(rb'"role"[ \t\n\r]*:[ \t\n\r]*"user"')
_MODEL: Final = b'"model"'
_MODEL_AT: Final = re.compile(rb'"model"[ \t\n\r]*:[ \t\n\r]*("[^"\\\x00-\x1f]*")')
_OTHERS: Final = (("stream", b'"stream"'), ("stream_options", b'"stream_options"'))
_ESCAPED_LETTER: Final = re.compile(rb"\\u00[4-7]")  # a name that is routed by could hide behind one
_USUAL_NAMES: Final = ROUTING | {
    "best_of", "frequency_penalty", "input", "logit_bias", "logprobs", "max_completion_tokens", "max_tokens",
    "messages", "metadata", "n", "parallel_tool_calls", "presence_penalty", "prompt", "response_format",
    "safety_identifier", "seed", "stop", "temperature", "tool_choice", "tools", "top_k", "top_logprobs", "top_p",
    "user",
}  # fmt: skip
_UNIT_FIELDS: Final = ("user", "safety_identifier")
_MOST_TOKENS: Final = ("max_completion_tokens", "max_tokens", "max_output_tokens")
_REPEATS: Final = ("n", "best_of")
_TALKS: Final = ("messages", "input")  # the latter is what /v1/responses calls them
_LISTS: Final = ("input", "prompt", "documents", "messages")
_USUAL_ANSWER: Final = 256  # tokens, where the client names no limit
_TOKENS_MOST: Final = 2**31  # no float holds any number that a client may write
_BYTES_PER_TOKEN: Final = 4
_SAMPLE: Final = 2048
_DECODED: Final = 6 * _SAMPLE + 1024  # bytes: no message of up to _SAMPLE characters is longer, escapes and all


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one request may ask for at most."""

    repeats: int = 128  # n, best_of
    items: int = 2048  # of a list of prompts, inputs, documents or messages
    depth: int = 64  # levels


_USUAL: Final = Bounds()


class Ask:
    """One JSON request body, of which `known` are the top-level values, or where they stand if the body is long.

    `usage` tells whether its streams bring their usage only when `stream_options` ask for it; `usage_asked` whether the
    client is to see that chunk. `tokens` estimates what the request may cost: `prompt_tokens`, which is its bytes
    over 4, and the most it lets the model answer.
    """

    __slots__ = (
        "_adds_usage",
        "_body",
        "_known",
        "_model_at",
        "_places",
        "model",
        "prompt_tokens",
        "stream",
        "tokens",
        "usage_asked",
    )

    content_type = JSON_TYPE

    def __init__(self, body: bytes, read: tuple[Known, Place], bounds: Bounds, *, usage: bool, model: str) -> None:
        self._body = body
        self._known, self._model_at = read
        self._places: Places | None = self._known if isinstance(self._known, Places) else None
        self.model = self._model(model)
        self.stream = self._flag("stream")
        self.usage_asked = self.stream and (not usage or self._usage_asked())
        self._adds_usage = self.stream and not self.usage_asked
        self._check(bounds)
        self.prompt_tokens = len(body) // _BYTES_PER_TOKEN
        self.tokens = self.prompt_tokens + self._most_asked() * self._answers()

    def has(self, name: str) -> bool:
        """Tell whether there is a top-level member of a name."""
        return name in self._known

    def get(self, name: str) -> Any:
        """Return a top-level value, None if absent. Raises ApiError if it is not JSON."""
        value = self._known.get(name)
        if self._places is not self._known or value is None:
            return value
        start, end = value
        try:
            return loads(self._body[start:end])
        except (ValueError, RecursionError) as error:
            raise bad(f"The member {name!r} is not JSON: {error}.") from None

    def forward(self, served_model: str) -> bytes:
        """Return the body for an engine: another `model`, and usage asked for where it does not come by itself."""
        if self._adds_usage:
            options = self.get("stream_options") or {}
            return self._spliced({"model": served_model, "stream_options": {**options, "include_usage": True}})
        if not self._model_at[1]:
            return self._spliced({"model": served_model})
        body, (start, end) = memoryview(self._body), self._model_at
        return b"".join((body[:start], _quoted(served_model), body[end:]))

    def forward_whole(self, served_model: str) -> bytes:
        """Return the same request, to be answered whole."""
        absent = {name: None for name in ("stream", "stream_options") if self.has(name)}
        return self._spliced({"model": served_model, **absent})

    def unit(self) -> str:
        """Return who the body says is asking, "" if it does not say."""
        for name in _UNIT_FIELDS:
            value = self.get(name)
            if isinstance(value, str) and value:
                return value
        return ""

    def opening(self) -> str:
        """Return a hash of the conversation's first user message, "" if there is none.

        Every later turn repeats it, so a conversation keeps its arm; a shared system prompt does not throw all
        conversations onto one arm. Of a long message the ends of its bytes and their length are taken: which way is
        taken depends on the message alone, not on how long the conversation has become.
        """
        raw = b""
        if self._places is None:
            first = self._first_user()
        else:
            raw = self._first_user_bytes(self._places)
            first = _object(raw) if 0 < len(raw) <= _DECODED else None
        content = None if first is None else first.get("content")
        if isinstance(content, str) and len(content) <= _SAMPLE:
            said = content.encode("utf-8", "surrogatepass")
        elif first is None and not raw:
            return ""
        else:
            raw = raw or self._first_user_bytes(self._walked())
            said = b"%b%b%d" % (raw[:_SAMPLE], raw[-_SAMPLE:], len(raw))
        return blake2b(said, digest_size=16).hexdigest()

    def _first_user(self) -> dict[str, Any] | None:
        said = next((self.get(name) for name in _TALKS if name in self._known), None)
        if not isinstance(said, list):
            return None
        return next((one for one in said if isinstance(one, dict) and one.get("role") == "user"), None)

    def _first_user_bytes(self, places: Places) -> bytes:
        """Return the first user message as it was sent, b"" if there is none."""
        place = next((places[name] for name in _TALKS if name in places), None)
        if place is None or self._body[place[0] : place[0] + 1] != b"[" or self._body.find(_ROLE, *place) < 0:
            return b""
        items = Walk(self._body, len(self._body)).items(place)
        try:
            return next((self._body[start:end] for start, end in items if _by_user(self._body, (start, end))), b"")
        except ValueError:  # no JSON in there: the engine will say so
            return b""

    def _walked(self) -> Places:
        if self._places is None:
            self._places = Walk(self._body, len(self._body)).members()
        return self._places

    def _most_asked(self) -> int:
        """Return how many tokens the answer may have."""
        for name in _MOST_TOKENS:
            if name in self._known and isinstance(most := self.get(name), int):
                return min(max(0, most), _TOKENS_MOST)
        return _USUAL_ANSWER

    def _answers(self) -> int:
        """Return how many answers are made."""
        asked = [self.get(name) for name in _REPEATS if name in self._known]
        return max([1, *(times for times in asked if isinstance(times, int))])

    def _model(self, usual: str) -> str:
        model = self.get("model") or usual
        if not isinstance(model, str) or not model:
            raise ApiError(400, "you must provide a model parameter", "missing_model", param="model")
        return model

    def _flag(self, name: str) -> bool:
        """Read a boolean member; absent and null are False."""
        value = self.get(name)
        if value is None or value is False or value is True:
            return bool(value)
        raise ApiError(400, f"`{name}` must be true or false", "invalid_type", param=name)

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
            if name in self._known and isinstance(value := self.get(name), int | float) and value > bounds.repeats:
                raise ApiError(400, f"`{name}` may be {bounds.repeats} at most", "too_large", param=name)
        if len(self._body) < 2 * bounds.items:  # an item takes two bytes at least
            return
        if self._places is not None and not self._places.dense and bounds.items >= FOLLOWED:
            return
        for name in _LISTS:
            value = self.get(name)
            if isinstance(value, list) and len(value) > bounds.items and not isinstance(value[0], int):
                raise ApiError(400, f"`{name}` may have {bounds.items} items at most", "too_large", param=name)

    def _spliced(self, changes: Mapping[str, Any]) -> bytes:
        """Put new values at their members' places; a new member goes last."""
        body, places, parts, at = self._body, self._walked(), [], 0
        for (start, end), name in sorted((places[name], name) for name in changes if name in places):
            parts += [body[at:start], json.dumps(changes[name]).encode()]
            at = end
        parts.append(body[at : places.last])
        parts += [f",{json.dumps(name)}:{json.dumps(changes[name])}".encode() for name in changes if name not in places]
        return b"".join([*parts, body[places.last :]])


Known = dict[str, Any] | Places


def read(body: bytes, bounds: Bounds = _USUAL, *, usage: bool = True, model: str = "") -> Ask:
    """Read a request body; `model` is the one that is meant if it names none ("": it must).

    Raises ApiError (400) on what cannot be routed exactly.
    """
    try:
        found = _parsed(body, bounds) or _walked(body, bounds)
    except ValueError as error:
        raise bad(f"The body is no JSON object: {error}.") from None
    except RecursionError:
        raise too_deep(bounds.depth) from None
    return Ask(body, found, bounds, usage=usage, model=model)


def _parsed(body: bytes, bounds: Bounds) -> tuple[dict[str, Any], Place] | None:
    """Return the values, and where the model's stands; None if only a walk can say that. Raises ValueError.

    A quote inside a string is escaped, so `"model"` is a name or a whole string. If it stands there once, no escape
    spells it anew, and there is a member of that name, then this is it.
    """
    at = body.find(_MODEL) if len(body) <= LONG and body.startswith(b"{") else -1
    named = _MODEL_AT.match(body, at) if at >= 0 else None
    if named is None or body.rfind(_MODEL) != at or (b"\\" in body and _ESCAPED_LETTER.search(body)):
        return None
    check_depth(body, bounds.depth)
    known = loads(body)
    if not isinstance(known, dict) or "model" not in known or _doubled(body, known):
        return None
    return (known, named.span(1)) if known.keys() <= _USUAL_NAMES or _rightly_spelt(known) else None


def _doubled(body: bytes, known: dict[str, Any]) -> bool:
    """Tell whether another name that is routed by may be given twice."""
    return any(name in known and body.count(quoted) > 1 for name, quoted in _OTHERS)


def _walked(body: bytes, bounds: Bounds) -> tuple[Places, Place]:
    """Return where every value stands. Raises ValueError."""
    places = Walk(body, bounds.depth).members()
    return places, places.get("model", (0, 0))


def _rightly_spelt(names: Iterable[str]) -> bool:
    """Tell whether no name is one that is routed by, in another case."""
    return not any(name not in ROUTING and name.casefold() in ROUTING for name in names)


def _by_user(body: bytes, item: Place) -> bool:
    """Tell whether a message says that a user said it."""
    at = body.find(_ROLE, *item) if body.startswith(b"{", item[0]) else -1
    while at >= 0:
        if _BY_USER.match(body, at, item[1]):
            return True
        at = body.find(_ROLE, at + 1, item[1])
    return False


def _object(raw: bytes) -> dict[str, Any] | None:
    """Return a JSON object, None if it is none."""
    try:
        value = loads(raw, "replace")
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


@lru_cache(maxsize=4096)
def _quoted(name: str) -> bytes:
    """Return a name as JSON; names come from the configuration."""
    return json.dumps(name).encode()
