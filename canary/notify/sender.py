"""One try to deliver one message: at most five seconds, no redirect followed, nothing of the answer but its status."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from enum import StrEnum

import httpx

from canary.notify.message import Message, signature
from canary.notify.target import Misconfigured, NotifySpec, host

TIMEOUT_S = 5.0
_AGAIN = frozenset({408, 425, 429})  # beside all of 5xx: refused now, perhaps not later


class Result(StrEnum):
    """What became of a try, or of a message."""

    SENT = "sent"
    RETRIED = "retried"  # this try failed, another follows
    FAILED = "failed"  # the last try failed
    REJECTED = "rejected"  # the receiver said that no other try will do
    DROPPED = "dropped"  # pushed out by newer ones
    MISCONFIGURED = "misconfigured"  # the control plane's environment lacks the address or the secret


class Sender:
    """Sends over one pool of connections; `environment` holds addresses and secrets."""

    def __init__(self, environment: Mapping[str, str], timeout: float = TIMEOUT_S) -> None:
        self._environment = environment
        self._timeout = timeout
        self._client = httpx.AsyncClient(follow_redirects=False, timeout=timeout, headers={"User-Agent": "linnet"})

    async def close(self) -> None:
        """Close every connection."""
        await self._client.aclose()

    async def send(self, target: NotifySpec, message: Message, now: int) -> tuple[Result, str]:
        """Try once; return what became of it (`RETRIED`: try again) and one line that says it. Raises nothing.

        `now` is in Unix seconds, and signed: a receiver can refuse what is old.
        """
        try:
            address, secret = target.address(self._environment), target.secret(self._environment)
        except Misconfigured as error:
            return Result.MISCONFIGURED, str(error)
        headers = {
            "Content-Type": "application/json",
            "X-Linnet-Delivery": message.id,
            "X-Linnet-Event": message.events,
            **({} if secret is None else {"X-Linnet-Signature": signature(secret, message.body, now)}),
        }
        try:
            async with asyncio.timeout(self._timeout):
                status = await self._post(address, message.body, headers)
        except (httpx.HTTPError, httpx.InvalidURL, OSError, TimeoutError, ValueError) as error:
            return Result.RETRIED, f"{host(address)}: {type(error).__name__}"
        return _judged(status), f"{host(address)}: HTTP {status}"

    async def _post(self, address: str, body: bytes, headers: Mapping[str, str]) -> int:
        """Return the status; whatever the receiver goes on to say is left unread."""
        async with self._client.stream("POST", address, content=body, headers=dict(headers)) as answer:
            return answer.status_code


def _judged(status: int) -> Result:
    if 200 <= status < 300:  # noqa: PLR2004 - HTTP's own classes
        return Result.SENT
    return Result.RETRIED if status in _AGAIN or status >= 500 else Result.REJECTED  # noqa: PLR2004
