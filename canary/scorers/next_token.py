"""How often the model would itself have said the next token of a text that somebody else wrote."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Protocol


class Ranked(Protocol):
    """A token with its rank among all the model could have said; 1 is its first choice."""

    @property
    def rank(self) -> int:
        """1 is the likeliest."""


def accuracy(scores: Iterable[Ranked]) -> float:
    """Return the share of tokens ranked first, 0..1; NaN without tokens, which a ledger counts as a failed pair.

    Teacher forcing: both models read the same text, so two of them compare only if they share the tokenizer.
    """
    ranks = [score.rank for score in scores]
    return sum(rank == 1 for rank in ranks) / len(ranks) if ranks else math.nan
