import pytest
from hypothesis import given
from hypothesis import strategies as st

from canary.scorers import SCORERS
from canary.scorers.agreement import agreement


@given(st.text(max_size=40), st.text(max_size=40))
def test_agreement_is_symmetric_and_in_range(a: str, b: str) -> None:
    """No side is the reference, and 1 is the most."""
    assert agreement(a, b) == agreement(b, a)
    assert 0 <= agreement(a, b) <= 1


@given(st.text())
def test_an_answer_agrees_with_itself(a: str) -> None:
    """Equal answers score one; white space does not matter."""
    assert agreement(a, f" {a}\n") == 1.0


@pytest.mark.parametrize(("a", "b"), [("abc", "xyz"), ("something", "")])
def test_nothing_shared_is_zero(a: str, b: str) -> None:
    """Answers without one common character score zero."""
    assert agreement(a, b) == 0.0


def test_another_number_costs_more_than_another_letter() -> None:
    """Numbers count as a part of their own."""
    assert agreement("it costs 12 euros", "it costs 19 euros") < agreement("it costs 12 euros", "it costs 12 euros")


def test_closer_answers_score_higher() -> None:
    """A small change keeps more agreement than a new sentence."""
    text = "The lease ends on the last day of March."
    assert agreement(text, text.replace("March", "April")) > agreement(text, "Please ask your landlord about it.")


def test_every_scorer_is_in_the_table() -> None:
    """The table names what a spec can ask for."""
    assert sorted(SCORERS) == ["agreement", "next_token"]
