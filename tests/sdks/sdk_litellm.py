"""The LiteLLM SDK against a gateway. `python sdk_litellm.py URL KEY` prints one line of JSON."""

from __future__ import annotations

import asyncio
import json
import sys

import litellm
from pydantic import BaseModel

ASKED = [{"role": "user", "content": "Return the sum"}]
MODEL, BUSY = "support", "busy"
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


class Reduction(BaseModel):
    """What the model is made to answer."""

    axis: bool
    keep: bool


class App:
    """An app's calls; `openai/` names any server that speaks OpenAI's protocol."""

    def __init__(self, url: str, key: str) -> None:
        self._where = {"api_base": f"{url}/v1", "api_key": key, "num_retries": 5}

    def ask(self, model: str = MODEL, **more: object) -> litellm.ModelResponse:
        """One chat."""
        options = {"messages": ASKED, "max_tokens": 8, "temperature": 0, **self._where, **more}
        return litellm.completion(f"openai/{model}", **options)

    async def ask_async(self, model: str = MODEL, **more: object) -> litellm.ModelResponse:
        """One chat, awaited."""
        options = {"messages": ASKED, "max_tokens": 8, "temperature": 0, **self._where, **more}
        return await litellm.acompletion(f"openai/{model}", **options)

    def complete(self) -> litellm.TextCompletionResponse:
        """One text completion."""
        return litellm.text_completion("Return", model=f"openai/{MODEL}", max_tokens=4, **self._where)


def whole(app: App) -> dict:
    """A chat answered at once."""
    answer = app.ask()
    return {"model": answer.model.removeprefix("openai/"), "finish": answer.choices[0].finish_reason,
            "tokens": answer.usage.completion_tokens}  # fmt: skip


def streamed(app: App) -> dict:
    """A chat answered piece by piece; the SDK puts the whole together again."""
    chunks = list(app.ask(stream=True, stream_options={"include_usage": True}))
    total = litellm.stream_chunk_builder(chunks, messages=ASKED)
    same = app.ask().choices[0].message.content
    return {"same": total.choices[0].message.content == same, "tokens": total.usage.completion_tokens}


def structured(app: App) -> list[str]:
    """An answer that is an object of the app's own type."""
    answer = app.ask(max_tokens=200, response_format=Reduction)
    return sorted(Reduction.model_validate_json(answer.choices[0].message.content).model_dump())


def tool(app: App) -> dict:
    """A tool that the model must call."""
    choice = {"type": "function", "function": {"name": "sum"}}
    answer = app.ask(max_tokens=400, frequency_penalty=2, tools=[SUM], tool_choice=choice)
    called = answer.choices[0].message.tool_calls[0].function
    return {"name": called.name, "arguments": sorted(json.loads(called.arguments))}


def refused(app: App, model: str, kind: type[Exception]) -> int:
    """A request that must fail in the SDK's own words."""
    try:
        app.ask(model, num_retries=0)
    except kind as error:
        return error.status_code
    return 0


async def retried(app: App) -> bool:
    """A model with one slot: the second request is told to wait, and comes back by itself."""
    held = await app.ask_async(BUSY, max_tokens=250, stream=True, extra_body={"ignore_eos": True})
    answer = await app.ask_async(BUSY, max_tokens=1)
    await held.aclose()
    return bool(answer.choices)


async def aborted(app: App) -> int:
    """A stream that the app leaves after three pieces."""
    stream = await app.ask_async(max_tokens=900, stream=True, extra_body={"ignore_eos": True})
    pieces = 0
    async for _ in stream:
        pieces += 1
        if pieces == 3:
            break
    await stream.aclose()
    return pieces


def main(url: str, key: str) -> None:
    """Try everything once."""
    litellm.suppress_debug_info = True
    app = App(url, key)
    said = {
        "aborted": asyncio.run(aborted(app)),
        "whole": whole(app),
        "streamed": streamed(app),
        "structured": structured(app),
        "tool": tool(app),
        "completed": bool(app.complete().choices[0].text),
        "unknown": refused(app, "nobody", litellm.NotFoundError),
        "stranger": refused(App(url, "sk-wrong"), MODEL, litellm.AuthenticationError),
        "retried": asyncio.run(retried(app)),
    }
    sys.stdout.write(json.dumps(said) + "\n")


main(*sys.argv[1:])
