"""The public name in the answers: an app sees the model it asked for, never the one that is being tried out.

The engine's name is replaced in place where that is certainly the top-level `model`: the one JSON string value that
follows the unescaped key, before any nested object or list. Anything unusual takes the slow way, through a parser.
"""

from __future__ import annotations

import json
from typing import Any


class PublicName:
    """Replaces what an engine calls its model by what the app calls it; all other bytes stay."""

    __slots__ = ("_needle", "_public", "_public_json", "_same")

    def __init__(self, served: str, public: str) -> None:
        self._same = served == public
        self._public = public
        self._public_json = json.dumps(public).encode()
        self._needle = b'"model":' + json.dumps(served, ensure_ascii=False).encode()

    def frame(self, frame: bytes) -> bytes:
        """Return one raw server-sent event with the public name."""
        quick = self._quick(frame)
        if quick is not None or b'"model"' not in frame:
            return frame if quick is None else quick
        data = b"\n".join(line[5:].strip() for line in frame.splitlines() if line.startswith(b"data:"))
        renamed = self._slow(data)
        return frame if renamed is None else b"data: " + renamed + b"\n\n"

    def body(self, body: bytes) -> bytes:
        """Return a whole answer with the public name; what is no JSON object stays as it is."""
        quick = self._quick(body)
        if quick is not None or b'"model"' not in body:
            return body if quick is None else quick
        renamed = self._slow(body)
        return body if renamed is None else renamed

    def _quick(self, raw: bytes) -> bytes | None:
        """Replace in place, or None if that would not be certain."""
        at = raw.find(self._needle)
        if at < 1 or raw[at - 1] not in b"{, \n\t\r" or raw.count(b"{", 0, at) != 1 or raw.find(b"[", 0, at) != -1:
            return None
        return raw if self._same else raw[: at + 8] + self._public_json + raw[at + len(self._needle) :]

    def _slow(self, raw: bytes) -> bytes | None:
        """Replace through a parser, or None if there is nothing to replace."""
        try:
            value: Any = json.loads(raw)
        except ValueError:
            return None
        if not isinstance(value, dict) or not isinstance(value.get("model"), str) or value["model"] == self._public:
            return None
        value["model"] = self._public
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
