"""Units as people write them: 500ms, 5m, 0.5pp, 2%, 20 (percent)."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_POINTS = re.compile(r"(\d+(?:\.\d+)?)pp")
_RATE = re.compile(r"(\d+(?:\.\d+)?)(?:%|pp)")


def seconds(value: Any) -> float:
    """Return the seconds of "500ms", "20s", "5m", "2h" or "1d". Raises ValueError on anything else."""
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError(f"{value!r} is no duration; write one such as 500ms, 20s, 5m or 2h")
    return float(found[1]) * _SECONDS[found[2]]


def points(value: Any) -> float:
    """Return the difference of "0.5pp" as 0.005. Raises ValueError on anything else."""
    found = _POINTS.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError(f"{value!r} is no difference in percentage points; write one such as 0.5pp")
    return float(found[1]) / 100


def rate(value: Any) -> float:
    """Return the rate of "2%" (or "2pp") as 0.02. Raises ValueError on anything else."""
    found = _RATE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError(f"{value!r} is no rate; write one such as 2%")
    return float(found[1]) / 100


Duration = Annotated[float, BeforeValidator(seconds)]
Points = Annotated[float, BeforeValidator(points), Field(gt=0, lt=1)]
Rate = Annotated[float, BeforeValidator(rate), Field(gt=0, lt=1)]
Percent = Annotated[float, Field(ge=0, le=100)]
Usd = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Ratio = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Text = Annotated[str, Field(min_length=1)]
