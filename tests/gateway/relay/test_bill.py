from __future__ import annotations

import pytest

from canary.core.arms import Arm, Endpoint
from canary.core.outcome import Outcome, Result
from gateway.relay.bill import bill

PRICED = Endpoint("e", "s", ("http://127.0.0.1:1",), price=(1.0, 0.1, 0.01))


@pytest.mark.parametrize(
    ("result", "prompt", "completion", "tokens", "usd"),
    [
        (Result.OK, 30, 5, 35, 7.0),  # as its usage says
        (Result.OK, 0, 0, 20, 3.0),  # a transcript says nothing of tokens
        (Result.CANCELLED, 0, 5, 25, 3.05),  # what had come when its client left
        (Result.CANCELLED, 0, 0, 20, 3.0),  # its engine has read the prompt, at least
        (Result.TIMEOUT, 0, 0, 20, 3.0),
        (Result.ERROR, 0, 0, 0, 0.0),
        (Result.CLIENT_ERROR, 0, 0, 0, 0.0),
    ],
)
def test_what_was_had_is_billed(result: Result, prompt: int, completion: int, tokens: int, usd: float):
    """By its usage where there is one, else by what is known; nothing for nothing."""
    cost = 7.0 if prompt else None
    outcome = Outcome(Arm.BASELINE, result, "", 0, 200, 1.0, None, None, prompt, completion, "", cost, evidence=True)
    assert bill(outcome, 20, PRICED) == (tokens, pytest.approx(usd))


def test_who_leaves_the_queue_pays_nothing():
    """No engine has heard of it."""
    outcome = Outcome(Arm.BASELINE, Result.CANCELLED)
    assert bill(outcome, 20, PRICED, sent=False) == (0, 0.0)
