"""Whether engines answer for themselves: what is registered may be older than the process that registered it.

Off the looks' way: an engine is asked by a task of its own, and a look takes the answer that is there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, TypeAlias

import httpx

TIMEOUT_S: Final = 1.0  # an engine may take
FRESH_S: Final = 3.0  # after this an engine is asked again
KEPT_S: Final = 6.0  # after this an answer is none: what it said may be long over
PATIENCE_S: Final = 0.2  # a look may wait, and only for who was never asked
_FAULTY = 500

Ask: TypeAlias = Callable[[str], Awaitable[str]]  # a replica's URL -> what is wrong with its answer, "" if nothing


class Health:
    """The last answer of each replica. One event loop owns it."""

    def __init__(self, ask: Ask, clock: Callable[[], float] = time.monotonic) -> None:
        self._ask = ask
        self._clock = clock
        self._answers: dict[str, tuple[float, str]] = {}
        self._asking: dict[str, asyncio.Task[None]] = {}

    async def silent(self, urls: Iterable[str]) -> dict[str, str]:
        """Return those of `urls` that give no health answer, each with what is wrong. Waits `PATIENCE_S` at most."""
        wanted, now, loop = tuple(urls), self._clock(), asyncio.get_running_loop()
        self._answers = {url: answer for url, answer in self._answers.items() if now - answer[0] < KEPT_S}
        for url in wanted:
            if url not in self._asking and now - self._answers.get(url, (now - FRESH_S, ""))[0] >= FRESH_S:
                self._asking[url] = loop.create_task(self._asked(url))
        unknown = [self._asking[url] for url in wanted if url not in self._answers]
        if unknown:
            await asyncio.wait(unknown, timeout=PATIENCE_S)
        troubles = {url: self._answers.get(url, (now, "not yet"))[1] for url in wanted}
        return {url: trouble for url, trouble in troubles.items() if trouble}

    async def _asked(self, url: str) -> None:
        try:
            self._answers[url] = self._clock(), await self._ask(url)
        finally:
            del self._asking[url]


class HttpAsk:
    """Asks `GET URL/health`: whatever answers in time, and with no 5xx, is there. Not every engine has that route."""

    def __init__(self, timeout: float = TIMEOUT_S) -> None:
        self._timeout = timeout
        self._client: httpx.AsyncClient | None = None  # made when needed: it reads certificates

    async def __call__(self, url: str) -> str:
        """See Ask."""
        if self._client is None:
            self._client = httpx.AsyncClient(trust_env=False, timeout=None, headers={"Connection": "close"})  # noqa: S113
        try:
            async with asyncio.timeout(self._timeout), self._client.stream("GET", f"{url}/health") as answer:
                status = answer.status_code
        except TimeoutError:
            return f"none within {self._timeout:g} s"
        except httpx.ConnectError:
            return "no connection"
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            return type(error).__name__
        return f"HTTP {status}" if status >= _FAULTY else ""
