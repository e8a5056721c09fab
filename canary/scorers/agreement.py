"""How far two answers say the same, on the surface: character n-grams and numbers."""

from __future__ import annotations

import re
from collections import Counter

ORDERS = range(1, 7)
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


def agreement(a: str, b: str) -> float:
    """Return the agreement of two answers, 0 (nothing shared) to 1 (equal up to white space); symmetric.

    The mean F1 of shared character n-grams, n = 1..6, white space removed (chrF, Popovic 2015, with beta = 1 so that no
    side is the reference), and of the numbers in them where there are any: an embedding is blind to those. It sees the
    surface only, so an answer in other words scores low: compare it with the baseline against itself, never with 1.
    """
    left, right = "".join(a.split()), "".join(b.split())
    if left == right:
        return 1.0
    parts = [(_grams(left, n), _grams(right, n)) for n in ORDERS]
    parts.append((Counter(_NUMBER.findall(a)), Counter(_NUMBER.findall(b))))
    scores = [_f1(x, y) for x, y in parts if x or y]
    return sum(scores) / len(scores)


def _grams(text: str, n: int) -> Counter[str]:
    return Counter(text[i : i + n] for i in range(len(text) - n + 1))


def _f1(left: Counter[str], right: Counter[str]) -> float:
    return 2 * (left & right).total() / (left.total() + right.total())
