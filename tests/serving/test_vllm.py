"""Two real vLLM engines, base and int8 candidate, answer as the rest of Linnet expects."""

import json
import math

import httpx
import pytest

from serving.engine import completes

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

ARMS = ("baseline", "candidate")


def post(pair, arm, path, **body):
    """Ask one arm's engine, and insist on a success."""
    answer = httpx.post(f"{getattr(pair, arm).url}{path}", json={"model": pair.model, **body}, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer


def events(answer) -> list[str]:
    """Return the payloads of a streamed answer."""
    return [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]


def held_out(pair, slice_: str, count: int) -> list[str]:
    """Return the first held-out passages of a slice."""
    lines = (pair.home / "evals" / f"{slice_}.jsonl").read_text().splitlines()[:count]
    return [json.loads(line)["text"] for line in lines]


def mean_log_probability(pair, arm, texts) -> float:
    """Score texts by teacher forcing, as shadow pairs are scored."""
    values = []
    for text in texts:
        answer = post(pair, arm, "/v1/completions", prompt=text, max_tokens=1, prompt_logprobs=0).json()
        steps = answer["choices"][0]["prompt_logprobs"]
        assert steps[0] is None
        values += [next(iter(step.values()))["logprob"] for step in steps[1:]]
    return sum(values) / len(values)


@pytest.mark.parametrize("arm", ARMS)
async def test_both_arms_complete_under_the_same_name(vllm_pair, arm):
    """Ready means a completion answered."""
    assert await completes(getattr(vllm_pair, arm).url, vllm_pair.model)


@pytest.mark.parametrize("arm", ARMS)
def test_a_whole_completion_has_text_usage_and_a_finish_reason(vllm_pair, arm):
    """max_tokens bounds the answer, and usage counts it."""
    answer = post(
        vllm_pair, arm, "/v1/completions", prompt="Return the number of", max_tokens=12, ignore_eos=True
    ).json()
    assert answer["choices"][0]["text"]
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 12
    assert answer["model"] == vllm_pair.model


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/v1/completions", {"prompt": "A graph is"}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "A graph is"}]}),
    ],
)
def test_a_stream_ends_with_finish_reason_usage_and_done(vllm_pair, arm, path, asked):
    """What makes a streamed answer good is all there."""
    answer = post(
        vllm_pair,
        arm,
        path,
        **asked,
        max_tokens=8,
        ignore_eos=True,
        stream=True,
        stream_options={"include_usage": True},
    )
    *chunks, done = events(answer)
    parsed = [json.loads(chunk) for chunk in chunks]
    assert done == "[DONE]"
    assert parsed[-1]["choices"] == []
    assert parsed[-1]["usage"]["completion_tokens"] == 8
    assert [c["finish_reason"] for chunk in parsed for c in chunk["choices"]][-1] == "length"


def test_a_chat_is_the_continuation_of_its_messages(vllm_pair):
    """The template only joins contents: greedily, chat and completion say the same."""
    prompt = "Return the eigenvalues of"
    shared = {"max_tokens": 10, "temperature": 0, "ignore_eos": True}
    completion = post(vllm_pair, "candidate", "/v1/completions", prompt=prompt, **shared).json()
    chat = post(
        vllm_pair, "candidate", "/v1/chat/completions", messages=[{"role": "user", "content": prompt}], **shared
    ).json()
    assert completion["usage"]["prompt_tokens"] == chat["usage"]["prompt_tokens"]
    assert completion["choices"][0]["text"].strip() == chat["choices"][0]["message"]["content"].strip()


def test_the_int8_candidate_knows_the_domain_better_and_has_not_forgotten(vllm_pair):
    """Teacher-forced by the engines themselves, the table of the adaptation holds."""
    gain = {
        slice_: mean_log_probability(vllm_pair, "candidate", texts) - mean_log_probability(vllm_pair, "baseline", texts)
        for slice_ in ("domain", "general")
        for texts in [held_out(vllm_pair, slice_, 60)]
    }
    assert gain["domain"] > 0.3
    assert gain["general"] > -math.log(1.05)
