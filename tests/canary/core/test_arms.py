"""canary/core/arms.py."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canary.core.arms import Arm, Endpoint, Split

text = st.text(max_size=20)
prices = st.none() | st.tuples(*[st.floats(0, 1, allow_nan=False)] * 3)
endpoints = st.builds(Endpoint, text, text, st.lists(text, max_size=3).map(tuple), text, prices)
splits = st.builds(
    Split,
    model=text,
    generation=st.integers(0, 2**40),
    baseline=endpoints,
    candidate=st.none() | endpoints,
    release=text,
    attempt=st.integers(0, 99),
    stage=st.integers(0, 99),
    percent=st.floats(0, 100, allow_nan=False),
    slices=st.lists(text, max_size=3).map(tuple),
)


@given(splits)
def test_a_split_survives_its_own_json(split):
    """What a worker reads is what the controller wrote, whatever the names contain."""
    assert Split.from_json(split.to_json()) == split


def test_an_arm_without_a_candidate_has_no_endpoint():
    """No release under way: there is nothing to send a candidate's request to."""
    base = Endpoint("base", "base", ("http://127.0.0.1:8101",))
    split = Split("m", 1, base)
    assert split.endpoint(Arm.BASELINE) == base
    assert split.endpoint(Arm.CANDIDATE) is None


@pytest.mark.parametrize("text", ["", "null", "[]", "{}", '{"model": "m"}', '{"unknown": 1}'])
def test_a_damaged_split_is_refused(text):
    """A split that cannot be read whole is an error, never a half-filled default."""
    with pytest.raises((ValueError, KeyError, TypeError)):
        Split.from_json(text)
