"""The peer: a proxy for two engines on FastAPI and httpx, as everyone writes it first.

`python -m bench.peer [--port P] URL URL` splits 50/50 and does nothing else: no stickiness, no tallies, no usage, no
timeouts of its own. The first line on stdout says where it serves.
"""

from __future__ import annotations

import argparse
import random
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict
from starlette.background import BackgroundTask


class Message(BaseModel):
    """One turn of a chat."""

    model_config = ConfigDict(extra="allow")
    role: str
    content: str | list[Any] | None = None


class ChatRequest(BaseModel):
    """A chat request; what it does not name is passed on."""

    model_config = ConfigDict(extra="allow")
    model: str
    messages: list[Message]
    stream: bool = False


def create_app(engines: list[str]) -> FastAPI:
    """Return the proxy for these base URLs."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        limits = httpx.Limits(max_connections=2000, max_keepalive_connections=2000)
        async with httpx.AsyncClient(timeout=600, limits=limits) as client:
            app.state.client = client
            yield

    app = FastAPI(lifespan=lifespan)

    @app.post("/v1/chat/completions")
    async def chat(body: ChatRequest) -> Response:
        client: httpx.AsyncClient = app.state.client
        url = f"{random.choice(engines)}/v1/chat/completions"
        request = client.build_request("POST", url, json=body.model_dump(exclude_unset=True))
        answer = await client.send(request, stream=body.stream)
        if not body.stream:
            return JSONResponse(answer.json(), status_code=answer.status_code)
        return StreamingResponse(
            answer.aiter_bytes(),
            status_code=answer.status_code,
            media_type="text/event-stream",
            background=BackgroundTask(answer.aclose),
        )

    return app


def main() -> None:
    """Serve until SIGTERM, on a free port if none is named."""
    parser = argparse.ArgumentParser(prog="python -m bench.peer")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("urls", nargs="+")
    told = parser.parse_args()
    listener = socket.create_server(("127.0.0.1", told.port), backlog=1024)
    sys.stdout.write(f"peer on http://127.0.0.1:{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    config = uvicorn.Config(create_app(told.urls), log_level="warning", access_log=False)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
