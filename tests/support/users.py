"""Users of the gateway, in a thread: each asks again and again, streamed and whole by turns, and keeps what it got."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import httpx

WORDS = ("a", "set", "of", "numbers", "whose", "sum", "is", "even")


@dataclass(frozen=True, slots=True)
class Answer:
    """What one request got. `at` is when it was over (unix seconds); `late` says that a byte had come before it failed.

    `error` is empty for a good answer: a whole one with a finish reason, or a stream that ended in [DONE].
    """

    at: float
    arm: str
    status: int
    error: str
    late: bool


class Users:
    """A handful of users. Use as a context manager."""

    def __init__(
        self, gateway: str, model: str = "mathdocs", *, count: int = 6, pause_s: float = 0.05, max_tokens: int = 8
    ) -> None:
        self.answers: list[Answer] = []
        self._gateway, self._model = gateway, model
        self._count, self._pause_s, self._max_tokens = count, pause_s, max_tokens
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="users")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join(30.0)
        assert not self._thread.is_alive()

    def early_errors(self) -> list[Answer]:
        """Those that failed before their first byte."""
        return [answer for answer in self.answers if answer.error and not answer.late]

    def errors(self) -> list[Answer]:
        """Those that failed at all."""
        return [answer for answer in self.answers if answer.error]

    def count(self, arm: str = "", since: float = 0.0) -> int:
        """Count good answers of an arm (of any) that were over after a moment."""
        return sum(not answer.error and answer.at >= since and arm in ("", answer.arm) for answer in list(self.answers))

    def _run(self) -> None:
        asyncio.run(self._all())

    async def _all(self) -> None:
        connection = httpx.AsyncClient(base_url=self._gateway, timeout=30.0, trust_env=False)
        async with connection as client, asyncio.TaskGroup() as group:
            for number in range(self._count):
                group.create_task(self._user(client, number))

    async def _user(self, client: httpx.AsyncClient, number: int) -> None:
        turn = 0
        while not self._stop.is_set():
            turn += 1
            body = {
                "model": self._model,
                "messages": [{"role": "user", "content": f"{' '.join(WORDS)} {number} {turn}"}],
                "max_tokens": self._max_tokens,
                "stream": turn % 2 == 0,
            }
            self.answers.append(await _ask(client, body, f"user-{number}-{turn}"))
            await asyncio.sleep(self._pause_s)


async def _ask(client: httpx.AsyncClient, body: dict[str, object], session: str) -> Answer:
    seen = bytearray()
    status, arm, error = 0, "", ""
    with _caught() as trouble:
        async with client.stream("POST", "/v1/chat/completions", json=body, headers={"X-Linnet-Session": session}) as r:
            status, arm = r.status_code, r.headers.get("x-linnet-arm", "")
            async for chunk in r.aiter_bytes():
                seen += chunk
    error = trouble[0] if trouble else _fault(status, bytes(seen), stream=bool(body["stream"]))
    late = status == httpx.codes.OK and bool(seen) and bool(body["stream"])
    return Answer(time.time(), arm, status, error, late)


@contextlib.contextmanager
def _caught() -> Iterator[list[str]]:
    trouble: list[str] = []
    try:
        yield trouble
    except httpx.HTTPError as error:
        trouble.append(f"{type(error).__name__}: {error}")


def _fault(status: int, seen: bytes, *, stream: bool) -> str:
    """Return what is wrong with an answer, nothing if it is good."""
    if status != httpx.codes.OK or b'"error"' in seen:
        return f"{status}: {seen[-300:].decode(errors='replace')}"
    whole = seen.rstrip().endswith(b"data: [DONE]") if stream else b'"finish_reason"' in seen
    return "" if whole else f"cut after {len(seen)} bytes"
