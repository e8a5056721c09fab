"""What a law says when it is broken, and JSON as a second reader sees it."""

from __future__ import annotations

import json
import re
from typing import Any

from gateway.errors import ApiError

_NUMBERS = re.compile(r"\d+")
_QUOTED = re.compile(r"'.*'", re.DOTALL)


class Broken(Exception):  # noqa: N818 - a law, not an error of this program
    """A law does not hold for an input."""


class Number(str):
    """A JSON number as it was written."""

    __slots__ = ()


class Members(list[tuple[str, Any]]):
    """A JSON object with every one of its members, in their order: twice is twice."""


def hold(true: object, law: str) -> None:
    """Raise Broken unless a law holds."""
    if not true:
        raise Broken(law)


def members(raw: bytes | str) -> Members | None:
    """Return a JSON object's members as Python's parser reads them; None for anything else. Numbers stay as written."""
    try:
        value = json.loads(raw, object_pairs_hook=Members, parse_int=Number, parse_float=Number, parse_constant=Number)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, Members) else None


def refusal(error: ApiError) -> str:
    """Name a refusal without what is the input's own."""
    if not 400 <= error.status < 500:
        raise Broken(f"a refusal of status {error.status}: {error}")
    return _NUMBERS.sub("0", _QUOTED.sub("''", f"{error.status} {error}"))[:120]
