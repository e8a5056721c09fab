"""Who may use the admin API: a role for each route, and no way in for what has none.

Once a key with the scope `admin` has been made, every route but the open ones needs such a key, also after all of them
were revoked. Before that the listener serves loopback alone. With access to the store itself (`--store`) one is beyond
this: whoever can write there can do everything anyhow.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from hashlib import sha256
from hmac import compare_digest

from canary.errors import Refused
from canary.storage.apikeys import ApiKey, ApiKeys, Scope, parse

_MOST = 512  # bytes of an Authorization header


class Role(StrEnum):
    """Who may call a route."""

    OPEN = "open"
    ADMIN = "admin"


ROLES: Mapping[tuple[str, str], Role] = {
    ("GET", "/livez"): Role.OPEN,
    ("GET", "/readyz"): Role.OPEN,
    ("GET", "/metrics"): Role.OPEN,
    ("GET", "/admin/v1/models"): Role.ADMIN,
    ("GET", "/admin/v1/engines"): Role.ADMIN,
    ("GET", "/admin/v1/models/{model}/status"): Role.ADMIN,
    ("GET", "/admin/v1/models/{model}/report"): Role.ADMIN,
    ("GET", "/admin/v1/models/{model}/reports/{kind}/{digest}"): Role.ADMIN,
    ("PUT", "/admin/v1/models/{model}/reports/{kind}/{digest}"): Role.ADMIN,
    ("POST", "/admin/v1/models/{model}/commands"): Role.ADMIN,
    ("POST", "/admin/v1/releases"): Role.ADMIN,
    ("GET", "/admin/v1/audit"): Role.ADMIN,
    ("GET", "/admin/v1/audit/chain"): Role.ADMIN,
    ("GET", "/admin/v1/keys"): Role.ADMIN,
    ("POST", "/admin/v1/keys"): Role.ADMIN,
    ("DELETE", "/admin/v1/keys/{key_id}"): Role.ADMIN,
}


class Unauthorized(Refused):
    """No key, or none that is known."""


class Forbidden(Refused):
    """A known key that may not do this."""


class Authority:
    """Decides for one control plane; once `needed`, keys stay so, also when the store forgets them."""

    def __init__(self, api_keys: ApiKeys, *, needed: bool = False) -> None:
        self._api_keys = api_keys
        self._needed = needed

    async def admit(self, method: str, path: str, authorization: bytes | None) -> str:
        """Let a request pass; return the id of the key that let it in, "" for none.

        An open route is its exact path, so whatever matches no line of the table needs an admin too. Raises
        Unauthorized, Forbidden, or StoreError: without the store nobody is let in.
        """
        if ROLES.get((method, path)) is Role.OPEN:
            return ""
        texts = await self._api_keys.texts()
        found = parse(texts)
        damaged = len(found) < len(texts)  # it may have been an admin's
        self._needed = self._needed or damaged or any(Scope.ADMIN in key.scopes for key in found.values())
        return _admin(found, authorization).id if self._needed else ""

    async def guarded(self) -> bool:
        """Tell whether an admin key holds, so that the listener may be reached by others."""
        return any(Scope.ADMIN in key.scopes and not key.revoked_ms for key in await self._api_keys.every())


def _admin(found: Mapping[str, ApiKey], authorization: bytes | None) -> ApiKey:
    key = None if authorization is None else _key(found, authorization)
    if key is None:
        raise Unauthorized("an admin key is needed: set LINNET_ADMIN_KEY, or go straight to the store with --store URL")
    if Scope.ADMIN not in key.scopes:
        raise Forbidden(f"{key.id} has no scope admin; set LINNET_ADMIN_KEY to a key that has")
    return key


def _key(found: Mapping[str, ApiKey], authorization: bytes) -> ApiKey | None:
    """Return the key that was presented: hashed first, then compared with every hash in constant time."""
    scheme, _, secret = authorization.partition(b" ")
    if scheme.lower() != b"bearer" or not secret.isascii() or len(secret) > _MOST:
        return None
    presented = sha256(secret).hexdigest().encode()
    same = [key for key_hash, key in found.items() if compare_digest(key_hash.encode(), presented)]
    return same[0] if same and not same[0].revoked_ms else None
