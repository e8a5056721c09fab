"""What API keys have used: each worker tells its own sums and hears the others', in one call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from redis.asyncio import Redis

from canary.storage import keys, scripts
from canary.storage.link import bounded

_LIVE_MS = 5_000  # a worker whose heartbeat is older is gone


@dataclass(frozen=True, slots=True)
class Used:
    """One key's use in one minute (Unix minutes), in the minute before, and in one UTC day (Unix days)."""

    key_id: str
    minute: int
    day: int
    requests: float = 0
    tokens: float = 0
    requests_before: float = 0
    tokens_before: float = 0
    usd: float = 0.0

    def amounts(self) -> tuple[str, ...]:
        """Return the sums as the script reads them."""
        minutes = (self.requests, self.tokens, self.requests_before, self.tokens_before)
        return (*(str(int(amount)) for amount in minutes), repr(float(self.usd)))


@dataclass(frozen=True, slots=True)
class Heard:
    """The store's time in Unix seconds, how many workers live, and what all others have used of each key."""

    unix_s: float
    live: int
    others: tuple[Used, ...]


class Usage:
    """The sums in the store. Every call ends within a second, in an answer or a StoreError."""

    def __init__(self, redis: Redis, url: str) -> None:
        self._redis = redis
        self._url = url

    async def exchange(self, worker: str, own: Sequence[Used]) -> Heard:
        """Tell what this worker has used and hear what the others have; to be repeated at will."""
        names, words = [keys.WORKERS], [worker, str(_LIVE_MS)]
        for used in own:
            minutes = (keys.usage_minute(used.key_id, used.minute - back) for back in (0, 1))
            names += [*minutes, keys.usage_day(used.key_id, used.day)]
            words += used.amounts()
        found = await bounded(self._redis.eval(scripts.USAGE, len(names), *names, *words), self._url)
        others = (_used(used, text) for used, text in zip(own, found[2:], strict=True))
        return Heard(float(found[0]), int(found[1]), tuple(others))


def _used(own: Used, text: str) -> Used:
    requests, tokens, requests_before, tokens_before, usd, _ = (float(word) for word in text.split())
    return Used(own.key_id, own.minute, own.day, requests, tokens, requests_before, tokens_before, usd)
