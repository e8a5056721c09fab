"""A whole reply for somebody who awaits it: the shadow, a probe."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from gateway.errors import BadAnswerError, UpstreamError
from gateway.pool.pool import Pools
from gateway.pool.sending import Errand
from gateway.pool.sink import Headers


async def fetch(pools: Pools, urls: Sequence[str], errand: Errand, most: int) -> tuple[int, Headers, bytes]:
    """Send one request and return status, headers and body of its reply, `most` bytes at most. Raises UpstreamError."""
    whole = _Whole(asyncio.get_running_loop().create_future(), most)
    sending = pools.send(urls, errand, whole)
    try:
        await whole.said
    finally:
        sending.abandon()
    return whole.status, whole.headers, whole.content


class _Whole:
    """A sink that gathers a whole reply for somebody who awaits it."""

    __slots__ = ("_most", "_parts", "_size", "headers", "said", "status")

    def __init__(self, said: asyncio.Future[None], most: int) -> None:
        self.said = said
        self.status = 0
        self.headers: Headers = []
        self._most = most
        self._parts: list[bytes] = []
        self._size = 0

    @property
    def content(self) -> bytes:
        """The body."""
        return b"".join(self._parts)

    def head(self, status: int, headers: Headers, _at: float) -> None:
        """Keep the head."""
        self.status, self.headers = status, headers

    def body(self, piece: bytes, _at: float) -> None:
        """Keep a piece."""
        self._parts.append(piece)
        self._size += len(piece)
        if self._size > self._most:
            self.failed(BadAnswerError(f"an answer of more than {self._most} bytes"))

    def ended(self, _at: float) -> None:
        """Wake who waits."""
        if not self.said.done():
            self.said.set_result(None)

    def failed(self, error: UpstreamError) -> None:
        """Raise in who waits."""
        if not self.said.done():
            self.said.set_exception(error)
