"""How a simulated engine behaves, and how it is told to behave otherwise (pure)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from serving.errors import ServingError

_RATES = frozenset({"error_rate", "midstream_error_rate", "cut_rate", "accuracy"})


class BehaviourError(ServingError):
    """An unknown or impossible behaviour was asked for."""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """Times in milliseconds, rates 0..1.

    `error_rate` is the share of requests answered with status 500, `midstream_error_rate` the share of streams that end
    in an error event after a token, `cut_rate` the share whose connection is cut there. `stall` stops every answer
    where it is while /health goes on saying 200, as a frozen engine does. `accuracy` is the share of right words, and
    of prompt tokens that teacher forcing finds at rank 1. `die_after` (0: never) is how many requests the engine lives
    through; in the middle of the next one it dies.
    """

    ttft_ms: float = 20.0
    tpot_ms: float = 5.0
    error_rate: float = 0.0
    midstream_error_rate: float = 0.0
    cut_rate: float = 0.0
    accuracy: float = 0.3
    stall: bool = False
    die_after: int = 0

    def changed(self, changes: Mapping[str, Any]) -> Behaviour:
        """Return this behaviour with `changes` made. Raises BehaviourError on an unknown name or a wrong value."""
        return replace(self, **{name: self._checked(name, value) for name, value in changes.items()})

    def _checked(self, name: str, value: Any) -> Any:
        if name not in _NAMES:
            raise BehaviourError(f"a simulated engine has no {name!r}; it has {', '.join(sorted(_NAMES))}")
        kind = type(getattr(self, name))
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (number if kind in {int, float} else isinstance(value, kind)):
            raise BehaviourError(f"{name} takes a {kind.__name__}, not {value!r}")
        if number and not 0 <= value <= (1 if name in _RATES else float("inf")):
            raise BehaviourError(f"{name} is out of range: {value!r}")
        return kind(value)


_NAMES = frozenset(field.name for field in fields(Behaviour))
