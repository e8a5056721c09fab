import math
from dataclasses import dataclass

from canary.scorers.next_token import accuracy


@dataclass(frozen=True)
class Token:
    """A token's rank."""

    rank: int


def test_accuracy_is_the_share_of_first_choices() -> None:
    """Three of four tokens ranked first are 0.75."""
    assert accuracy([Token(1), Token(1), Token(7), Token(1)]) == 0.75


def test_no_token_is_no_score() -> None:
    """Nothing to score is NaN, which a ledger counts as a failed pair."""
    assert math.isnan(accuracy([]))
