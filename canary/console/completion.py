"""What the shell completes: models, phases and keys. Quick, and silent where nobody answers."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from canary.console.client import Client, connect
from canary.errors import LinnetError

ORDER = ("draft", "preflight", "shadow", "canary", "bake", "promoted")
PHASES = (*ORDER, "rolled_back", "aborted", "superseded")


def phases(incomplete: str) -> list[str]:
    """Return the phases that begin so."""
    return _begin(PHASES, incomplete)


def models(ctx: Any, incomplete: str) -> list[str]:
    """Return the models that begin so, as the control plane or the store knows them."""
    with suppress(LinnetError):
        return _begin(_client(ctx).models(), incomplete)
    return []


def keys(ctx: Any, incomplete: str) -> list[str]:
    """Return the ids of keys that still hold."""
    with suppress(LinnetError):
        known = _client(ctx).keys()
        return _begin((key["id"] for key in known if not key["revoked_ms"]), incomplete)
    return []


def _client(ctx: Any) -> Client:
    return connect(ctx.params.get("url") or "", ctx.params.get("store"))


def _begin(words: Iterable[str], incomplete: str) -> list[str]:
    return [word for word in words if word.startswith(incomplete)]
