"""Who calls, and what they may.

At this depth no API keys are configured: the gateway then serves loopback alone, and every loopback caller may do what
a tester may. Without that rule an open port would let anyone choose an arm.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from ipaddress import ip_address

from gateway.errors import SettingsError


class Scope(StrEnum):
    """What a caller may do."""

    INFERENCE = "inference"
    TESTER = "tester"


@dataclass(frozen=True, slots=True)
class Caller:
    """One caller: the hash of what they presented as a key ("" for nothing), and their scopes."""

    key_hash: str
    scopes: frozenset[Scope]


_LOOPBACK_SCOPES = frozenset({Scope.INFERENCE, Scope.TESTER})


def check_bind(host: str) -> None:
    """Refuse any address but loopback. Raises SettingsError with one line."""
    if not is_loopback(host):
        raise SettingsError(
            f"LINNET_GATEWAY_HOST={host}: no API keys are configured, so only loopback is served; set 127.0.0.1"
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
    """Return the caller behind an `Authorization` header; the key itself goes no further than its hash."""
    key_hash = "" if not authorization else sha256(authorization).hexdigest()
    return Caller(key_hash, _LOOPBACK_SCOPES)
