"""canary/core/finding.py."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canary.core.finding import Finding, OnBreach, Verdict, dumps, loads

number = st.none() | st.floats(allow_nan=False, allow_infinity=False)
findings = st.builds(
    Finding,
    guardrail=st.text(max_size=10),
    slice=st.text(max_size=10),
    verdict=st.sampled_from(Verdict),
    reason=st.text(max_size=30),
    estimate=number,
    evidence=number,
    n=st.integers(0, 10**9),
    on_breach=st.sampled_from(OnBreach),
)


@given(st.lists(findings, max_size=4).map(tuple))
def test_findings_survive_their_own_json(given_findings):
    """What the operator reads is what the controller found."""
    assert loads(dumps(given_findings)) == given_findings


def test_an_unknown_verdict_is_an_error():
    """A word nobody defined is never read as a pass."""
    with pytest.raises(ValueError, match="maybe"):
        loads('[{"guardrail": "g", "slice": "", "verdict": "maybe", "reason": "", "on_breach": "warn"}]')
