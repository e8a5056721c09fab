"""Scorers: each turns answers into a number in 0..1, higher is better; one scorer per file, all of them in a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from canary.scorers.agreement import agreement
from canary.scorers.next_token import accuracy

SCORERS: Mapping[str, Callable[..., float]] = {
    "agreement": agreement,  # (answer, answer)
    "next_token": accuracy,  # (token scores of one model on a given text)
}
