"""API keys: who may call, what for, and how much. The store has a key's hash and never the key.

A key is 32 random bytes, so its plain SHA-256 cannot be searched backwards; a slow hash is for passwords people choose.
"""

from __future__ import annotations

import json
import math
import re
import secrets
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import aclosing
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from hashlib import sha256
from typing import Any

from redis.asyncio import Redis

from canary.core.events import Cause
from canary.errors import Conflict, Unknown, Usage
from canary.storage import keys, scripts
from canary.storage.chain import sealed
from canary.storage.link import bounded, ending, heard

PREFIX = "lk-"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._@-]{0,63}")
_HASH = re.compile(r"[0-9a-f]{64}")
_LARGEST = 10**12  # of any limit: what a float still counts exactly
_TRIES = 5


class Scope(StrEnum):
    """What a caller may do."""

    INFERENCE = "inference"  # ask for answers
    TESTER = "tester"  # choose the arm
    ADMIN = "admin"  # everything on the control plane


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """What one key may use, on all gateways together; None is no limit. Per minute, per minute, per UTC day."""

    rpm: int | None = None
    tpm: int | None = None
    usd_per_day: float | None = None

    @property
    def any(self) -> bool:
        """Tell whether anything is limited."""
        return (self.rpm, self.tpm, self.usd_per_day) != (None, None, None)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One key, without the secret. Times are Unix milliseconds; `revoked_ms` is 0 while the key holds."""

    id: str
    name: str
    scopes: frozenset[Scope]
    limits: KeyLimits = field(default_factory=KeyLimits)
    created_ms: int = 0
    revoked_ms: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return what may be shown."""
        return {
            "id": self.id,
            "name": self.name,
            "scopes": sorted(self.scopes),
            **asdict(self.limits),
            "created_ms": self.created_ms,
            "revoked_ms": self.revoked_ms,
        }

    def to_json(self) -> str:
        """Return what the store has."""
        return json.dumps(self.to_dict(), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> ApiKey:
        """Read what `to_json` wrote. Raises ValueError, KeyError or TypeError on anything else."""
        value = json.loads(text)
        return cls(
            id=str(value["id"]),
            name=str(value["name"]),
            scopes=frozenset(Scope(scope) for scope in value["scopes"]),
            limits=checked_limits(value["rpm"], value["tpm"], value["usd_per_day"]),
            created_ms=int(value["created_ms"]),
            revoked_ms=int(value["revoked_ms"]),
        )


def new_secret() -> str:
    """Return a fresh key: "lk-" and 43 URL-safe characters, 256 random bits."""
    return PREFIX + secrets.token_urlsafe(32)


def hash_of(secret: str) -> str:
    """Return the hash that stands for a key, in hexadecimal."""
    return sha256(secret.encode()).hexdigest()


def checked(name: str, scopes: Iterable[str], limits: KeyLimits) -> ApiKey:
    """Return a key that may be created. Raises Usage with one line."""
    if not _NAME.fullmatch(name):
        raise Usage(f"keys create: {name[:80]!r} is no name; write 1 to 64 letters, digits, spaces or . _ @ -")
    try:
        wanted = frozenset(Scope(scope) for scope in scopes)
    except ValueError as error:
        raise Usage(f"keys create: {error}; write --scope {', '.join(Scope)}") from None
    if not wanted:
        raise Usage(f"keys create: no scope; write --scope {', '.join(Scope)}")
    return ApiKey("", name, wanted, checked_limits(limits.rpm, limits.tpm, limits.usd_per_day))


def checked_limits(rpm: Any, tpm: Any, usd_per_day: Any) -> KeyLimits:
    """Return limits. Raises Usage (a ValueError's place is the command line) for one that is no positive number."""
    for name, value in (("rpm", rpm), ("tpm", tpm), ("usd-per-day", usd_per_day)):
        if value is not None and not _is_limit(value):
            raise Usage(f"--{name} {value}: not a limit; write a positive number, or leave it out for no limit")
    return KeyLimits(
        rpm=None if rpm is None else int(rpm),
        tpm=None if tpm is None else int(tpm),
        usd_per_day=None if usd_per_day is None else float(usd_per_day),
    )


def _is_limit(value: Any) -> bool:
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return plain and math.isfinite(value) and 0 < value <= _LARGEST


def parse(texts: Mapping[str, str]) -> dict[str, ApiKey]:
    """Return the keys by hash; one whose record is damaged is left out, and so opens nothing."""
    found = {}
    for key_hash, text in texts.items():
        try:
            if _HASH.fullmatch(key_hash):
                found[key_hash] = ApiKey.from_json(text)
        except (ValueError, KeyError, TypeError, Usage):
            continue
    return found


class ApiKeys:
    """The keys in the store. Every call ends within a second, in an answer or a StoreError."""

    def __init__(self, redis: Redis, url: str) -> None:
        self._redis = redis
        self._url = url

    async def texts(self) -> dict[str, str]:
        """Return the record of every key ever made, by hash, as it is kept."""
        return dict(await bounded(self._redis.hgetall(keys.API_KEYS), self._url))

    async def every(self) -> list[ApiKey]:
        """Return every key that can be read, oldest first, the revoked ones too."""
        return sorted(parse(await self.texts()).values(), key=lambda key: (key.created_ms, key.id))

    async def create(self, wish: ApiKey, cause: Cause) -> tuple[ApiKey, str]:
        """Make a key as `checked` returned it; return it with its secret, which nobody can show again."""
        secret = new_secret()
        key = replace(wish, id=f"key_{secrets.token_hex(6)}", created_ms=_ms(cause))
        words = [hash_of(secret), "", key.to_json()]
        if not await self._change(words, _entry("keys create", cause, "", key)):
            raise Conflict(f"{wish.name}: the key could not be written; repeat")
        return key, secret

    async def revoke(self, key_id: str, cause: Cause) -> ApiKey:
        """End a key for good; one that has ended is no error. Raises Unknown."""
        for _ in range(_TRIES):
            texts = await self.texts()
            found = next(((h, key) for h, key in parse(texts).items() if key.id == key_id), None)
            if found is None:
                raise Unknown(f"{key_id}: no such key; see `linnet keys list`")
            key_hash, key = found
            if key.revoked_ms:
                return key
            ended = replace(key, revoked_ms=_ms(cause))
            words = [key_hash, texts[key_hash], ended.to_json()]
            if await self._change(words, _entry("keys revoke", cause, "active", ended)):
                return ended
        raise Conflict(f"{key_id}: others changed it meanwhile; look again (linnet keys list), then repeat")

    async def changes(self) -> AsyncIterator[tuple[str, str]]:
        """Yield ("", "") once subscribed (read everything now), then each changed key's hash and record.

        Raises StoreError when the line is lost.
        """
        async with aclosing(self._redis.pubsub()) as channel:
            await bounded(channel.subscribe(keys.API_KEYS_CHANGED), self._url)
            yield "", ""
            while not ending():
                message = await heard(channel, self._url)
                if message.get("type") == "message":
                    key_hash, _, text = str(message["data"]).partition(" ")
                    yield key_hash, text

    async def _change(self, words: list[str], audit: Mapping[str, str]) -> bool:
        """Write one key with its audit entry and tell the workers, all or nothing; False if it is not as it was."""
        names = [keys.API_KEYS, keys.AUDIT, keys.AUDIT_HEAD]
        arguments = [*words, keys.API_KEYS_CHANGED, *sealed(audit)]
        return bool(await bounded(self._redis.eval(scripts.SET_KEY, len(names), *names, *arguments), self._url))


def _entry(what: str, cause: Cause, before: str, key: ApiKey) -> dict[str, str]:
    """Return the audit entry, in the fields that every entry has."""
    return {
        "who": cause.actor,
        "what": f"{what} {key.name} ({key.id})",
        "why": cause.reason,
        "before": before,
        "after": "revoked" if key.revoked_ms else "active",
        "generation": "",
        "evidence": json.dumps({"scopes": sorted(key.scopes), **asdict(key.limits)}, separators=(",", ":")),
        "unix_ms": str(_ms(cause)),
        "model": "",
    }


def _ms(cause: Cause) -> int:
    return round(cause.now * 1000)
