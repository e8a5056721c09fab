"""openai-python against a gateway: what an app uses of it. `python sdk_openai.py URL KEY` prints one line of JSON."""

from __future__ import annotations

import json
import sys

from openai import AuthenticationError, NotFoundError, OpenAI
from pydantic import BaseModel

ASKED = [{"role": "user", "content": "Return the sum"}]
MODEL, BUSY = "support", "busy"


class Reduction(BaseModel):
    """What the model is made to answer."""

    axis: bool
    keep: bool


SUM = {
    "type": "function",
    "function": {
        "name": "sum",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"axis": {"type": "integer", "enum": [0, 1]}},
            "required": ["axis"],
            "additionalProperties": False,
        },
    },
}


def whole(client: OpenAI) -> dict:
    """A chat answered at once."""
    answer = client.chat.completions.create(model=MODEL, messages=ASKED, max_tokens=8, temperature=0)
    return {"model": answer.model, "finish": answer.choices[0].finish_reason, "tokens": answer.usage.completion_tokens}


def streamed(client: OpenAI) -> dict:
    """A chat answered piece by piece, with its usage at the end."""
    options = {"include_usage": True}
    with client.chat.completions.create(
        model=MODEL, messages=ASKED, max_tokens=8, temperature=0, stream=True, stream_options=options
    ) as stream:
        chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    same = client.chat.completions.create(model=MODEL, messages=ASKED, max_tokens=8, temperature=0)
    return {
        "models": sorted({chunk.model for chunk in chunks}),
        "same": text == same.choices[0].message.content,
        "tokens": chunks[-1].usage.completion_tokens,
    }


def structured(client: OpenAI) -> list[str]:
    """An answer that is an object of the app's own type."""
    answer = client.chat.completions.parse(model=MODEL, messages=ASKED, max_tokens=200, response_format=Reduction)
    return sorted(answer.choices[0].message.parsed.model_dump())


def tool(client: OpenAI) -> dict:
    """A tool that the model must call."""
    choice = {"type": "function", "function": {"name": "sum"}}
    answer = client.chat.completions.create(
        model=MODEL, messages=ASKED, max_tokens=400, temperature=0, frequency_penalty=2, tools=[SUM], tool_choice=choice
    )
    called = answer.choices[0].message.tool_calls[0].function
    return {"name": called.name, "arguments": sorted(json.loads(called.arguments))}


def completed(client: OpenAI) -> dict:
    """The older completions, whole and streamed."""
    answer = client.completions.create(model=MODEL, prompt="Return", max_tokens=4, temperature=0, logprobs=1)
    with client.completions.create(model=MODEL, prompt="Return", max_tokens=4, temperature=0, stream=True) as stream:
        text = "".join(chunk.choices[0].text for chunk in stream)
    return {"same": text == answer.choices[0].text, "logprobs": len(answer.choices[0].logprobs.tokens)}


def responded(client: OpenAI) -> dict:
    """The responses API, whole and as typed events."""
    answer = client.responses.create(model=MODEL, input="Return the sum", max_output_tokens=8, temperature=0)
    with client.responses.create(
        model=MODEL, input="Return the sum", max_output_tokens=8, temperature=0, stream=True
    ) as stream:
        events = list(stream)
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    return {
        "model": answer.model,
        "same": text == answer.output_text,
        "tokens": answer.usage.output_tokens,
        "events": [events[0].type, events[-1].type],
        "models": sorted({event.response.model for event in (events[0], events[-1])}),
    }


def refused(client: OpenAI, kind: type[NotFoundError | AuthenticationError], model: str) -> list:
    """A request that must fail in the SDK's own words."""
    try:
        client.chat.completions.create(model=model, messages=ASKED)
    except kind as error:
        return [error.status_code, error.code]
    return []


def aborted(client: OpenAI) -> int:
    """A stream that the app leaves after three pieces."""
    with client.chat.completions.create(
        model=MODEL, messages=ASKED, max_tokens=900, stream=True, extra_body={"ignore_eos": True}
    ) as stream:
        return sum(1 for _ in zip(range(3), stream, strict=False))


def retried(client: OpenAI) -> bool:
    """A model with one slot: the second request is told to wait, and the SDK comes back by itself."""
    held = client.chat.completions.create(
        model=BUSY, messages=ASKED, max_tokens=250, stream=True, extra_body={"ignore_eos": True}
    )
    raw = client.chat.completions.with_raw_response.create(model=BUSY, messages=ASKED, max_tokens=1)
    held.close()
    return raw.retries_taken > 0 and raw.parse().model == BUSY


def main(url: str, key: str) -> None:
    """Try everything once."""
    with OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=5) as client:
        said = {
            "models": sorted(model.id for model in client.models.list()),
            "model": client.models.retrieve(MODEL).id,
            "aborted": aborted(client),
            "whole": whole(client),
            "streamed": streamed(client),
            "structured": structured(client),
            "tool": tool(client),
            "completed": completed(client),
            "responded": responded(client),
            "unknown": refused(client, NotFoundError, "nobody"),
            "stranger": refused(client.with_options(api_key="sk-wrong"), AuthenticationError, MODEL),
            "retried": retried(client),
        }
    sys.stdout.write(json.dumps(said) + "\n")


main(*sys.argv[1:])
