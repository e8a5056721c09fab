"""serving/teacher.py."""

import pytest

from serving.teacher import TokenScore, WireError, teacher_forced


def test_teacher_forcing_reads_the_prompts_own_tokens():
    """By id where ids are given, else the first of each position."""
    positions = [
        None,
        {"9": {"logprob": -1.0, "rank": 2}},
        {"5": {"logprob": -0.1, "rank": 1}, "6": {"logprob": -3.0, "rank": 4}},
    ]
    without_ids = {"choices": [{"prompt_logprobs": positions}]}
    with_ids = {"choices": [{"prompt_logprobs": positions, "prompt_token_ids": [1, 9, 6]}]}
    assert teacher_forced(without_ids) == [TokenScore(-1.0, 2), TokenScore(-0.1, 1)]
    assert teacher_forced(with_ids) == [TokenScore(-1.0, 2), TokenScore(-3.0, 4)]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"choices": []},
        {"choices": [{}]},
        {"choices": [{"prompt_logprobs": None}]},
        {"choices": [{"prompt_logprobs": [None, {}]}]},
        {"choices": [{"prompt_logprobs": [None, {"1": {}}], "prompt_token_ids": [1, 1]}]},
    ],
)
def test_teacher_forcing_says_what_is_missing(body):
    """A scorer learns of it in one line."""
    with pytest.raises(WireError, match="prompt_logprobs"):
        teacher_forced(body)
