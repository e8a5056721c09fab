"""Who calls, and what they may.

While no API key has ever been seen, the gateway serves loopback alone, and every loopback caller may do what a tester
may. Without that rule an open port would let anyone choose an arm. Once a key has been seen, keys are needed for good:
also when all of them were revoked, when the store is lost or was emptied, and after a restart with the store dead. A
worker learns of a key by push and by poll, and keeps what it knows in a file.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from hmac import compare_digest
from ipaddress import ip_address
from pathlib import Path
from typing import Final
from urllib.parse import quote

from canary.storage.apikeys import ApiKey, ApiKeys, KeyLimits, Scope, parse
from canary.storage.link import StoreError, open_redis
from gateway.errors import ApiError, SettingsError

__all__ = ["Caller", "KeyFile", "Keys", "Scope", "check_bind", "identify", "is_loopback", "keys_at_start"]

_LOG: Final = logging.getLogger("linnet.gateway")
_BEARER: Final = b"bearer "
_REMEMBERED: Final = 1024  # loopback callers
_CHALLENGE: Final = ((b"www-authenticate", b"Bearer"),)


@dataclass(frozen=True, slots=True)
class Caller:
    """One caller: the hash of what they presented as a key ("" for nothing), their scopes, and their key.

    `limits` is None where nothing is limited.
    """

    key_hash: str
    scopes: frozenset[Scope]
    key_id: str = ""
    limits: KeyLimits | None = None


_LOOPBACK_SCOPES: Final = frozenset({Scope.INFERENCE, Scope.TESTER})
_NOBODY: Final = Caller("", _LOOPBACK_SCOPES)


def check_bind(host: str, *, keys_known: bool = False) -> None:
    """Refuse any address but loopback unless an API key is known. Raises SettingsError with one line."""
    if not keys_known and not is_loopback(host):
        raise SettingsError(
            f"LINNET_GATEWAY_HOST={host}: no API key is known, so only loopback is served; "
            "make one (linnet keys create NAME), or set 127.0.0.1"
        )


def is_loopback(host: str) -> bool:
    """Tell whether `host` can only be reached from this machine."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def identify(authorization: bytes | None) -> Caller:
    """Return the loopback caller behind an `Authorization` header; what it says goes no further than its hash."""
    return Caller(sha256(authorization).hexdigest(), _LOOPBACK_SCOPES) if authorization else _NOBODY


class KeyFile:
    """The last known keys of a machine: hashes and limits, for its owner's eyes (0600)."""

    def __init__(self, state: Path) -> None:
        self._path = state / "gateway" / "apikeys"

    def read(self) -> dict[str, ApiKey] | None:
        """Return the keys by hash; None if there never was one, nothing if the file cannot be read."""
        try:
            texts = json.loads(self._path.read_bytes())
            return parse({str(key_hash): str(text) for key_hash, text in texts.items()})
        except FileNotFoundError:
            return None
        except (OSError, ValueError, AttributeError) as error:
            _LOG.warning("%s: cannot be read (%s); nobody is let in until the store says who", self._path, error)
            return {}

    def write(self, known: Mapping[str, ApiKey], worker: str) -> None:
        """Keep the keys; the file is whole at every moment, and several workers may write it at once."""
        fresh = self._path.with_suffix(f".{quote(worker, safe='')}")
        text = json.dumps({key_hash: key.to_json() for key_hash, key in known.items()})
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self._path)
        except OSError as error:
            _LOG.warning("%s: cannot keep the API keys (%s); free the disk or set LINNET_STATE", self._path, error)


class Keys:
    """One worker's view of the API keys. `loopback` tells whether this listener can be reached from here alone."""

    def __init__(self, api_keys: ApiKeys, file: KeyFile, worker: str, *, loopback: bool) -> None:
        self._api_keys = api_keys
        self._file = file
        self._worker = worker
        self._strangers: dict[bytes, Caller] = {}
        self._known: dict[str, ApiKey] = {}
        self._callers: dict[bytes, tuple[bytes, Caller]] = {}
        self._barred: frozenset[bytes] = frozenset()
        self._texts: dict[str, str] = {}
        self._pushed = 0
        self._forgotten = False
        self.changes = 0  # grows whenever somebody may have become somebody else
        kept = file.read()
        self._needed = not loopback or kept is not None
        self._adopt(kept or {})

    @property
    def needed(self) -> bool:
        """Tell whether a caller must present a key."""
        return self._needed

    def identify(self, authorization: bytes | None) -> Caller:
        """Return the caller behind an `Authorization` header; the same object for the same key.

        Hashed first, looked up by the hash, compared in constant time. Raises ApiError 401, or 403 for a key without
        the scope inference.
        """
        if not self._needed:
            return self._stranger(authorization)
        if authorization is None or authorization[:7].lower() != _BEARER:
            raise _no_key()
        digest = sha256(authorization[7:]).digest()
        found = self._callers.get(digest)
        if found is None or not compare_digest(found[0], digest):
            raise self._refusal(digest)
        return found[1]

    async def poll(self) -> None:
        """Ask the store for every key once. Raises StoreError.

        An answer that was overtaken by a push is left to the next poll. A store without any key where there were some
        has lost its data; what was known holds then, until it knows a key again.
        """
        pushed = self._pushed
        texts = await self._api_keys.texts()
        if pushed != self._pushed:
            return
        if texts:
            if texts != self._texts:
                self._learn(texts)
        elif self._known and not self._forgotten:
            self._forgotten = True
            _LOG.warning("the store has no API keys any more: the last known ones hold until it has; make them again")

    async def listen(self) -> None:
        """Take pushed changes until the store is lost. Raises StoreError."""
        async for key_hash, text in self._api_keys.changes():
            if key_hash:
                self._pushed += 1
                self._learn({**self._texts, key_hash: text})
            else:
                await self.poll()

    def _learn(self, texts: dict[str, str]) -> None:
        """Take the store's records. What was revoked stays so, whatever a store restored from a backup may say."""
        self._texts = texts
        self._forgotten = False
        fresh = parse(texts)
        revoked = {h: key for h, key in self._known.items() if key.revoked_ms}
        fresh |= {h: key for h, key in revoked.items() if h in fresh}
        if not self._needed:
            _LOG.warning("API keys are needed from now on")
        self._needed = True
        self._adopt(fresh)
        self._file.write(fresh, self._worker)

    def _adopt(self, known: dict[str, ApiKey]) -> None:
        """Rebuild the tables that requests look into."""
        self.changes += 1
        before, holding = dict(self._callers.values()), {}
        for key_hash, key in known.items():
            caller, digest = _caller(key_hash, key), bytes.fromhex(key_hash)
            if not key.revoked_ms:
                holding[digest] = before[digest] if before.get(digest) == caller else caller
        self._known = known
        self._callers = {d: (d, caller) for d, caller in holding.items() if Scope.INFERENCE in caller.scopes}
        self._barred = frozenset(holding.keys() - self._callers.keys())

    def _stranger(self, authorization: bytes | None) -> Caller:
        """Return a loopback caller; as many as there may be, few are remembered."""
        if not authorization:
            return _NOBODY
        digest = sha256(authorization).digest()
        caller = self._strangers.get(digest)
        if caller is None:
            if len(self._strangers) >= _REMEMBERED:
                self._strangers.clear()
            caller = self._strangers[digest] = Caller(digest.hex(), _LOOPBACK_SCOPES)
        return caller

    def _refusal(self, digest: bytes) -> ApiError:
        if digest in self._barred:
            return ApiError(403, "This API key has no scope `inference`.", "insufficient_permissions")
        return ApiError(401, "Incorrect API key provided.", "invalid_api_key", headers=_CHALLENGE)


def _caller(key_hash: str, key: ApiKey) -> Caller:
    return Caller(key_hash, key.scopes, key.id, key.limits if key.limits.any else None)


def _no_key() -> ApiError:
    said = "You didn't provide an API key. Send it in the header Authorization: Bearer YOUR_KEY."
    return ApiError(401, said, "invalid_api_key", headers=_CHALLENGE)


def keys_at_start(redis_url: str, state: Path) -> bool:
    """Tell whether any API key is known, to the store or, if it is dead, to the file; keep what the store says.

    For `check_bind`, before any event loop runs: one bounded call.
    """
    file = KeyFile(state)
    try:
        known = parse(asyncio.run(_texts(redis_url)))
    except StoreError:
        return bool(file.read())
    if known:
        file.write(known, f"start-{os.getpid()}")
    return bool(known) or bool(file.read())


async def _texts(redis_url: str) -> dict[str, str]:
    redis = open_redis(redis_url)
    try:
        return await ApiKeys(redis, redis_url).texts()
    finally:
        await redis.aclose()
