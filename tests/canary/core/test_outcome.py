"""canary/core/outcome.py."""

import pytest

from canary.core.arms import Arm
from canary.core.outcome import Outcome, Result


@pytest.mark.parametrize(
    ("result", "failed"),
    [
        (Result.OK, False),
        (Result.ERROR, True),
        (Result.TIMEOUT, True),
        (Result.CLIENT_ERROR, False),
        (Result.CANCELLED, False),
    ],
)
def test_only_the_arms_own_faults_are_failures(result, failed):
    """A bad request and a client that left are nobody's regression."""
    assert Outcome(Arm.CANDIDATE, result).failed is failed
