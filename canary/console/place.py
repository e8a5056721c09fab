"""Where a release stood, as the audit writes it, and numbers that were kept as text. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PLACE = re.compile(r"(?P<phase>[a-z_]+) (?P<percent>\d+(\.\d+)?(e[+-]?\d+)?) %")


@dataclass(frozen=True, slots=True)
class Place:
    """Phase and the candidate's share (0..100) as an entry has them; empty and None where it does not say."""

    phase: str = ""
    percent: float | None = None


def place(value: Any) -> Place:
    """Read where a release stood: "canary 10 %", or a mapping (or its JSON) with phase and percent."""
    if isinstance(value, str) and (match := PLACE.fullmatch(value.strip())):
        return Place(match["phase"], float(match["percent"]))
    if isinstance(value, str) and value.startswith("{"):
        value = _object(value)
    if not isinstance(value, Mapping):
        return Place()
    return Place(str(value.get("phase") or ""), real(value.get("percent")))


def _object(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def real(value: Any) -> float | None:
    """Read a number, also from text (a stream keeps nothing else); None from anything else."""
    try:
        return None if value is None or isinstance(value, bool) or value == "" else float(value)
    except (TypeError, ValueError):
        return None
