"""The audit in the store: who changed what, why, from what to what, on which evidence; written by the scripts alone."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from redis.asyncio import Redis

from canary.storage import keys
from canary.storage.chain import Link
from canary.storage.link import bounded

PAGE = 200  # entries read in one call


class AuditLog:
    """The audit in the store. Every call ends within a second, in an answer or a StoreError."""

    def __init__(self, redis: Redis, url: str) -> None:
        self._redis = redis
        self._url = url

    async def head(self) -> Link | None:
        """Return the last link of the chain, None before the first entry."""
        text = await bounded(self._redis.get(keys.AUDIT_HEAD), self._url)
        seq, _, chain = (text or "").partition(" ")
        return Link(int(seq), chain) if seq.isascii() and seq.isdigit() else None

    async def chain(self, after: str = "") -> dict[str, Any]:
        """Return a page of entries and the head, as JSON values; the head first, so that no entry below it is amiss."""
        head = await self.head()
        return {"entries": await self.page(after), "head": None if head is None else asdict(head)}

    async def page(self, after: str = "", count: int = PAGE) -> list[dict[str, str]]:
        """Return up to `count` entries after the stream id `after`, oldest first, each with its id."""
        low = f"({after}" if after else "-"
        entries = await bounded(self._redis.xrange(keys.AUDIT, min=low, count=count), self._url)
        return [{"id": key, **fields} for key, fields in entries]

    async def wait(self, after: str, milliseconds: int) -> list[dict[str, str]]:
        """Return the entries after `after`; with none there yet, wait that long for the first."""
        found = await bounded(self._redis.xread({keys.AUDIT: after}, count=PAGE, block=milliseconds), self._url)
        return [{"id": key, **fields} for key, fields in (found[0][1] if found else ())]
