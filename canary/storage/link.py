"""A connection to the store whose every call ends within a second, in an answer or in one clear error."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

T = TypeVar("T")
_MOST = 32  # connections of one process; who comes when all are busy waits for one
BOUND = 1.0  # seconds; a call to the store never takes longer


class StoreError(Exception):
    """The store did not answer, or not as it should: one line with the mend."""

    exit_code = 3


def open_redis(url: str) -> Redis:
    """Return a client that connects on its first call. Raises StoreError on a URL that is none.

    Nothing is retried in here: a script that was applied before its answer was lost must not run twice unseen.
    """
    try:
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=_MOST,
            timeout=BOUND,
            decode_responses=True,
            socket_timeout=BOUND,
            socket_connect_timeout=BOUND / 2,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
        )
        return Redis.from_pool(pool)
    except ValueError as error:
        raise StoreError(f"{where(url)}: not a store URL ({error}); write redis://HOST:PORT/0") from None


def where(url: str) -> str:
    """Return the URL without its password."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""  # a property that raises
    except ValueError:
        return "store"
    return f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path}"


def loads(text: str | bytes) -> Any:
    """Read JSON; NaN and infinities, which no other reader takes, become None."""
    return json.loads(text, parse_constant=lambda _: None)


async def bounded(call: Awaitable[Any], url: str) -> Any:
    """Return what the call answers. Raises StoreError when it fails or takes longer than `BOUND` seconds."""
    try:
        async with asyncio.timeout(BOUND):
            return await call
    except (RedisError, OSError, TimeoutError) as error:
        raise StoreError(trouble(url, error)) from error


async def heard(channel: PubSub, url: str) -> dict[str, Any]:
    """Return the channel's next message. Raises StoreError after two seconds in which pings bring no answer."""
    for _ in range(4):
        message = await bounded(channel.get_message(timeout=BOUND / 2), url)
        if message is not None:
            return cast("dict[str, Any]", message)
        await bounded(channel.ping(), url)
    raise StoreError(f"store {where(url)}: silent for two seconds; is it stopped?")


def ending() -> bool:
    """Tell whether this task was cancelled: a library that swallows a cancellation must not keep a loop alive."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def trouble(url: str, error: BaseException) -> str:
    """Return the one line an operator reads."""
    lines = str(error).splitlines()
    detail = lines[0] if lines else type(error).__name__
    return f"store {where(url)}: {detail}; start it (linnet up) or set LINNET_REDIS_URL"
