"""JSON read quickly, and exactly as the standard parser reads it (pure).

msgspec is stricter than `json`: it takes no NaN, no lone surrogate, no number beyond a double. What it takes, both read
alike (a law that is fuzzed, see `bench.fuzz`); what it refuses is put to the standard parser, whose word holds.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec

_QUICK: Callable[[bytes], Any] = msgspec.json.Decoder().decode
_DECODER = json.JSONDecoder()


def loads(data: bytes, errors: str = "strict") -> Any:
    """Return the value of a JSON text in UTF-8; `errors` says what is made of bytes that are none, as for `decode`.

    Raises ValueError or RecursionError.
    """
    try:
        return _QUICK(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _DECODER.decode(data.decode("utf-8", errors))  # json.loads would try other encodings too
