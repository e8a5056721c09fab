"""The client: keep-alive connections on raw protocols, cheap enough to leave the machine to those who are measured."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

from httptools import HttpResponseParser

from bench.errors import BenchError

MODEL = "bench"
WORDS = 16  # tokens of a whole answer
CHUNKS = 64  # content chunks of a stream
GAP_MS = 20.0  # between two chunks of a stream, and before the first
_EVENT = b"data: {"
_OPENING = 1  # the chunk that names the role comes before the content
_PROMPT = ("The quick brown fox jumps over the lazy dog. " * 23)[:1024]
_BOUND_S = 60.0


def request(number: int, *, stream: bool) -> bytes:
    """One chat request of a user of its own, 1 KB of prompt, as bytes on the wire."""
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": _PROMPT}],
        "user": f"user-{number}",
        "max_tokens": CHUNKS if stream else WORDS,
        "ignore_eos": True,
        "stream": stream,
    }
    payload = json.dumps(body).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
        f"content-length: {len(payload)}\r\n\r\n"
    )
    return head.encode() + payload


@dataclass(slots=True)
class Answer:
    """What came back: `events` of a stream, and the monotonic time of the first content."""

    status: int = 0
    events: int = 0
    first: float = 0.0


class Line(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._parser = HttpResponseParser(self)
        self._answer = Answer()
        self._tail = b""
        self._done: asyncio.Future[Answer] | None = None

    async def ask(self, raw: bytes) -> Answer:
        """Send a request and return its answer. Raises BenchError if the connection goes."""
        if self._transport is None:
            raise BenchError("the connection was closed between two requests; run again")
        self._answer, self._tail = Answer(), b""
        self._done = asyncio.get_running_loop().create_future()
        self._parser = HttpResponseParser(self)
        self._transport.write(raw)
        return await self._done

    def close(self) -> None:
        """Let go."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Let llhttp find the body."""
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits."""
        self._transport = None
        if self._done is not None and not self._done.done():
            self._done.set_exception(BenchError(f"the connection was lost amid an answer ({exc or 'closed'})"))

    def on_body(self, body: bytes) -> None:
        """Count events, wherever they are cut."""
        window = self._tail + body
        self._answer.events += window.count(_EVENT)
        self._tail = window[-len(_EVENT) + 1 :]
        if not self._answer.first and self._answer.events > _OPENING:
            self._answer.first = time.monotonic()

    def on_message_complete(self) -> None:
        """Hand the answer over."""
        self._answer.status = self._parser.get_status_code()
        if self._done is not None and not self._done.done():
            self._done.set_result(self._answer)


async def whole(urls: Sequence[str], connections: int, count: int) -> None:
    """Ask for `count` whole answers in a closed loop. Raises BenchError if one is not well."""

    async def asker(line: Line, first: int) -> None:
        for number in range(first, count, connections):
            answer = await line.ask(request(number, stream=False))
            if answer.status != 200:
                raise BenchError(f"a whole answer had status {answer.status}")

    lines = await _lines(urls, connections)
    await _side_by_side([asker(line, first) for first, line in enumerate(lines)], lines)


async def streams(urls: Sequence[str], connections: int, each: int) -> list[float]:
    """Ask for `each` streams on each connection, one after the other; return the seconds to each first content.

    Starts are spread evenly over half a second. Raises BenchError if a stream lacks a chunk.
    """
    took: list[float] = []

    async def asker(line: Line, place: int) -> None:
        await asyncio.sleep(0.5 * place / connections)
        for number in range(each):
            raw = request(place * each + number, stream=True)
            begun = time.monotonic()
            answer = await line.ask(raw)
            if (answer.status, answer.events) != (200, CHUNKS + _OPENING):
                raise BenchError(f"a stream had status {answer.status} and {answer.events} events")
            took.append(answer.first - begun)

    lines = await _lines(urls, connections)
    await _side_by_side([asker(line, place) for place, line in enumerate(lines)], lines)
    return took


async def _lines(urls: Sequence[str], count: int) -> list[Line]:
    """Connect `count` times, to each address in turn."""
    loop = asyncio.get_running_loop()
    places = [urlsplit(urls[number % len(urls)]) for number in range(count)]
    return [(await loop.create_connection(Line, place.hostname or "", place.port or 80))[1] for place in places]


async def _side_by_side(askers: Sequence[Coroutine[None, None, None]], lines: Sequence[Line]) -> None:
    try:
        async with asyncio.timeout(_BOUND_S), asyncio.TaskGroup() as group:
            for asker in askers:
                group.create_task(asker)
    except TimeoutError:
        raise BenchError(f"the answers took more than {_BOUND_S:g} s; run on a quieter machine") from None
    except ExceptionGroup as troubles:
        raise troubles.exceptions[0] from None
    finally:
        for line in lines:
            line.close()
