"""LangChain against a gateway: what an app uses of it. `python sdk_langchain.py URL KEY` prints one line of JSON."""

from __future__ import annotations

import json
import sys

import openai
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

MODEL, BUSY = "support", "busy"


class Reduction(BaseModel):
    """What the model is made to answer."""

    axis: bool
    keep: bool


def chat(url: str, key: str, model: str = MODEL, **more: object) -> ChatOpenAI:
    """A chat model as an app makes one."""
    options = {"max_tokens": 8, "temperature": 0, "max_retries": 5, "stream_usage": True} | more
    return ChatOpenAI(base_url=f"{url}/v1", api_key=key, model=model, **options)


def whole(model: ChatOpenAI) -> dict:
    """A chat answered at once."""
    answer = model.invoke("Return the sum")
    said = answer.response_metadata
    return {
        "model": said["model_name"],
        "finish": said["finish_reason"],
        "tokens": answer.usage_metadata["output_tokens"],
    }


def streamed(model: ChatOpenAI) -> dict:
    """A chat answered piece by piece: the pieces add up to the whole, with its usage."""
    pieces = list(model.stream("Return the sum"))
    total = pieces[0]
    for piece in pieces[1:]:
        total += piece
    same = model.invoke("Return the sum").content
    return {"same": total.content == same, "tokens": total.usage_metadata["output_tokens"], "several": len(pieces) > 2}


def structured(model: ChatOpenAI) -> list[str]:
    """An answer that is an object of the app's own type."""
    answer = model.with_structured_output(Reduction, method="json_schema").invoke("Return the sum")
    return sorted(answer.model_dump())


def tool(model: ChatOpenAI) -> dict:
    """A tool that the model must call."""
    bound = model.bind_tools([Reduction], tool_choice="Reduction", strict=True)
    [called] = bound.invoke("Return the sum").tool_calls
    return {"name": called["name"], "arguments": sorted(called["args"])}


def batched(model: ChatOpenAI) -> int:
    """Several at once."""
    return len([answer for answer in model.batch(["Return", "The sum", "A set"]) if answer.content])


def responded(model: ChatOpenAI) -> dict:
    """The responses API."""
    answer = model.invoke("Return the sum")
    return {"model": answer.response_metadata["model_name"], "tokens": answer.usage_metadata["output_tokens"]}


def refused(model: ChatOpenAI, kind: type[openai.APIStatusError]) -> list:
    """A request that must fail in the SDK's own words."""
    try:
        model.invoke("Return the sum")
    except kind as error:
        return [error.status_code, error.code]
    return []


def retried(url: str, key: str) -> bool:
    """A model with one slot: the second request is told to wait, and comes back by itself."""
    held = chat(url, key, BUSY, max_tokens=250, extra_body={"ignore_eos": True}).stream("Return the sum")
    next(held)
    answer = chat(url, key, BUSY, max_tokens=1).invoke("Return the sum")
    held.close()
    return answer.response_metadata["model_name"] == BUSY


def aborted(model: ChatOpenAI) -> int:
    """A stream that the app leaves after three pieces."""
    stream = model.stream("Return the sum")
    pieces = sum(1 for _ in zip(range(3), stream, strict=False))
    stream.close()
    return pieces


def main(url: str, key: str) -> None:
    """Try everything once."""
    said = {
        "aborted": aborted(chat(url, key, max_tokens=900, extra_body={"ignore_eos": True})),
        "whole": whole(chat(url, key)),
        "streamed": streamed(chat(url, key)),
        "structured": structured(chat(url, key, max_tokens=200)),
        "tool": tool(chat(url, key, max_tokens=400, frequency_penalty=2)),
        "batched": batched(chat(url, key)),
        "responded": responded(chat(url, key, use_responses_api=True)),
        "unknown": refused(chat(url, key, "nobody"), openai.NotFoundError),
        "stranger": refused(chat(url, "sk-wrong"), openai.AuthenticationError),
        "retried": retried(url, key),
    }
    sys.stdout.write(json.dumps(said) + "\n")


main(*sys.argv[1:])
